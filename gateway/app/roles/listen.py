"""The process of what comes in by SMTP: the listener for what comes back, and, where it is on, the submission door."""

from __future__ import annotations

import asyncio

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.feedback.listener import serve_listener
from gateway.submission.door import serve_submission


async def start(brief: Brief, stop: asyncio.Event) -> Exit:
    """Listen until `stop`."""
    doors = [serve_listener(brief.config, stop=stop)]
    if brief.config.submission.is_on:
        doors.append(serve_submission(brief.config, brief.dsn, shaping=brief.shaping, stop=stop))
    await asyncio.gather(*doors)
    return Exit.OK
