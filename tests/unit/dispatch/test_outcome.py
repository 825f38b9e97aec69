"""The acknowledger: batches, outages, and no outcome lost; and what the queue is told of an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.config import DispatchConfig, DoubtConfig, RetryConfig
from gateway.dispatch.outcome import Acknowledger, Policies
from gateway.errors import StoreUnavailable
from gateway.model.delivery import DeliveryState, Result
from gateway.model.disposition import BounceClass, Disposition, Outcome, Scope
from tests.support.clock import FakeClock


class _Pool:
    """Lends connections that are nothing."""

    @asynccontextmanager
    async def acquire(self) -> Any:
        yield None


class _Queue:
    """Takes batches; each waits for its turn, and fails while the store is away."""

    def __init__(self) -> None:
        self.away = False
        self.taken: list[int] = []
        self.batches: list[int] = []
        self.gate: asyncio.Event | None = None
        self.gates: list[asyncio.Event] | None = (
            None  # one for each call, where a test answers them one by one
        )

    async def acknowledge(
        self, connection: object, results: Sequence[Result], owner: int | None = None
    ) -> int:
        if self.gates is not None:
            self.gates.append(asyncio.Event())
            await self.gates[-1].wait()
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise StoreUnavailable("acknowledging deliveries: Postgres is not available")
        self.batches.append(len(results))
        self.taken += [result.id for result in results]
        return len(results)


class _Journal:
    """Remembers what it was told that Postgres has."""

    def __init__(self) -> None:
        self.forgotten: list[int] = []

    def acknowledged(self, ids: Iterable[int]) -> None:
        self.forgotten += list(ids)


def _result(number: int) -> Result:
    return Result(number, 1, DeliveryState.DELIVERED)


class _Desk:
    def __init__(self, **config: int) -> None:
        self.queue, self.journal, self.clock = _Queue(), _Journal(), FakeClock()
        settings: dict[str, Any] = {"ack_interval_ms": 5, "ack_rows": 10} | config
        self.acknowledger = Acknowledger(
            _Pool(), self.queue, self.journal, DispatchConfig(**settings), self.clock
        )  # type: ignore[arg-type]

    def put(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.acknowledger.put(_result(number))


async def _settle(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def _turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_outcomes_are_told_in_a_batch_and_then_forgotten() -> None:
    desk = _Desk()
    running = asyncio.create_task(desk.acknowledger.run())
    desk.put(range(5))
    assert desk.acknowledger.backlog == 5
    await _settle(lambda: desk.acknowledger.backlog == 0)
    assert desk.queue.batches == [5]
    assert desk.journal.forgotten == list(range(5))
    running.cancel()


async def test_a_full_batch_does_not_wait_for_the_interval() -> None:
    desk = _Desk(ack_interval_ms=1_000, ack_rows=3)
    running = asyncio.create_task(desk.acknowledger.run())
    started = asyncio.get_running_loop().time()
    desk.put(range(3))
    await _settle(lambda: desk.acknowledger.backlog == 0)
    assert asyncio.get_running_loop().time() - started < 0.5
    running.cancel()


async def test_no_outcome_is_lost_over_an_outage_and_the_journal_keeps_them_meanwhile() -> None:
    desk = _Desk()
    running = asyncio.create_task(desk.acknowledger.run())
    desk.queue.away = True
    desk.put(range(4))
    await _settle(lambda: desk.clock.sleeping == 1)
    desk.put(range(4, 9))  # sending goes on for a while
    assert sorted(desk.acknowledger.pending_ids()) == list(range(9))
    for _ in range(3):
        await desk.clock.advance(0.5)
        await _settle(lambda: desk.clock.sleeping == 1)
    assert desk.journal.forgotten == []
    desk.queue.away = False
    await desk.clock.advance(0.5)
    await _settle(lambda: desk.acknowledger.backlog == 0)
    assert sorted(desk.queue.taken) == list(range(9))
    assert sorted(desk.journal.forgotten) == list(range(9))
    running.cancel()


async def test_what_comes_while_a_batch_is_written_waits_for_the_next() -> None:
    desk = _Desk()
    desk.queue.gate = asyncio.Event()
    flushing = asyncio.create_task(desk.acknowledger.flush())
    desk.put([1])
    await asyncio.sleep(0)
    flushing.cancel()
    writing = asyncio.create_task(desk.acknowledger.flush())
    await asyncio.sleep(0)
    desk.put([2])
    assert sorted(desk.acknowledger.pending_ids()) == [1, 2]
    desk.queue.gate.set()
    assert await writing
    assert desk.queue.taken == [1, 2]


async def test_a_batch_cancelled_while_it_was_written_is_told_again() -> None:
    """Nobody knows whether Postgres has it; telling twice is harmless, not telling is a loss."""
    desk = _Desk()
    desk.queue.gate = asyncio.Event()
    running = asyncio.create_task(desk.acknowledger.run())
    desk.put([1, 2])
    await _settle(lambda: desk.acknowledger.pending_ids() == [1, 2] and desk.acknowledger._writing)
    running.cancel()
    await asyncio.wait([running])
    desk.queue.gate.set()
    assert await desk.acknowledger.flush()
    assert desk.queue.taken == [1, 2]
    assert desk.journal.forgotten == [1, 2]


async def test_a_flush_beside_the_running_batch_confirms_only_what_was_written() -> None:
    """Two writers at once: what one of them began next must not pass for what the other had written."""
    desk = _Desk(ack_rows=2)
    desk.queue.gates = []
    running = asyncio.create_task(desk.acknowledger.run())
    desk.put([1, 2])
    await _settle(lambda: desk.queue.gates)
    flushing = asyncio.create_task(desk.acknowledger.flush(attempts=1))
    await _turns()
    desk.put([3, 4])
    # Each call is answered in turn, and the store goes away after the first two answers.
    for answered in range(4):
        desk.queue.away = answered >= 2
        if answered < len(desk.queue.gates):
            desk.queue.gates[answered].set()
        await _turns()
    assert set(desk.journal.forgotten) <= set(desk.queue.taken)
    assert {1, 2, 3, 4} <= set(desk.queue.taken) | set(desk.acknowledger.pending_ids())
    running.cancel()
    flushing.cancel()


async def test_flush_gives_up_at_last_and_says_so() -> None:
    desk = _Desk()
    desk.queue.away = True
    desk.put([1])
    flushing = asyncio.create_task(desk.acknowledger.flush(attempts=3))
    for _ in range(3):
        await desk.clock.advance(0.25)
    assert await flushing is False
    assert desk.journal.forgotten == []
    assert desk.acknowledger.backlog == 1


# -- what the queue is told --------------------------------------------------------------------------------------------


def _policies() -> Policies:
    return Policies(
        RetryConfig(jitter_ratio=0.0), DoubtConfig(transactional_wait_s=60.0, bulk_wait_s=3_600.0)
    )


def _told(outcome: Outcome, bounce_class: BounceClass, *, scope: Scope = Scope.RECIPIENT, code: int = 450, priority: int = 1,
          attempts: int = 0, lane_wait_s: float = 0.0) -> Result:  # fmt: skip
    return _policies().result_of(
        Disposition(outcome, bounce_class, code, "4.2.0", "said", scope),
        delivery_id=7, epoch=3, attempts=attempts, priority=priority, lane_wait_s=lane_wait_s,
    )  # fmt: skip


def test_what_is_told_of_each_outcome() -> None:
    done = _told(Outcome.DELIVERED, BounceClass.OK, code=250)
    assert (done.id, done.epoch, done.state, done.counts, done.wait_s, done.suppress) == (
        7,
        3,
        DeliveryState.DELIVERED,
        True,
        0.0,
        None,
    )
    bounced = _told(Outcome.BOUNCED, BounceClass.INVALID, code=550)
    assert (bounced.state, bounced.code, bounced.suppress is not None) == (DeliveryState.BOUNCED, 550, True)
    assert _told(Outcome.BOUNCED, BounceClass.SPAM, code=550).suppress is None


@pytest.mark.parametrize(("priority", "wait_s"), [(0, 60.0), (1, 3_600.0)])
def test_doubt_waits_by_stream(priority: int, wait_s: float) -> None:
    told = _told(Outcome.IN_DOUBT, BounceClass.TIMEOUT, code=0, priority=priority)
    assert (told.state, told.wait_s, told.code) == (DeliveryState.IN_DOUBT, wait_s, None)


def test_a_deferral_of_the_lane_does_not_count_and_waits_with_the_lane() -> None:
    told = _told(Outcome.DEFERRED, BounceClass.RATE, scope=Scope.LANE, code=421, lane_wait_s=12.5)
    assert (told.counts, told.wait_s) == (False, 12.5)


def test_a_deferral_of_the_recipient_waits_longer_each_time() -> None:
    waits = [_told(Outcome.DEFERRED, BounceClass.GREYLIST, attempts=n).wait_s for n in range(4)]
    assert waits == [300.0, 900.0, 1_800.0, 1_800.0]
