"""The process of what happens by the clock: broadcasts are expanded, the queue is kept moving, throttles are kept true."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.app.tuning import keep_limits
from gateway.campaigns.scheduler import run_scheduler
from gateway.clock import SystemClock
from gateway.dispatch.upkeep import run_upkeep


async def start(brief: Brief, stop: asyncio.Event) -> Exit:
    """Run all until `stop`; when one fails the others end too, and the supervisor starts them anew."""
    config, dsn, shaping, clock = brief.config, brief.dsn, brief.shaping, SystemClock()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run_scheduler(config, dsn, shaping=shaping, clock=clock, stop=stop))
            group.create_task(run_upkeep(config, dsn, shaping=shaping, clock=clock, stop=stop))
            if brief.throttles:
                path = Path(brief.throttles)
                group.create_task(keep_limits(path, dsn, shaping=shaping, clock=clock, stop=stop))
    except* Exception as errors:
        raise errors.exceptions[0] from None
    return Exit.OK
