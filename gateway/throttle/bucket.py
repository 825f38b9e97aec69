"""The token bucket of a lane: the same GCRA that the claim runs in SQL, and the pacing of what it granted.

Owns the arithmetic. Must not know Postgres, lanes' names or tasks. This is not a second limiter: the bucket that counts
is the `tat` in the lane's row, and these functions are its oracle in tests and the dispatcher's reading of a grant.

GCRA (ATM Forum TM 4.0, "virtual scheduling"): `tat`, the theoretical arrival time, is the moment at which the bucket
would be full again less the burst. A claim may borrow one quantum ahead, so that lanes with a small burst reach their
rate with few claims; the grant carries its start `t0`, and delivery i leaves no earlier than `leave_at(i, t0, …)`:

    any window of w seconds sees at most rate_per_s * w + burst deliveries leave.

That holds where a delivery is planned. Between there and the receiver lie timers, a processor that is busy, a network: some
milliseconds, not the same for any two deliveries. So a lane is paced at PACE of its rate on the average; within a grant's turn
deliveries are planned at PLAN_PACE, which leaves a gap at its end for those that are late; one that is late moves those behind it,
never closer than PEAK_PACE. What comes after its turn (`turn_ends`) goes back, since the next grant begins there, in whichever
process.

All times are seconds on one clock (the database's for the lane, the monotonic one once t0 has been moved there).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

QUANTUM_S: Final = 0.16
"""How far ahead of its tokens a claim may borrow."""

PACE: Final = 0.968
"""Share of its rate at which a lane is paced on the average."""

PLAN_PACE: Final = 0.980
"""The same within a grant's turn: of 100 ms the last 1.2 ms are kept for what is late."""

PEAK_PACE: Final = 0.985
"""The closest that two deliveries follow each other: what is late catches up by and by."""


class Grant(msgspec.Struct, frozen=True):
    """`n` deliveries may be taken, paced from `t0`; `tat` is the lane's next state if all of them are."""

    n: int
    t0: float
    tat: float


def grant(
    rate_per_s: float, burst: int, tat: float, now: float, want: int, quantum_s: float = QUANTUM_S
) -> Grant:
    """Grant up to `want` deliveries at `now`.

    `n` may be 0, then `token_at(t0, 0, …)` says when to come again. Taking fewer than `n` is allowed: the lane's next
    state is then `tat_after(t0, taken, …)`.
    """
    t0 = max(tat, now)
    # No honest tat lies further ahead than this: beyond it, the clock went back (F25) or the rate was cut by hand.
    t0 = min(t0, now + (burst + 1) / rate_per_s + quantum_s)
    tokens = math.floor(rate_per_s * (now - t0) + burst + max(1.0, rate_per_s * quantum_s))
    n = max(0, min(want, tokens))
    return Grant(n, t0, tat_after(t0, n, rate_per_s))


def tat_after(t0: float, taken: int, rate_per_s: float) -> float:
    """Return the lane's `tat` once `taken` deliveries of a grant that began at `t0` have been taken."""
    return t0 + taken / rate_per_s


def leave_at(i: int, t0: float, rate_per_s: float, burst: int) -> float:
    """Return the moment before which delivery `i` (from 0) of a grant must not leave."""
    return t0 + (i - burst + 1) / rate_per_s


def planned_at(i: int, t0: float, rate_per_s: float, burst: int, granted_at: float) -> float:
    """Return when delivery `i` is meant to leave: `leave_at`, but not before the grant was made.

    Inside the burst `leave_at` lies in the past; measured from there a delivery would be late before it was granted.
    """
    return max(leave_at(i, t0, rate_per_s, burst), granted_at)


def token_at(t0: float, taken: int, rate_per_s: float, burst: int) -> float:
    """Return when the next claim on the lane makes sense, after `taken` deliveries of a grant that began at `t0`."""
    return t0 + (taken - burst) / rate_per_s


def turn_ends(t0: float, taken: int, rate_per_s: float, burst: int, granted_at: float) -> float:
    """Return until when deliveries of a grant may leave: the last one's plan, and half the time that a full bucket lasts.

    Up to (burst - 1)/rate_per_s after its plan a delivery takes nothing that the next grant was given; half of it, because the
    next may be used late as well.
    """
    last = planned_at(max(taken, 1) - 1, t0, rate_per_s, burst, granted_at)
    return last + 0.5 * (burst - 1) / rate_per_s


def rescale(tat: float, now: float, old_rate_per_s: float, new_rate_per_s: float) -> float:
    """Return the `tat` that owes as many deliveries at the new rate as the old one did; an idle lane stays as it is."""
    if tat <= now:
        return tat
    return now + (tat - now) * old_rate_per_s / new_rate_per_s


class Pacer:
    """Decides when the next delivery of one lane may leave one dispatcher.

    Planned moments alone would let a dispatcher that stalled send all that came due in one heap. The pacer runs the
    same GCRA over what actually left: beyond the burst, two deliveries are never closer than 1/rate.

    One caller at a time: ask `earliest`, wait, send, tell `sent`.
    """

    # Mutable on purpose: the hottest state of a lane, touched once per delivery; a new Struct each time would cost more
    # than the arithmetic.
    __slots__ = ("_burst", "_rate_per_s", "_tat", "_tau_s")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._tat = -math.inf
        self._rate_per_s, self._burst = rate_per_s, burst
        self._tau_s = (burst - 1) / rate_per_s

    def set_limits(self, rate_per_s: float, burst: int, now: float) -> None:
        """Take new limits; what already left keeps its weight."""
        self._tat = rescale(self._tat, now, self._rate_per_s, rate_per_s)
        self._rate_per_s, self._burst = rate_per_s, burst
        self._tau_s = (burst - 1) / rate_per_s

    def earliest(self, planned: float) -> float:
        """Return when a delivery may leave; a moment that has passed means at once.

        `planned` comes from `planned_at`; deliveries are asked for in the order of their plans.
        """
        return max(planned, self._tat - self._tau_s)

    def sent(self, at: float) -> None:
        """Record that a delivery left at `at`, which may be later than `earliest` said."""
        self._tat = max(self._tat, at) + 1 / self._rate_per_s
