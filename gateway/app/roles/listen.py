"""The SMTP listener's process."""

from __future__ import annotations

import asyncio

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.feedback.listener import serve_listener


async def start(brief: Brief, stop: asyncio.Event) -> Exit:
    """Listen until `stop`."""
    await serve_listener(brief.config, stop=stop)
    return Exit.OK
