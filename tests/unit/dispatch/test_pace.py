"""The two moments of a delivery: begun a little early, and its content at its moment, whenever the receiver was ready."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from gateway.dispatch.pace import SLACK_S, LanePace
from tests.support.clock import FakeClock

_RATE: float = 100.0


async def _contents(clock: FakeClock, pace: LanePace, plans: list[float]) -> list[float]:
    """Begin all of them for their plans, let the receiver be ready for all at once now, and return when each content left."""
    left: list[float] = []

    async def one(number: int, at: float) -> None:
        await pace.content_turn(number, at)
        left.append(clock.monotonic())

    for number, at in enumerate(plans):
        pace.begun(number, at)
    tasks = [asyncio.create_task(one(number, at)) for number, at in enumerate(plans)]
    await clock.advance(10.0)
    await asyncio.gather(*tasks)
    return left


async def test_content_for_which_the_receiver_is_ready_at_once_leaves_at_its_moments() -> None:
    clock = FakeClock()
    pace = LanePace(clock)
    pace.set_limits(_RATE, 1)
    plans = [clock.monotonic() + number / _RATE for number in range(5)]
    assert await _contents(clock, pace, plans) == pytest.approx(plans)


async def test_content_that_was_held_up_leaves_one_by_one_and_not_in_a_heap() -> None:
    clock = FakeClock()
    pace = LanePace(clock)
    pace.set_limits(_RATE, 1)
    now = clock.monotonic()
    left = await _contents(clock, pace, [now - 0.05 + number / _RATE for number in range(5)])
    assert left[0] == now
    assert all(later - earlier >= 1 / _RATE - SLACK_S - 1e-9 for earlier, later in pairwise(left))


async def test_a_full_bucket_lets_its_burst_leave_together() -> None:
    clock = FakeClock()
    pace = LanePace(clock)
    pace.set_limits(_RATE, 3)
    now = clock.monotonic()
    left = await _contents(clock, pace, [now] * 4)
    assert left[:3] == [now] * 3
    assert left[3] > now


def test_what_waits_for_content_puts_off_what_is_begun_behind_it() -> None:
    clock = FakeClock()
    pace = LanePace(clock)
    pace.set_limits(_RATE, 1)
    now = clock.monotonic()
    assert pace.content_at(now) == now
    pace.begun(1, now)
    pace.ended(1)  # it came to its end without content: nobody waits behind it
    assert pace.content_at(now) == now
    assert pace.earliest(now) == pytest.approx(now + 1 / _RATE), (
        "but it was begun, and the next keeps its distance"
    )
