"""A dispatcher's process: it sends, stands back for those who wait for an answer, and follows what changes in the files."""

from __future__ import annotations

import asyncio
import os

from gateway.app.brief import Brief, Tuning
from gateway.app.exits import Exit
from gateway.app.tuning import Tunings
from gateway.clock import SystemClock
from gateway.dispatch.lease import Fenced
from gateway.dispatch.run import run_dispatcher
from gateway.mta.bounce_rules import RuledJudge


async def start(brief: Brief, tunings: Tunings, stop: asyncio.Event) -> Exit:
    """Dispatch until `stop`, then drain. A fenced dispatcher ends; the supervisor begins its next life."""
    os.nice(brief.tuning.config.dispatch.niceness)
    judge = RuledJudge(brief.tuning.bounce_rules)

    def judge_by(tuning: Tuning) -> None:
        judge.rules = tuning.bounce_rules

    tunings.follow(judge_by)
    try:
        await run_dispatcher(
            brief.tuning.config,
            brief.dsn,
            clock=SystemClock(),
            stop=stop,
            judge=judge,
            shaping=brief.tuning.shaping,
            follow=tunings.retunes,
        )
    except Fenced:  # it has logged that itself
        return Exit.TEMPORARY
    return Exit.OK
