"""The control API's process."""

from __future__ import annotations

import asyncio

from gateway.api.server import serve_api
from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.app.tuning import Tunings


async def start(brief: Brief, tunings: Tunings, stop: asyncio.Event) -> Exit:
    """Serve the API until `stop`."""
    tuning = brief.tuning
    await serve_api(tuning.config, brief.dsn, shaping=tuning.shaping, stop=stop, follow=tunings.retunes)
    return Exit.OK
