"""The SMTP listener's process."""

from __future__ import annotations

import asyncio

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.app.tuning import Tunings
from gateway.feedback.listener import serve_listener


async def start(brief: Brief, _tunings: Tunings, stop: asyncio.Event) -> Exit:
    """Listen until `stop`; none of its keys changes without a restart."""
    await serve_listener(brief.tuning.config, stop=stop)
    return Exit.OK
