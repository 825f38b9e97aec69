"""A standstill is a tick that comes late, and nothing else."""

from __future__ import annotations

import asyncio

from gateway.dispatch.stall import STALL_S, Stalls
from tests.support.clock import FakeClock


async def test_a_loop_that_turns_has_no_standstill() -> None:
    clock = FakeClock()
    stalls = Stalls(clock)
    watching = asyncio.create_task(stalls.watch())
    await clock.advance(10.0)
    assert not stalls.since(1_000.0)
    watching.cancel()


async def test_a_process_that_was_stopped_knows_before_its_next_tick() -> None:
    clock = FakeClock()
    stalls = Stalls(clock)
    watching = asyncio.create_task(stalls.watch())
    await clock.advance(1.0)
    left_at = clock.monotonic()
    clock.skip(STALL_S + 0.1)
    assert stalls.since(left_at)
    assert stalls.since(left_at)  # however often it is asked
    left_at = clock.monotonic()
    await clock.advance(1.0)
    assert not stalls.since(left_at)
    watching.cancel()
