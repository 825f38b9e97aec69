"""The bucket never lets more leave than it says, and never much less."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.throttle.bucket import (
    PACE,
    PEAK_PACE,
    PLAN_PACE,
    QUANTUM_S,
    Grant,
    Pacer,
    grant,
    leave_at,
    planned_at,
    rescale,
    tat_after,
    token_at,
    turn_ends,
)

EPSILON = 1e-3  # of one delivery: float noise over some thousand steps

rates = st.floats(0.1, 2_000, allow_nan=False)
bursts = st.integers(1, 200)


@pytest.mark.parametrize(
    ("rate", "burst", "tat", "now", "want", "expected"),
    [
        (10.0, 5, 0.0, 100.0, 400, Grant(6, 100.0, 100.6)),  # idle: the burst and a quantum
        (10.0, 5, 0.0, 100.0, 3, Grant(3, 100.0, 100.3)),
        (10.0, 5, 100.6, 100.0, 400, Grant(0, 100.6, 100.6)),  # all borrowed
        (10.0, 5, 100.6, 100.3, 400, Grant(3, 100.6, 100.9)),
        (1.0, 1, 0.0, 100.0, 400, Grant(2, 100.0, 102.0)),  # the quantum is never below one delivery
        (100.0, 1, 0.0, 100.0, 400, Grant(17, 100.0, 100.17)),
        (10.0, 5, 4_000.0, 100.0, 400, Grant(0, 100.76, 100.76)),  # the clock went back by an hour
        (10.0, 5, 0.0, 100.0, 0, Grant(0, 100.0, 100.0)),
    ],
)
def test_grant(rate: float, burst: int, tat: float, now: float, want: int, expected: Grant) -> None:
    got = grant(rate, burst, tat, now, want)
    assert (got.n, got.t0, got.tat) == (expected.n, pytest.approx(expected.t0), pytest.approx(expected.tat))


def test_a_burst_leaves_at_once_and_the_rest_at_the_rate() -> None:
    assert [leave_at(i, 100.0, 10.0, 3) for i in range(5)] == pytest.approx([99.8, 99.9, 100.0, 100.1, 100.2])
    assert token_at(100.0, 5, 10.0, 3) == pytest.approx(100.2)


@given(rates, bursts, st.floats(-100, 100), st.floats(0, 1e6), st.integers(0, 10_000))
def test_a_grant_is_bounded_and_the_next_one_pays_for_it(
    rate: float, burst: int, lead: float, now: float, want: int
) -> None:
    first = grant(rate, burst, now + lead, now, want)
    assert 0 <= first.n <= min(want, burst + max(1, rate * QUANTUM_S) + 1e-6)
    assert first.tat == tat_after(first.t0, first.n, rate)
    assert grant(rate, burst, first.tat, now, want).n + first.n <= burst + max(1, rate * QUANTUM_S) + 1e-6
    later = token_at(first.t0, first.n, rate, burst) + 1e-6
    if later > now and want:
        assert grant(rate, burst, first.tat, later, want).n >= 1


@given(rates, rates, st.floats(0, 1e6), st.floats(-10, 10))
def test_rescaling_keeps_what_is_owed(old: float, new: float, now: float, lead: float) -> None:
    tat = rescale(now + lead, now, old, new)
    assert max(0.0, tat - now) * new == pytest.approx(
        max(0.0, lead) * old, rel=1e-3, abs=1e-3 * max(old, new)
    )


def worst_excess(sends: list[float], rate: float, burst: float) -> float:
    """How far any window passes rate * w + burst: a leaky bucket sees all windows in one pass."""
    level, worst, last = 0.0, -math.inf, -math.inf
    for at in sorted(sends):
        level = max(0.0, level - rate * (at - last)) + 1
        worst, last = max(worst, level - burst), at
    return worst


def send_all(
    pacer: Pacer, planned: list[float], frozen_until: float, turn_end: float = math.inf
) -> list[float]:
    """Send what one dispatcher was granted, the process being frozen until `frozen_until`; what its turn is over for goes back."""
    sends: list[float] = []
    now = frozen_until
    for plan in planned:
        now = max(now, pacer.earliest(plan))
        if now > turn_end + 1e-6:
            break
        pacer.sent(now)
        sends.append(now)
    return sends


steps = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.floats(0, 0.5),
        st.integers(0, 400),
        st.one_of(st.just(0.0), st.floats(0, 1.0)),
        st.floats(0, 1),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(rates, bursts, steps, st.booleans())
def test_no_window_sees_more_than_the_rate_and_the_burst(
    rate: float,
    burst: int,
    steps: list[tuple[int, float, int, float, float]],
    stalls: bool,
) -> None:
    """Four dispatchers, grants in any interleaving, some of them partly used, some of them stalled.

    With a burst of 1 it holds whatever stalls. A larger bucket may be sent late by who stalled, while its tokens last, and the line
    behind it by another who stalled: then a window sees the burst twice.
    """
    tat, now = 0.0, 1_000.0
    frozen = [0.0] * 4
    pacers = [Pacer(rate, burst) for _ in range(4)]
    sends: list[list[float]] = [[], [], [], []]
    for who, dt, want, stall_s, used in steps:
        now += dt
        if frozen[who] > now:
            continue  # a frozen process claims nothing
        got = grant(rate, burst, tat, now, want)
        taken = math.ceil(got.n * used)
        tat = tat_after(got.t0, taken, rate)
        frozen[who] = now + stall_s if stalls else now
        planned = [planned_at(i, got.t0, rate, burst, now) for i in range(taken)]
        turn_end = turn_ends(got.t0, taken, rate, burst, now)
        sends[who] += send_all(pacers[who], planned, frozen[who], turn_end)
    for own in sends:
        assert all(a <= b for a, b in pairwise(own))
        assert worst_excess(own, rate, burst) <= EPSILON
    fleet = [at for own in sends for at in own]
    assert worst_excess(fleet, rate, burst + (burst // 2 if stalls else 0)) <= EPSILON + 2e-6 * rate


@settings(max_examples=300, deadline=None)
@given(rates, steps, st.booleans())
def test_the_three_paces_together_keep_to_the_rate(
    rate: float, steps: list[tuple[int, float, int, float, float]], stalls: bool
) -> None:
    """Planned closer than granted, catching up closer than planned; what misses its turn goes back."""
    paced, planned_rate, peak = rate * PACE, rate * PLAN_PACE, rate * PEAK_PACE
    tat, now = 0.0, 1_000.0
    frozen = [0.0] * 4
    pacers = [Pacer(peak, 1) for _ in range(4)]
    fleet: list[float] = []
    for who, dt, want, stall_s, used in steps:
        now += dt
        if frozen[who] > now:
            continue
        got = grant(paced, 1, tat, now, want)
        taken = math.ceil(got.n * used)
        tat = tat_after(got.t0, taken, paced)
        frozen[who] = now + stall_s if stalls else now
        planned = [planned_at(i, got.t0, planned_rate, 1, now) for i in range(taken)]
        fleet += send_all(pacers[who], planned, frozen[who], turn_ends(got.t0, taken, paced, 1, now))
    assert worst_excess(fleet, rate, 1) <= EPSILON + 2e-6 * rate


@settings(max_examples=60, deadline=None)
@given(rates, st.integers(1, 50), st.lists(st.floats(0.001, 0.05), min_size=4, max_size=4))
def test_a_busy_lane_gets_its_rate(rate: float, burst: int, polls_s: list[float]) -> None:
    length_s = max(10.0, 100 / rate)
    tat, claims = 0.0, 0
    pacers = [Pacer(rate, burst) for _ in polls_s]
    wake, sends = [0.0] * len(polls_s), list[float]()
    while (now := min(wake)) < length_s and claims < 5_000:
        who = wake.index(now)
        got = grant(rate, burst, tat, now, 400)
        tat, claims = got.tat, claims + 1
        planned = [planned_at(i, got.t0, rate, burst, now) for i in range(got.n)]
        sends += send_all(pacers[who], planned, now)
        ready_at = token_at(got.t0, got.n, rate, burst)  # a lane without tokens is not looked at
        wake = [max(at, ready_at) if at <= ready_at else at for at in wake]
        wake[who] = max(ready_at, now) + polls_s[who]
    elapsed_s = min(length_s, now)
    assert len([at for at in sends if at <= elapsed_s]) >= 0.95 * rate * elapsed_s - 2
    assert worst_excess(sends, rate, burst) <= EPSILON


def test_a_late_pacer_does_not_catch_up_in_a_heap() -> None:
    planned = [i / 10 for i in range(10)]
    turn_end = turn_ends(0.0, 10, 10.0, 1, 0.0)
    assert turn_end == pytest.approx(0.9)
    assert send_all(Pacer(10.0, 1), planned, 0.52, turn_end) == pytest.approx([0.52, 0.62, 0.72, 0.82])


def test_a_full_bucket_is_time_in_hand() -> None:
    """Two of five tokens taken: a full bucket lasts for 0.4 s at 10/s."""
    assert turn_ends(100.0, 2, 10.0, 5, 100.0) == pytest.approx(100.2)
    assert turn_ends(100.0, 9, 10.0, 5, 100.0) == pytest.approx(100.8)


def test_new_limits_hold_at_once() -> None:
    pacer = Pacer(10.0, 1)
    pacer.sent(100.0)
    pacer.set_limits(1.0, 1, now=100.0)
    assert pacer.earliest(100.0) == pytest.approx(101.0)
