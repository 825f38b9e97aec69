"""The only door to time: wall clock, monotonic clock and sleep.

Owns nothing but the three calls. Durations, deadlines and pacing use `monotonic()`, which no wall-clock step can move;
`now()` is for `*_at` fields and headers. Pure modules take a `now` argument instead. Tests use
`tests/support/clock.py`, where time passes only when the test says so.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the shell needs of time."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary point; never goes back."""
        ...

    def now(self) -> datetime:
        """Return the wall clock as an aware UTC datetime; may jump."""
        ...

    async def sleep(self, duration_s: float, /) -> None:
        """Return after `duration_s` seconds of the monotonic clock; zero or less yields once."""
        ...


class SystemClock:
    """The machine's clocks and the running loop's timers."""

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, duration_s: float, /) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(max(0.0, duration_s))
