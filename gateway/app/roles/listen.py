"""The process of what comes in by SMTP: the listener for what comes back, and, where it is on, the submission door."""

from __future__ import annotations

import asyncio

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.app.tuning import Tunings
from gateway.feedback.listener import serve_listener
from gateway.submission.door import serve_submission


async def start(brief: Brief, tunings: Tunings, stop: asyncio.Event) -> Exit:
    """Listen until `stop`; changed live keys and throttles hold for what submission takes from then on."""
    config, shaping = brief.tuning.config, brief.tuning.shaping
    doors = [serve_listener(config, stop=stop)]
    if config.submission.is_on:
        doors.append(serve_submission(config, brief.dsn, shaping=shaping, stop=stop, follow=tunings.retunes))
    await asyncio.gather(*doors)
    return Exit.OK
