"""A lane's pace and its workers, with a host that does nothing but say when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from gateway.dispatch.connections import Connections
from gateway.dispatch.lane import PATIENCE_S, START_ROWS, LaneRunner
from gateway.dispatch.pace import SLACK_S
from gateway.model.delivery import Granted, Leased
from gateway.model.disposition import BounceClass, Disposition, Outcome, Scope
from gateway.mta.wire import SessionFailed
from tests.support.clock import FakeClock

_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_OK = Disposition(Outcome.DELIVERED, BounceClass.OK, 250, None, "ok")
_BUSY = Disposition(Outcome.DEFERRED, BounceClass.RATE, 421, None, "too many", Scope.LANE)
_NO_MAIL = Disposition(Outcome.BOUNCED, BounceClass.INVALID, 0, "5.1.10", "takes no mail")


def leased(number: int, planned_at: float, *, late_s: float = 0.25, **fields: Any) -> Leased:
    values: dict[str, Any] = {
        "id": number, "epoch": 1, "lane_id": 1, "site_id": 1, "message_id": 1, "broadcast_id": 0, "priority": 1, "attempts": 0,
        "crashes": 0, "doubts": 0, "recipient": "a@b.example", "variables": None, "accepted_at": _DAY, "expires_at": _DAY,
        "suppressed": False, "planned_at": planned_at, "late_at": planned_at + late_s, "last_moment": 1e9,
    }  # fmt: skip
    return Leased(
        **{name: value for name, value in (values | fields).items() if name in Leased.__struct_fields__}
    )


class FakeSession:
    def __init__(self) -> None:
        self.usable, self.transactions, self.ended = True, 0, ""
        self.one_by_one = self.refused_ahead = False

    def quit(self) -> None:
        self.usable, self.ended = False, "quit"

    def abort(self) -> None:
        self.usable, self.ended = False, "abort"


class Host:
    """Sends in no time (or `takes_s`), and remembers when."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.sent: list[tuple[int, float]] = []
        self.back: list[int] = []
        self.refusals: list[tuple[int | None, Disposition]] = []
        self.errors: list[BaseException] = []
        self.sessions: list[FakeSession] = []
        self.answer: Callable[[Leased], Disposition | None] = lambda _: _OK
        self.connect_fails = False
        self.connect_takes_s = 0.0
        self.no_mail_for: set[str] = set()
        self.without_hope: list[int] = []
        self.held: set[int] = set()
        self.takes_s = 0.0
        self.opens_ahead = False
        self.opened: list[tuple[int, Any]] = []
        self.forgotten: list[int] = []
        self.at_once = self.most_at_once = 0

    def may_leave(self, delivery: Leased) -> bool:
        return delivery.site_id not in self.held

    async def connect(self, delivery: Leased) -> Any:
        if self.connect_takes_s:
            await self.clock.sleep(self.connect_takes_s)
        if self.connect_fails:
            raise SessionFailed(_BUSY)
        if delivery.recipient.rpartition("@")[2] in self.no_mail_for:
            raise SessionFailed(_NO_MAIL)
        self.sessions.append(FakeSession())
        return self.sessions[-1]

    def forget(self, delivery: Leased) -> None:
        self.forgotten.append(delivery.id)

    async def send(
        self,
        delivery: Leased,
        session: Any,
        turn: Callable[[], Awaitable[None]],
        ahead: Callable[[], Leased | None],
    ) -> Disposition | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await turn()
        session.transactions += 1
        if self.opens_ahead and (following := ahead()) is not None:
            self.opened.append((following.id, session))
        self.sent.append((delivery.id, self.clock.monotonic()))
        await self.clock.sleep(self.takes_s)
        self.at_once -= 1
        return self.answer(delivery)

    def refused(self, delivery: Leased | None, lane: LaneRunner, disposition: Disposition) -> None:
        self.refusals.append((delivery.id if delivery else None, disposition))
        lane.refused_until = self.clock.monotonic() + 10.0

    def hopeless(self, delivery: Leased, disposition: Disposition) -> None:
        assert disposition == _NO_MAIL
        self.without_hope.append(delivery.id)

    def hand_back(self, deliveries: list[Leased]) -> None:
        self.back += [delivery.id for delivery in deliveries]

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)

    def leaving_times(self) -> list[float]:
        return [round(at - 1_000.0, 6) for _, at in self.sent]


