"""The fake clock keeps its promises, since every other test leans on them."""

import asyncio
from datetime import UTC, timedelta

from gateway.clock import Clock, SystemClock
from tests.support.clock import FakeClock


async def test_advance_wakes_sleepers_in_order_of_deadline_each_at_its_moment() -> None:
    clock = FakeClock(monotonic_s=0.0)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, duration_s: float) -> None:
        await clock.sleep(duration_s)
        woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper(n, s)) for n, s in (("late", 3.0), ("soon", 1.0), ("soon too", 1.0))]
    await clock.advance(2.0)
    assert woken == [("soon", 1.0), ("soon too", 1.0)]
    await clock.advance(1.0)
    assert woken[-1] == ("late", 3.0)
    await asyncio.gather(*tasks)


async def test_a_sleeper_that_sleeps_again_wakes_again_within_one_advance() -> None:
    clock = FakeClock(monotonic_s=0.0)
    ticks: list[float] = []

    async def ticker() -> None:
        while True:
            await clock.sleep(0.25)
            ticks.append(clock.monotonic())

    task = asyncio.create_task(ticker())
    await clock.advance(1.0)
    assert ticks == [0.25, 0.5, 0.75, 1.0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleeping == 0
    await clock.advance(1.0)  # the cancelled sleeper is skipped


async def test_wall_clock_can_step_without_the_monotonic_one() -> None:
    clock = FakeClock(monotonic_s=0.0)
    before = clock.now()
    clock.step_wall(-3600)
    await clock.advance(1.0)
    assert clock.monotonic() == 1.0
    assert clock.now() - before == timedelta(seconds=-3599)


async def test_system_clock_is_aware_utc_and_never_goes_back() -> None:
    clock: Clock = SystemClock()
    assert clock.now().tzinfo is UTC
    first = clock.monotonic()
    await clock.sleep(-1.0)
    assert clock.monotonic() >= first
