"""The process of what happens by the clock: broadcasts are expanded, the queue is kept moving."""

from __future__ import annotations

import asyncio

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.campaigns.scheduler import run_scheduler
from gateway.clock import SystemClock
from gateway.dispatch.upkeep import run_upkeep


async def start(brief: Brief, stop: asyncio.Event) -> Exit:
    """Run scheduler and upkeep until `stop`; when one fails the other ends too, and the supervisor starts both anew."""
    clock = SystemClock()
    try:
        async with asyncio.TaskGroup() as both:
            for work in (run_scheduler, run_upkeep):
                both.create_task(work(brief.config, brief.dsn, shaping=brief.shaping, clock=clock, stop=stop))
    except* Exception as errors:
        raise errors.exceptions[0] from None
    return Exit.OK
