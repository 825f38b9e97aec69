"""A dispatcher's process: it sends, and its rules for replies are kept true."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.app.brief import Brief
from gateway.app.exits import Exit
from gateway.app.tuning import keep_rules
from gateway.clock import SystemClock
from gateway.dispatch.lease import Fenced
from gateway.dispatch.run import run_dispatcher
from gateway.mta.bounce_rules import RuledJudge


async def start(brief: Brief, stop: asyncio.Event) -> Exit:
    """Dispatch until `stop`, then drain. A fenced dispatcher ends; the supervisor begins its next life."""
    judge, code = RuledJudge(brief.bounce_rules), Exit.OK
    try:
        async with asyncio.TaskGroup() as group:
            if brief.bounces:
                group.create_task(keep_rules(Path(brief.bounces), judge, stop=stop))
            await run_dispatcher(brief.config, brief.dsn, clock=SystemClock(), stop=stop, judge=judge)
    except* Fenced:  # it has logged that itself
        code = Exit.TEMPORARY
    except* Exception as errors:
        raise errors.exceptions[0] from None
    return code
