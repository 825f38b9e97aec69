"""The claim loop: what it asks for, when it does not ask, and what it never forgets to give back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from gateway.config import DispatchConfig
from gateway.dispatch.feeder import NO_SLOT_WAIT_S, SUSPECT_EVERY_S, Feeder
from gateway.errors import StoreUnavailable
from gateway.model.delivery import Granted, Leased
from gateway.store.queue import ClaimLimits
from gateway.telemetry import Metrics
from tests.support.clock import FakeClock
from tests.unit.dispatch.test_lane import Host, leased


class _Asked(msgspec.Struct):
    limits: ClaimLimits
    busy: dict[int, int]
    urgent_only: bool


class _Queue:
    """Gives what a test puts on the table, and remembers what it was asked and told."""

    def __init__(self) -> None:
        self.table: list[list[Granted]] = []
        self.asked: list[_Asked] = []
        self.told: list[tuple[str, Any]] = []
        self.away = self.answers_get_lost = False

    async def claim(self, connection: object, limits: ClaimLimits, *, alive: Sequence[int], busy: Mapping[int, int],
                    urgent_only: bool = False) -> list[Granted]:  # fmt: skip
        self._available()
        self.asked.append(_Asked(limits, dict(busy), urgent_only))
        if self.answers_get_lost:
            raise StoreUnavailable("claiming deliveries: the connection to Postgres was lost")
        return self.table.pop(0) if self.table else []

    async def release(self, connection: object, deliveries: Iterable[Leased]) -> int:
        self._available()
        self.told.append(("release", sorted(d.id for d in deliveries)))
        return 1

    async def release_unknown(self, connection: object, known: Iterable[int]) -> int:
        self._available()
        self.told.append(("release_unknown", sorted(known)))
        return 0

    async def release_slots(self, connection: object, lanes: Sequence[int]) -> None:
        self._available()
        self.told.append(("release_slots", list(lanes)))

    async def suspend_lanes(self, connection: object, waits: Mapping[int, object]) -> None:
        self._available()
        self.told.append(("suspend", dict(waits)))

    def all_told(self, what: str) -> list[Any]:
        return [detail for name, detail in self.told if name == what]

    def _available(self) -> None:
        if self.away:
            raise StoreUnavailable("Postgres is not available")


class _Attempts(Host):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.may_claim, self.draining = True, False
        self.suspensions: dict[int, tuple[float, str]] = {}
        self.heard = True
        self.feeder: Feeder | None = None

    def heard_since(self, moment: float) -> bool:
        return self.heard

    async def load(self, message_ids: set[int]) -> None:
        pass

    def hand_back(self, deliveries: list[Leased]) -> None:
        super().hand_back(deliveries)
        assert self.feeder is not None
        self.feeder.hand_back(deliveries)


class _Pool:
    @asynccontextmanager
    async def acquire(self) -> Any:
        yield None


class _Desk:
    """A feeder among fakes; `round` is one turn of its loop."""

    def __init__(self, **config: int) -> None:
        settings: dict[str, Any] = {
            "in_flight": 40,
            "claim_rows": 20,
            "urgent_reserve": 6,
            "ack_rows": 5,
            "connections_per_lane": 2,
        }
        self.clock, self.queue = FakeClock(), _Queue()
        self.acknowledger = SimpleNamespace(backlog=0, pending_ids=list[int], flush=self._flush)
        self.forgotten: list[int] = []
        self.flushed_after: list[int] = []
        self.attempts = _Attempts(self.clock)
        self.feeder = Feeder(
            pool=_Pool(), queue=self.queue, journal=SimpleNamespace(acknowledged=self.forgotten.extend),
            watch=SimpleNamespace(alive=[1]), acknowledger=self.acknowledger, config=DispatchConfig(**(settings | config)),
            clock=self.clock, metrics=Metrics(CollectorRegistry()),
        )  # type: ignore[arg-type]  # fmt: skip
        self.feeder.attempts = self.attempts.feeder = self.feeder  # type: ignore[assignment]
        self.feeder.attempts = self.attempts  # type: ignore[assignment]

    async def _flush(self, attempts: int = 20) -> bool:
        self.flushed_after.append(len(self.attempts.sent))
        return True

    async def round(self) -> bool:
        turn = self.feeder._round(self.attempts)  # type: ignore[arg-type]
        if not self.feeder._suspects or self.clock.monotonic() < self.feeder._suspect_from:
            return await turn
        trying = asyncio.create_task(turn)
        while not trying.done():
            await self.clock.advance(0.01)
        return await trying

    def grant(self, lane: int, numbers: Iterable[int], *, slots: int = 2, **fields: Any) -> Granted:
        now = self.clock.monotonic()
        return Granted(lane, 1e6, 1_000, slots, [leased(n, now, late_s=1e6, **fields) for n in numbers])


async def test_a_claim_asks_for_what_there_is_room_for() -> None:
    desk = _Desk()
    desk.attempts.takes_s = 1e3
    desk.queue.table = [[desk.grant(1, range(20))], [desk.grant(2, range(20, 28))]]
    assert await desk.round()
    assert await desk.round()
    assert not await desk.round()
    assert [asked.limits.rows for asked in desk.queue.asked] == [20, 20, 12]
    assert desk.queue.asked[0].busy == {}
    # A lane at work is asked for no more than it may hold, nor than its share (12 rows over 2 lanes; a new one's 8 at least).
    assert desk.queue.asked[2].busy == {1: 0, 2: 8}
    assert {asked.limits.rows_per_lane for asked in desk.queue.asked} == {8}
    assert not any(asked.urgent_only for asked in desk.queue.asked)


async def test_what_is_reserved_for_urgent_mail_is_asked_for_only_when_the_rest_is_full() -> None:
    desk = _Desk()
    desk.attempts.takes_s = 1e3
    desk.queue.table = [[desk.grant(lane, range(lane * 20, lane * 20 + 19))] for lane in (1, 2)]
    await desk.round()
    await desk.round()
    await desk.round()
    last = desk.queue.asked[-1]
    assert last.urgent_only
    assert last.limits.rows == 40 + 6 - 38
    desk.queue.table = [[desk.grant(3, range(100, 108), priority=0)]]
    await desk.round()
    asked = len(desk.queue.asked)
    assert not await desk.round()  # nothing more, not even urgent: 46 are here
    assert len(desk.queue.asked) == asked


async def test_nothing_is_claimed_while_acknowledgements_fall_behind() -> None:
    desk = _Desk()
    desk.acknowledger.backlog = 41
    assert not await desk.round()
    assert desk.queue.asked == []
    desk.acknowledger.backlog = 40
    await desk.round()
    assert len(desk.queue.asked) == 1


async def test_nothing_is_claimed_without_a_proven_lease() -> None:
    desk = _Desk()
    desk.attempts.may_claim = False
    assert not await desk.round()
    assert desk.queue.asked == []


async def test_a_lane_without_a_slot_is_not_asked_for_again_at_once() -> None:
    desk = _Desk()
    desk.queue.table = [[Granted(9, 10.0, 1, 0, [])]]
    await desk.round()
    await desk.round()
    assert desk.queue.asked[-1].busy == {9: 0}
    await desk.clock.advance(NO_SLOT_WAIT_S)
    await desk.round()
    assert desk.queue.asked[-1].busy == {}


async def test_the_answer_of_a_claim_that_got_lost_is_handed_back_before_the_next() -> None:
    desk = _Desk()
    desk.attempts.takes_s = 1e3
    desk.queue.table = [[desk.grant(1, [1, 2])]]
    await desk.round()
    desk.acknowledger.pending_ids = lambda: [77]
    desk.queue.answers_get_lost = True
    with pytest.raises(StoreUnavailable):
        await desk.round()
    desk.queue.answers_get_lost = False
    desk.attempts.heard = False
    claims = len(desk.queue.asked)
    assert not await desk.round()  # what answers may be an older backup: the heartbeat comes first
    assert (desk.queue.all_told("release_unknown"), len(desk.queue.asked)) == ([], claims)
    desk.attempts.heard = True
    await desk.round()
    assert desk.queue.all_told("release_unknown") == [[1, 2, 77]]
    assert len(desk.queue.asked) == claims + 1
    await desk.round()
    assert len(desk.queue.all_told("release_unknown")) == 1


async def test_what_goes_back_is_told_until_postgres_has_it() -> None:
    desk = _Desk()
    desk.feeder.hand_back([leased(1, 0.0), leased(2, 0.0)])
    desk.attempts.suspensions = {5: (30.0, "421")}
    desk.queue.away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await desk.round()
    assert desk.forgotten == []
    desk.feeder.hand_back([leased(3, 0.0)])
    desk.queue.away = False
    await desk.round()
    assert desk.queue.all_told("release") == [[1, 2, 3]]
    assert desk.queue.all_told("suspend") == [{5: (30.0, "421")}]
    assert sorted(desk.forgotten) == [1, 2, 3]
    assert desk.attempts.suspensions == {}


async def test_slots_of_a_lane_that_went_quiet_are_given_up_once() -> None:
    desk = _Desk()
    desk.queue.table = [[desk.grant(1, [1])]]
    await desk.round()
    await desk.clock.advance(1.0)
    await desk.round()
    assert desk.queue.all_told("release_slots") == []  # its connection is kept for a while
    await desk.clock.advance(10.0)
    desk.feeder.tidy()
    await desk.round()
    await desk.round()
    assert desk.queue.all_told("release_slots") == [[1]]


async def test_suspects_are_tried_alone_after_everything_else() -> None:
    desk = _Desk(connections_per_lane=3)
    desk.attempts.takes_s = 0.05
    desk.queue.table = [
        [desk.grant(1, [1, 2, 3], slots=3)],
        [desk.grant(2, [4, 5], crashes=1), desk.grant(3, [6])],
    ]
    await desk.round()
    await desk.clock.advance(0.01)
    await desk.round()
    assert desk.attempts.most_at_once == 3
    desk.attempts.most_at_once = 0
    for _ in range(3):  # nothing else waits, so the second is tried as soon as that is known
        await desk.round()
    order = [number for number, _ in desk.attempts.sent]
    assert order[-2:] == [4, 5]
    begun = dict(desk.attempts.sent)
    assert begun[5] - begun[4] >= 0.0499
    assert all(begun[4] - begun[n] >= 0.0499 for n in order[:-2])
    assert desk.flushed_after == [len(order) - 1, len(order)]


async def test_other_mail_leaves_between_two_suspects() -> None:
    desk = _Desk()
    desk.attempts.takes_s = 0.3
    desk.queue.table = [[desk.grant(1, [1, 2], crashes=1)], [desk.grant(3, range(20, 30), slots=1)]]
    for _ in range(3):  # claimed; the first suspect tried; others claimed
        await desk.round()
    await desk.clock.advance(0.5)
    assert not await desk.round()
    assert [number for number, _ in desk.attempts.sent] == [1, 20, 21]
    await desk.clock.advance(SUSPECT_EVERY_S)
    await desk.round()
    begun = dict(desk.attempts.sent)
    assert list(begun)[-1] == 2
    assert all(begun[2] - at >= 0.2999 for number, at in begun.items() if number != 2)
    await desk.round()
    assert desk.queue.all_told("release") == [[n for n in range(20, 30) if n not in begun]]


async def test_draining_hands_back_what_was_not_begun_and_waits_for_the_rest() -> None:
    desk = _Desk()
    desk.attempts.takes_s = 0.01
    desk.queue.table = [[desk.grant(1, [1, 2, 3, 4])], [desk.grant(2, [5], crashes=1)]]
    await desk.round()
    await desk.feeder._claim_once(desk.attempts)  # type: ignore[arg-type]
    await desk.clock.advance(0.0)
    draining = asyncio.create_task(desk.feeder.drain(desk.attempts, 5.0))  # type: ignore[arg-type]
    while not draining.done():
        await desk.clock.advance(0.01)
    await draining
    assert sorted(number for number, _ in desk.attempts.sent) == [1, 2]
    assert desk.queue.all_told("release") == [[3, 4, 5]]
    assert desk.queue.all_told("release_slots") == [[1]]
    assert desk.attempts.draining
    assert desk.feeder.held == 0
    assert all(session.ended for session in desk.attempts.sessions)


async def test_the_loop_outlives_an_outage_and_stops_when_told() -> None:
    desk = _Desk()
    stop = asyncio.Event()
    desk.queue.away = True
    desk.feeder.hand_back([leased(1, 0.0)])
    running = asyncio.create_task(desk.feeder.run(desk.attempts, stop))  # type: ignore[arg-type]
    await desk.clock.advance(3.0)
    assert desk.queue.asked == []
    assert not running.done()
    desk.queue.away = False
    await desk.clock.advance(0.5)
    async with asyncio.timeout(5):
        while not desk.queue.asked:
            await asyncio.sleep(0.001)
        assert desk.queue.told[:2] == [("release", [1]), ("release_unknown", [])]
        stop.set()
        await running
