"""The control API's process."""

from __future__ import annotations

import asyncio

from gateway.api.server import serve_api
from gateway.app.brief import Brief
from gateway.app.exits import Exit


async def start(brief: Brief, stop: asyncio.Event) -> Exit:
    """Serve the API until `stop`."""
    await serve_api(brief.config, brief.dsn, shaping=brief.shaping, stop=stop)
    return Exit.OK
