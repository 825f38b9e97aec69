"""The control API's process."""

from __future__ import annotations

import asyncio

from gateway.api.server import serve_api
from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.app.tuning import Tunings
from gateway.telemetry import Metrics


async def start(brief: Brief, tunings: Tunings, stop: asyncio.Event, metrics: Metrics) -> Exit:
    """Serve the API until `stop`."""
    tuning = brief.tuning
    await serve_api(
        tuning.config,
        brief.dsn,
        shaping=tuning.shaping,
        stop=stop,
        metrics=metrics,
        follow=tunings.retunes,
    )
    return Exit.OK