@asynccontextmanager
async def lane_of(
    *, per_connection: int = 100, max_rows: int = 200, opens_ahead: bool = False
) -> AsyncIterator[tuple[LaneRunner, Host]]:
    host = Host(FakeClock())
    host.opens_ahead = opens_ahead
    lane = LaneRunner(
        1, host, max_rows=max_rows, messages_per_connection=per_connection, max_patience_s=0.1, on_progress=lambda: None
    )  # fmt: skip
    yield lane, host
    lane.abort()
    await lane.finish()


def grant(
    numbers: range, *, rate: float, burst: int = 1, slots: int = 1, start: float = 1_000.0, **fields: Any
) -> Granted:
    """As the claim plans them: the burst at once, then one each 1/rate."""
    plans = [start + max(0, place - burst + 1) / rate for place in range(len(numbers))]
    return Granted(
        1, rate, burst, slots, [leased(n, at, **fields) for n, at in zip(numbers, plans, strict=True)]
    )


async def test_deliveries_leave_at_their_planned_moments() -> None:
    async with lane_of() as (lane, host):
        lane.take(grant(range(6), rate=10, burst=2))
        await host.clock.advance(1.0)
        assert host.leaving_times() == [0.0, 0.0, 0.1, 0.2, 0.3, 0.4]
        assert [number for number, _ in host.sent] == list(range(6))


async def test_several_connections_share_one_pace() -> None:
    async with lane_of() as (lane, host):
        host.takes_s = 0.35
        lane.take(grant(range(8), rate=10, slots=4))
        await host.clock.advance(2.0)
        assert host.leaving_times() == [round(0.1 * i, 6) for i in range(8)]
        assert host.most_at_once == 4


async def test_no_more_connections_are_opened_than_one_dispatcher_may_have() -> None:
    async with lane_of() as (lane, host):
        host.takes_s = 1.0
        lane.use(Connections(most=2, messages=3, idle_s=5.0))
        lane.take(grant(range(8), rate=1e3, burst=8, slots=4, late_s=60.0))
        await host.clock.advance(10.0)
        assert host.most_at_once == 2
        assert len(host.sent) == 8
        assert [session.transactions for session in host.sessions] == [3, 3, 1, 1]
        lane.use(Connections(most=4, messages=3, idle_s=5.0))
        lane.take(grant(range(8, 16), rate=1e3, burst=8, slots=4, start=1_010.0, late_s=60.0))
        await host.clock.advance(10.0)
        assert host.most_at_once == 4


async def test_fewer_messages_a_connection_hold_for_those_that_are_open() -> None:
    async with lane_of() as (lane, host):
        host.takes_s = 1.0
        lane.use(Connections(most=1, messages=100, idle_s=5.0))
        lane.take(grant(range(4), rate=1e3, burst=4, late_s=60.0))
        await host.clock.advance(1.5)
        lane.use(Connections(most=1, messages=1, idle_s=5.0))
        await host.clock.advance(10.0)
        assert [session.transactions for session in host.sessions] == [2, 1, 1]


async def test_a_stall_is_not_made_up_in_one_heap() -> None:
    """One connection, each delivery takes three times its share: what comes due meanwhile keeps its distance."""
    async with lane_of() as (lane, host):
        host.takes_s = 0.3
        lane.take(grant(range(5), rate=10, late_s=60.0))
        await host.clock.advance(0.35)
        host.takes_s = 0.0
        await host.clock.advance(5.0)
        times = host.leaving_times()
        assert len(times) == 5
        assert all(b - a >= 0.1 - SLACK_S - 1e-9 for a, b in pairwise(times))


async def test_what_would_leave_too_late_goes_back_untried() -> None:
    async with lane_of() as (lane, host):
        host.takes_s = 1.0
        lane.take(grant(range(10), rate=10))
        await host.clock.advance(20.0)
        assert [number for number, _ in host.sent] == [0, 8]  # 8 was due 0.2 s ago: within the tolerance
        assert host.back == [*range(1, 8), 9]
        assert lane.held == 0


async def test_what_was_slept_over_goes_back_too() -> None:
    """Stopped while a delivery waits for its moment, and going on after its turn."""
    async with lane_of() as (lane, host):
        lane.take(grant(range(2), rate=1))
        await host.clock.advance(0.5)
        host.clock.skip(2.0)
        await host.clock.advance(2.0)
        assert [number for number, _ in host.sent] == [0]
        assert host.back == [1]


