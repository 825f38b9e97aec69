"""A delivery that is opened behind another on its connection: it goes on, or it goes back."""

from __future__ import annotations

from gateway.dispatch.lane import OPENED_S
from gateway.model.delivery import Leased
from gateway.model.disposition import BounceClass, Disposition, Outcome, Scope
from tests.unit.dispatch.test_lane import Host, grant, lane_of

_DOUBT = Disposition(Outcome.IN_DOUBT, BounceClass.CONNECTION, 0, None, "lost")
_BUSY = Disposition(Outcome.DEFERRED, BounceClass.RATE, 421, None, "too many", Scope.LANE)
_OK = Disposition(Outcome.DELIVERED, BounceClass.OK, 250, None, "ok")


def _ahead(host: Host) -> list[int]:
    return [number for number, _ in host.opened]


async def test_each_delivery_opens_the_next_on_its_connection() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        lane.take(grant(range(5), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0, 1, 2, 3, 4]
        assert _ahead(host) == [1, 2, 3, 4]
        assert len(host.sessions) == 1
        assert lane.held == 0


async def test_nothing_is_opened_before_its_moment() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        lane.take(grant(range(4), rate=10))
        await host.clock.advance(1.0)
        assert host.leaving_times() == [0.0, 0.1, 0.2, 0.3]
        assert _ahead(host) == []


async def test_nothing_is_opened_on_a_connection_that_has_carried_its_share() -> None:
    async with lane_of(opens_ahead=True, per_connection=2) as (lane, host):
        lane.take(grant(range(4), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert _ahead(host) == [1, 3]
        assert [session.transactions for session in host.sessions] == [2, 2]


async def test_urgent_mail_waits_for_no_other() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        lane.take(grant(range(3), rate=1e6, burst=100, priority=0))
        await host.clock.advance(1.0)
        assert _ahead(host) == []
        assert len(host.sent) == 3


async def test_what_was_opened_on_a_connection_that_broke_is_sent_on_another() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):

        def lost(delivery: Leased) -> Disposition:
            if delivery.id == 0:
                host.sessions[0].usable = False
                return _DOUBT
            return _OK

        host.answer = lost
        lane.take(grant(range(3), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0, 1, 2]
        assert host.forgotten == [1]
        assert [session.transactions for session in host.sessions] == [1, 2]
        assert host.back == []


async def test_what_was_opened_and_is_held_meanwhile_goes_back_and_its_connection_ends() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 1.0
        lane.take(grant(range(2), rate=1e6, burst=100))
        await host.clock.advance(0.5)
        assert _ahead(host) == [1]
        host.held.add(1)
        await host.clock.advance(5.0)
        assert [number for number, _ in host.sent] == [0]
        assert host.back == [1]
        assert host.forgotten == [1]
        assert host.sessions[0].ended == "abort"
        assert lane.held == 0


async def test_what_was_opened_goes_back_with_the_others_when_the_lane_is_refused() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):

        def refuse(_: Leased) -> Disposition:
            host.sessions[0].usable = False
            return _BUSY

        host.answer = refuse
        lane.take(grant(range(4), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0]
        assert sorted(host.back) == [1, 2, 3]


async def test_what_expired_behind_another_is_not_sent_where_it_was_opened() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 5.0
        lane.take(grant(range(1), rate=1e6, burst=100))
        lane.take(grant(range(1, 2), rate=1e6, burst=100, late_s=60.0, last_moment=1_002.0))
        await host.clock.advance(20.0)
        assert host.forgotten == [1]
        assert [number for number, _ in host.sent] == [0, 1], "the dispatcher then says that it has expired"
        assert host.sessions[0].ended == "abort"


async def test_nothing_waits_long_behind_a_slow_reply() -> None:
    """The other connection takes it; the slow one ends with its message, for its open transaction is nobody's."""
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 60.0
        lane.take(grant(range(2), rate=1e6, burst=100, slots=2, late_s=300.0))
        await host.clock.advance(1.0)
        if _ahead(host):
            host.takes_s = 0.0
            lane.let_go_of_late(host.clock.monotonic() - 0.5)
            await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0, 1]
        await host.clock.advance(100.0)
        assert host.forgotten == [1]
        assert host.sessions[0].ended == "quit"
        assert lane.held == 0


async def test_what_was_opened_a_moment_ago_stays() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 3.0
        lane.take(grant(range(2), rate=1e6, burst=100, late_s=60.0))
        await host.clock.advance(1.0)
        lane.let_go_of_late(host.clock.monotonic() - 5.0)
        await host.clock.advance(10.0)
        assert host.forgotten == []
        assert [number for number, _ in host.sent] == [0, 1]


async def test_drained_what_was_opened_goes_back_at_once() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 60.0
        lane.take(grant(range(3), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        host.held.add(1)  # as when the dispatcher drains: nothing may leave any more
        lane.drain()
        assert sorted(host.back) == [1, 2]
        await host.clock.advance(100.0)
        assert [number for number, _ in host.sent] == [0]
        assert lane.held == 0


async def test_a_connection_that_has_carried_its_share_is_closed_though_nothing_waits() -> None:
    async with lane_of(per_connection=2) as (lane, host):
        lane.take(grant(range(2), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [session.ended for session in host.sessions] == ["quit"]
        assert lane.quiet


async def test_what_was_opened_goes_back_when_the_lane_is_refused_though_the_connection_lives() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.answer = lambda _: _BUSY
        lane.take(grant(range(4), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0]
        assert sorted(host.back) == [1, 2, 3]


async def test_what_comes_too_late_after_its_turn_goes_back_and_the_lane_learns_from_it() -> None:
    """A receiver that takes half a second at the dot: behind it, nothing is opened whose turn is a quarter."""
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 0.5
        lane.take(grant(range(2), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert (_ahead(host), host.back, host.forgotten) == ([1], [1], [1])
        assert host.sessions[0].ended == "abort"
        lane.take(grant(range(2, 4), rate=1e6, burst=100, start=1_001.0))
        await host.clock.advance(1.0)
        assert (_ahead(host), host.back) == ([1], [1, 3])
        assert host.sessions[1].ended == ""
        lane.take(grant(range(4, 6), rate=1e6, burst=100, start=1_002.0, late_s=1.0))
        await host.clock.advance(2.0)
        assert _ahead(host) == [1, 5]
        assert [number for number, _ in host.sent] == [0, 2, 4, 5]


async def test_one_slow_dot_is_forgotten_after_some_that_were_not() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 0.5
        lane.take(grant(range(1), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        host.takes_s = 0.0
        for number in range(1, 21):
            pair = range(10 * number, 10 * number + 2)
            lane.take(grant(pair, rate=1e6, burst=100, start=host.clock.monotonic()))
            await host.clock.advance(1.0)
        opened = _ahead(host)
        assert 11 not in opened
        assert opened[-1] == 201


async def test_a_little_late_behind_another_it_goes_on() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 0.34  # its turn is over after 0.25, and a lane may have a patience of 0.1
        lane.take(grant(range(2), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0, 1]
        assert host.back == []


async def test_where_a_dot_takes_longer_than_the_next_may_wait_none_is_opened_behind_it() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = OPENED_S + 1.0
        lane.take(grant(range(1), rate=1e6, burst=100))
        await host.clock.advance(10.0)
        lane.take(grant(range(1, 4), rate=1e6, burst=100, start=1_010.0, late_s=60.0))
        await host.clock.advance(30.0)
        assert [number for number, _ in host.sent] == [0, 1, 2, 3]
        assert _ahead(host) == []
        assert len(host.sessions) == 1


async def test_let_go_of_behind_a_slow_reply_nothing_is_opened_behind_the_next() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 60.0
        lane.take(grant(range(4), rate=1e6, burst=100, late_s=300.0))
        await host.clock.advance(OPENED_S + 1.0)
        lane.let_go_of_late(host.clock.monotonic() - OPENED_S)
        await host.clock.advance(200.0)
        assert [number for number, _ in host.sent] == [0, 2, 3]
        assert _ahead(host) == [1]


async def test_what_is_let_go_of_while_every_connection_is_busy_goes_back() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 60.0
        lane.take(grant(range(2), rate=1e6, burst=100, slots=1, late_s=300.0))
        await host.clock.advance(1.0)
        assert _ahead(host) == [1]
        lane.let_go_of_late(host.clock.monotonic())
        assert (host.back, lane.held_ids()) == ([1], [0])


async def test_what_is_let_go_of_after_its_turn_goes_back_though_a_connection_is_free() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 60.0
        lane.take(grant(range(2), rate=1e6, burst=100, slots=2))
        await host.clock.advance(1.0)
        lane.let_go_of_late(host.clock.monotonic())
        assert (host.back, lane.held_ids()) == ([1], [0])


async def test_no_connection_is_opened_where_nothing_was_let_go_of() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 60.0
        lane.take(grant(range(2), rate=1e6, burst=100, slots=2, late_s=300.0))
        await host.clock.advance(1.0)
        lane.let_go_of_late(host.clock.monotonic() - 5.0)
        assert len(lane._workers) == 1  # pyright: ignore[reportPrivateUsage]


async def test_what_was_opened_has_no_content_while_its_lane_is_refused() -> None:
    """Two connections; the one is refused for the lane while the other waits for its reply."""
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 1.0
        lane.take(grant(range(2), rate=1e6, burst=100, slots=1, late_s=60.0))
        await host.clock.advance(0.5)
        assert _ahead(host) == [1]
        lane.refused_until = host.clock.monotonic() + 10.0
        await host.clock.advance(5.0)
        assert [number for number, _ in host.sent] == [0]
        assert host.back == [1]
        assert host.sessions[0].ended == "abort"


async def test_a_receiver_that_does_not_bear_it_is_never_opened_ahead_again() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):

        def out_of_step(delivery: Leased) -> Disposition:
            if delivery.id == 0:
                host.sessions[0].usable, host.sessions[0].one_by_one = False, True
            return _OK

        host.answer = out_of_step
        lane.take(grant(range(4), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0, 1, 2, 3]
        assert _ahead(host) == [1]
        lane.take(
            grant(range(4, 8), rate=1e6, burst=100, start=host.clock.monotonic() + 3_600.0, late_s=60.0)
        )
        await host.clock.advance(3_700.0)
        assert _ahead(host) == [1]


async def test_what_has_been_refused_is_told_so_though_the_connection_is_gone() -> None:
    async with lane_of(opens_ahead=True) as (lane, host):

        def gone(delivery: Leased) -> Disposition:
            if delivery.id == 0:
                host.sessions[0].usable, host.sessions[0].refused_ahead = False, True
            return _OK

        host.answer = gone
        lane.take(grant(range(3), rate=1e6, burst=100))
        await host.clock.advance(1.0)
        assert [number for number, _ in host.sent] == [0, 1, 2]
        assert (host.forgotten, host.back) == ([], [])
        assert [session.transactions for session in host.sessions] == [2, 1]


async def test_what_was_taken_back_did_not_leave_in_its_turn() -> None:
    """Of three, one leaves and two are late: the next turn is as long as one of them, and what may be on the wire."""
    async with lane_of(opens_ahead=True) as (lane, host):
        host.takes_s = 1.0
        lane.take(grant(range(3), rate=1e6, burst=100))
        await host.clock.advance(5.0)
        assert ([number for number, _ in host.sent], sorted(host.back)) == ([0], [1, 2])
        assert lane.room == 1 + lane.slots
