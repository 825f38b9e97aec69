"""Who lives: our own lease, and what we make of our peers' counters."""

from __future__ import annotations

import pytest

from gateway.dispatch.lease import JOURNAL_GRACE_S, PROVEN_SHARE, Lease, LeaseUnproven, Watch
from gateway.store.fleet import Incarnation
from tests.support.clock import FakeClock

LEASE_S = 15.0


def _peer(number: int, counter: int, *, status: str = "live", host: str = "there") -> Incarnation:
    return Incarnation(number, host, counter, status)


# -- ours --------------------------------------------------------------------------------------------------------------


async def test_nothing_is_proven_before_the_first_heartbeat() -> None:
    lease = Lease(FakeClock(), LEASE_S)
    assert not lease.proven
    with pytest.raises(LeaseUnproven):
        lease.require()


async def test_a_heartbeat_proves_from_when_it_was_sent_not_from_its_answer() -> None:
    clock = FakeClock()
    lease = Lease(clock, LEASE_S)
    sent_at = clock.monotonic()
    await clock.advance(5.0)  # the answer took its time
    lease.renew(sent_at)
    await clock.advance(LEASE_S * PROVEN_SHARE - 5.0 - 0.001)
    assert lease.proven
    await clock.advance(0.002)
    assert not lease.proven
    with pytest.raises(LeaseUnproven):
        lease.require()


async def test_our_proof_ends_before_a_peer_may_call_us_dead() -> None:
    """The peer saw our counter move at the latest when we sent it; the proof ends a quarter of the lease earlier."""
    clock = FakeClock()
    lease, watch = Lease(clock, LEASE_S), Watch(2, "there", LEASE_S)
    lease.renew(clock.monotonic())
    watch.observe([_peer(1, 1)], clock.monotonic())
    while lease.proven:
        await clock.advance(0.1)
        assert watch.observe([_peer(1, 1)], clock.monotonic())[0] == []
    await clock.advance(LEASE_S * (1 - PROVEN_SHARE))
    assert watch.observe([_peer(1, 1)], clock.monotonic())[0] == [_peer(1, 1)]


async def test_an_answer_that_comes_late_does_not_shorten_the_proof() -> None:
    clock = FakeClock()
    lease = Lease(clock, LEASE_S)
    first = clock.monotonic()
    await clock.advance(2.0)
    lease.renew(clock.monotonic())
    lease.renew(first)
    await clock.advance(LEASE_S * PROVEN_SHARE - 0.1)
    assert lease.proven


@pytest.mark.parametrize("step_s", [3_600.0, -3_600.0])
async def test_steps_of_the_wall_clock_do_not_matter(step_s: float) -> None:
    clock = FakeClock()
    lease = Lease(clock, LEASE_S)
    lease.renew(clock.monotonic())
    clock.step_wall(step_s)
    assert lease.proven
    await clock.advance(LEASE_S)
    assert not lease.proven


# -- theirs ------------------------------------------------------------------------------------------------------------


async def test_a_peer_is_silent_only_after_a_whole_lease_of_observation() -> None:
    watch = Watch(1, "here", LEASE_S)
    for second in range(15):
        assert watch.observe([_peer(2, 7)], 100.0 + second) == ([], [])
    silent, _ = watch.observe([_peer(2, 7)], 115.0)
    assert silent == [_peer(2, 7)]


async def test_a_peer_first_seen_counts_from_then_whatever_its_counter() -> None:
    watch = Watch(1, "here", LEASE_S)
    watch.observe([], 0.0)
    assert watch.observe([_peer(2, 0)], 1_000.0) == ([], [])
    assert watch.observe([_peer(2, 0)], 1_000.0 + LEASE_S - 0.1) == ([], [])
    assert watch.observe([_peer(2, 0)], 1_000.0 + LEASE_S)[0] == [_peer(2, 0)]


async def test_a_counter_that_moved_starts_the_lease_anew() -> None:
    watch = Watch(1, "here", LEASE_S)
    watch.observe([_peer(2, 1)], 0.0)
    watch.observe([_peer(2, 2)], 14.0)
    assert watch.observe([_peer(2, 2)], 28.0) == ([], [])
    assert watch.observe([_peer(2, 2)], 29.0)[0] == [_peer(2, 2)]


async def test_after_an_outage_nobody_looks_dead() -> None:
    """The database was away for an hour: no counter moved, ours neither."""
    watch = Watch(1, "here", LEASE_S)
    watch.observe([_peer(2, 1), _peer(3, 1)], 0.0)
    watch.forget()
    assert watch.observe([_peer(2, 1), _peer(3, 1)], 3_600.0) == ([], [])
    assert watch.observe([_peer(2, 2), _peer(3, 1)], 3_600.0 + LEASE_S)[0] == [_peer(3, 1)]


async def test_we_are_not_our_own_peer() -> None:
    watch = Watch(1, "here", LEASE_S)
    for second in range(0, 100, 10):
        assert watch.observe([_peer(1, 1, host="here")], float(second)) == ([], [])
    assert watch.alive == [1]


async def test_only_the_living_have_slots() -> None:
    watch = Watch(1, "here", LEASE_S)
    watch.observe([_peer(1, 1), _peer(2, 1), _peer(3, 1, status="dead")], 0.0)
    assert watch.alive == [1, 2]


async def test_a_dead_peer_of_this_host_is_rescued_at_once_with_its_journal() -> None:
    watch = Watch(1, "here", LEASE_S)
    dead = _peer(2, 5, status="dead", host="here")
    assert watch.observe([dead], 0.0) == ([], [(dead, True)])


async def test_a_dead_peer_of_another_host_is_left_to_that_host_for_a_while() -> None:
    watch = Watch(1, "here", LEASE_S)
    dead = _peer(2, 5, status="dead")
    assert watch.observe([dead], 0.0) == ([], [])
    assert watch.observe([dead], JOURNAL_GRACE_S - 0.1) == ([], [])
    assert watch.observe([dead], JOURNAL_GRACE_S) == ([], [(dead, False)])


async def test_what_was_seen_of_the_gone_is_forgotten() -> None:
    """Numbers are never given twice; a peer that vanished and is listed again is observed from the start."""
    watch = Watch(1, "here", LEASE_S)
    watch.observe([_peer(2, 1)], 0.0)
    watch.observe([], 10.0)
    assert watch.observe([_peer(2, 1)], 20.0) == ([], [])