async def test_patience_grows_while_nothing_leaves_in_time_and_goes_when_something_does() -> None:
    """A process that is 30 ms late each time, and a lane of one delivery a turn."""
    async with lane_of() as (lane, host):
        rounds = 0
        while not host.sent:
            host.clock.skip(0.03)
            lane.take(
                grant(range(rounds, rounds + 1), rate=7, start=host.clock.monotonic() - 0.03, late_s=0.003)
            )
            await host.clock.advance(1.0)
            rounds += 1
        assert host.back == list(range(rounds - 1))
        assert PATIENCE_S * 2 ** (rounds - 2) >= 0.027 > PATIENCE_S * 2 ** (rounds - 3)
        for number in range(100, 106):  # on time now
            lane.take(grant(range(number, number + 1), rate=7, start=host.clock.monotonic(), late_s=0.003))
            await host.clock.advance(1.0)
        lane.take(grant(range(200, 201), rate=7, start=host.clock.monotonic() - 0.01, late_s=0.003))
        await host.clock.advance(1.0)
        assert host.back[-1] == 200


async def test_a_second_grant_goes_on_where_the_first_ended() -> None:
    async with lane_of() as (lane, host):
        lane.take(grant(range(3), rate=10))
        lane.take(grant(range(3, 6), rate=10, start=1_000.3))
        await host.clock.advance(2.0)
        assert host.leaving_times() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


async def test_grants_that_overlap_are_paced_by_what_left() -> None:
    """Two plans for the same moments (a clock difference that was corrected): the rate holds, the wait is bounded."""
    async with lane_of() as (lane, host):
        lane.take(grant(range(3), rate=10, late_s=5.0))
        lane.take(grant(range(3, 6), rate=10, late_s=5.0))
        await host.clock.advance(2.0)
        times = host.leaving_times()
        assert len(times) == 6
        assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(times))


async def test_a_new_rate_counts_from_the_next_grant() -> None:
    async with lane_of() as (lane, host):
        lane.take(grant(range(2), rate=10))
        await host.clock.advance(1.0)
        lane.take(grant(range(2, 5), rate=2, start=1_001.0))
        await host.clock.advance(3.0)
        assert host.leaving_times() == [0.0, 0.1, 1.0, 1.5, 2.0]


async def test_no_more_workers_than_slots_or_deliveries() -> None:
    async with lane_of() as (lane, host):
        host.takes_s = 1.0
        lane.take(grant(range(2), rate=1e6, burst=100, slots=5))
        lane.take(grant(range(2, 12), rate=1e6, burst=100, slots=5, late_s=60.0))
        await host.clock.advance(10.0)
        assert host.most_at_once == 5
        assert len(host.sessions) == 5
        assert len(host.sent) == 12


