"""The acknowledger: soon, in batches, and again until it is confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.config import DispatchConfig
from gateway.dispatch.outcome import Acknowledger
from gateway.errors import StoreUnavailable
from gateway.model.delivery import DeliveryState, Result

LONG_S = 10.0


class Pool:
    """Lends a connection that nobody uses."""

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        yield None


class Queue:
    """Takes batches, after so many outages."""

    def __init__(self, outages: int = 0) -> None:
        self.batches: list[list[int]] = []
        self.told = asyncio.Event()
        self._outages = outages

    async def acknowledge(self, _connection: None, results: Sequence[Result]) -> int:
        if self._outages:
            self._outages -= 1
            raise StoreUnavailable("away")
        self.batches.append([result.id for result in results])
        self.told.set()
        return len(results)


class Journal:
    """Remembers what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged_ids: list[int] = []

    def acknowledged(self, ids: Iterable[int]) -> None:
        self.acknowledged_ids += ids


class Impatient(SystemClock):
    """Does not wait between two tries."""

    async def sleep(self, duration_s: float, /) -> None:
        await asyncio.sleep(0)


def acknowledger(queue: Queue, journal: Journal, *, interval_ms: int = 1, rows: int = 400) -> Acknowledger:
    config = DispatchConfig(ack_interval_ms=interval_ms, ack_rows=rows)
    made: Any = Acknowledger
    return made(Pool(), queue, journal, config, Impatient())


@asynccontextmanager
async def running(told: Acknowledger) -> AsyncIterator[None]:
    task = asyncio.create_task(told.run())
    await asyncio.sleep(0)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def delivered(delivery_id: int) -> Result:
    return Result(delivery_id, 1, DeliveryState.DELIVERED)


async def test_what_failed_is_told_again_though_nothing_new_comes() -> None:
    queue, journal = Queue(outages=2), Journal()
    told = acknowledger(queue, journal)
    async with running(told), asyncio.timeout(LONG_S):
        told.put(delivered(1))
        await queue.told.wait()
    assert queue.batches == [[1]]
    assert journal.acknowledged_ids == [1]
    assert told.backlog == 0


@pytest.mark.parametrize("pause", [0, 3])
async def test_the_first_outcome_after_a_pause_waits_one_interval_and_no_more(
    pause: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float | None] = []
    wait_for = asyncio.wait_for

    async def noted(awaitable: Any, timeout: float | None) -> Any:
        waited.append(timeout)
        return await wait_for(awaitable, timeout)

    monkeypatch.setattr(asyncio, "wait_for", noted)
    queue = Queue()
    told = acknowledger(queue, Journal(), interval_ms=20)
    async with running(told), asyncio.timeout(LONG_S):
        for _ in range(pause):
            await asyncio.sleep(0)
        told.put(delivered(1))
        await queue.told.wait()
    assert sum(seconds or 0.0 for seconds in waited) <= 0.02


async def test_a_full_batch_goes_at_once() -> None:
    queue = Queue()
    told = acknowledger(queue, Journal(), interval_ms=1_000, rows=3)
    async with running(told), asyncio.timeout(LONG_S):
        for number in range(3):
            told.put(delivered(number))
        await queue.told.wait()
    assert queue.batches == [[0, 1, 2]]
