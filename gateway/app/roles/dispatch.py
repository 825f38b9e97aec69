"""A dispatcher's process."""

from __future__ import annotations

import asyncio

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.clock import SystemClock
from gateway.dispatch.lease import Fenced
from gateway.dispatch.run import run_dispatcher


async def start(brief: Brief, stop: asyncio.Event) -> Exit:
    """Dispatch until `stop`, then drain. A fenced dispatcher ends; the supervisor begins its next life."""
    try:
        await run_dispatcher(brief.config, brief.dsn, clock=SystemClock(), stop=stop)
    except Fenced:  # it has logged that itself
        return Exit.TEMPORARY
    return Exit.OK