async def test_a_connection_is_closed_after_its_share_of_messages() -> None:
    async with lane_of(per_connection=3) as (lane, host):
        lane.take(grant(range(7), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [session.transactions for session in host.sessions] == [3, 3, 1]
        assert [session.ended for session in host.sessions] == ["quit", "quit", ""]


async def test_an_idle_connection_is_used_again_and_closed_when_it_is_old() -> None:
    async with lane_of() as (lane, host):
        lane.take(grant(range(1), rate=1e6))
        await host.clock.advance(1.0)
        assert not lane.quiet
        lane.take(grant(range(1, 2), rate=1e6, start=1_001.0))
        await host.clock.advance(1.0)
        assert [session.transactions for session in host.sessions] == [2]
        lane.close_idle(host.clock.monotonic() - 5.0)
        assert not lane.quiet
        lane.close_idle(host.clock.monotonic())
        assert lane.quiet
        assert host.sessions[0].ended == "quit"


async def test_a_refusal_of_the_lane_hands_back_what_was_not_begun() -> None:
    async with lane_of() as (lane, host):
        host.answer = lambda _: _BUSY
        lane.take(grant(range(4), rate=10))
        await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0]
        assert host.back == [1, 2, 3]
        assert host.refusals == [(None, _BUSY)]
        assert lane.room == 0
        await host.clock.advance(10.0)
        assert lane.room > 0


async def test_who_meets_a_closed_door_carries_the_news_and_the_others_go_back() -> None:
    async with lane_of() as (lane, host):
        host.connect_fails = True
        lane.take(grant(range(4), rate=1e6, burst=10, slots=1))
        await host.clock.advance(1.0)
        assert host.sent == []
        assert host.refusals == [(0, _BUSY)]
        assert host.back == [1, 2, 3]


async def test_the_word_of_dns_is_for_the_domain_that_was_asked_for_however_many_ask() -> None:
    """Two workers meet the same head, and behind it stands another domain of the lane."""
    async with lane_of() as (lane, host):
        host.no_mail_for, host.connect_takes_s = {"gone.example"}, 0.1
        waiting = [
            leased(0, 1_000.0, late_s=5.0, recipient="a@gone.example"),
            leased(1, 1_000.0, late_s=5.0),
            leased(2, 1_000.0, late_s=5.0, recipient="b@gone.example"),
        ]
        lane.take(Granted(1, 1e6, 10, 2, waiting))
        await host.clock.advance(5.0)
        assert (host.without_hope, [number for number, _ in host.sent]) == ([0], [1, 2])
        assert (host.refusals, host.back, lane.held) == ([], [], 0)


async def test_a_delivery_that_went_back_while_dns_was_asked_leaves_its_word_to_nobody_else() -> None:
    async with lane_of() as (lane, host):
        host.no_mail_for, host.connect_takes_s = {"gone.example"}, 0.1
        waiting = [
            leased(0, 1_000.0, late_s=5.0, recipient="a@gone.example", site_id=7),
            leased(1, 1_000.0, late_s=5.0),
        ]
        lane.take(Granted(1, 1e6, 10, 1, waiting))
        await host.clock.advance(0.05)
        host.held.add(7)
        lane.drop_held()
        await host.clock.advance(5.0)
        assert (host.without_hope, [number for number, _ in host.sent], host.back) == ([], [1], [0])


async def test_a_hold_that_comes_while_a_delivery_waits_for_its_moment_stops_it() -> None:
    async with lane_of() as (lane, host):
        lane.take(grant(range(3), rate=1))
        await host.clock.advance(0.5)
        host.held.add(1)
        await host.clock.advance(5.0)
        assert [number for number, _ in host.sent] == [0]
        assert sorted(host.back) == [1, 2]
        assert lane.held == 0


async def test_drop_held_takes_out_only_what_is_held() -> None:
    async with lane_of() as (lane, host):
        lane.take(grant(range(1), rate=0.1))
        lane.take(Granted(1, 0.1, 1, 1, [leased(8, 1_050.0, site_id=8), leased(9, 1_060.0, site_id=9)]))
        host.held.add(8)
        lane.drop_held()
        assert host.back == [8]
        assert set(lane.held_ids()) == {0, 9}


async def test_room_grows_with_what_was_taken_up_to_the_bound() -> None:
    async with lane_of(max_rows=START_ROWS + 5) as (lane, host):
        assert lane.room == START_ROWS
        lane.take(grant(range(3), rate=1e6, burst=10))
        assert lane.room == START_ROWS - 3
        await host.clock.advance(1.0)
        assert lane.room == START_ROWS + 3
        lane.take(grant(range(3, 13), rate=1e6, burst=10, start=1_001.0))
        await host.clock.advance(1.0)
        assert lane.room == START_ROWS + 5


async def test_room_falls_to_what_leaves_in_a_turn() -> None:
    """A slow receiver: two connections, each takes 0.2 s a message, and a turn is half a second."""
    async with lane_of() as (lane, host):
        host.takes_s = 0.2
        given = 0
        for start in (1_000.0, 1_002.0, 1_004.0):
            rows = lane.room
            lane.take(
                grant(range(given, given + rows), rate=1e6, burst=10_000, slots=2, start=start, late_s=0.5)
            )
            given += rows
            await host.clock.advance(2.0)
        assert len(host.back) <= START_ROWS - 6 + 8, (
            "the first turn's, and a few of those that were tried for more"
        )
        assert lane.room <= 10


async def test_an_error_that_is_no_outcome_reaches_the_host_and_the_connection_goes() -> None:
    async with lane_of() as (lane, host):

        def fail(_: Leased) -> Disposition:
            raise RuntimeError("a bug")

        host.answer = fail
        lane.take(grant(range(1), rate=10))
        await host.clock.advance(1.0)
        assert [str(error) for error in host.errors] == ["a bug"]
        assert host.sessions[0].ended == "abort"
        assert lane.held == 0


async def test_abort_ends_what_waits_for_its_moment() -> None:
    async with lane_of() as (lane, host):
        lane.take(grant(range(3), rate=0.01))
        await host.clock.advance(1.0)
        lane.abort()
        async with asyncio.timeout(5):
            await lane.finish()
        assert [number for number, _ in host.sent] == [0]
        assert len(host.sessions) == 1  # nobody takes their place
        assert host.errors == []


@pytest.mark.parametrize("begun", [0, 1])
async def test_give_up_keeps_what_has_been_begun(begun: int) -> None:
    async with lane_of() as (lane, host):
        host.takes_s = 1.0
        lane.take(grant(range(3), rate=1e6, burst=10))
        if begun:
            await host.clock.advance(0.1)
        lane.give_up()
        await host.clock.advance(5.0)
        assert len(host.sent) == begun
        assert sorted([number for number, _ in host.sent] + host.back) == [0, 1, 2]
