"""The process of what happens by the clock: broadcasts are expanded, the queue is kept moving, throttles are kept true."""

from __future__ import annotations

import asyncio

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.app.tuning import Tunings
from gateway.campaigns.scheduler import run_scheduler
from gateway.clock import SystemClock
from gateway.dispatch.limits import run_limits
from gateway.dispatch.upkeep import run_upkeep
from gateway.telemetry import Metrics


async def start(brief: Brief, tunings: Tunings, stop: asyncio.Event, metrics: Metrics) -> Exit:
    """Run all until `stop`; when one fails the others end too, and the supervisor starts them anew."""
    config, shaping = brief.tuning.config, brief.tuning.shaping
    dsn, clock = brief.dsn, SystemClock()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(
                run_upkeep(dsn, clock=clock, stop=stop, retention=config.retention, metrics=metrics)
            )
            for run in (run_scheduler, run_limits):
                group.create_task(
                    run(config, dsn, shaping=shaping, clock=clock, stop=stop, follow=tunings.retunes)
                )
    except* Exception as errors:
        raise errors.exceptions[0] from None
    return Exit.OK
