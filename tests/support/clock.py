"""A clock that stands still until a test moves it.

Sleepers wake in the order of their deadlines, ties in the order in which they went to sleep, each at exactly its own
moment: code that reads the clock after a sleep sees its deadline, not the end of the `advance`.
"""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

# Turns of the loop given to woken tasks before time goes on. A task that needs more to reach its next sleep is doing
# real I/O, and a FakeClock is the wrong tool for it.
SETTLE_TURNS = 20


class FakeClock:
    """Implements `gateway.clock.Clock`; the monotonic and the wall clock can be moved apart."""

    def __init__(
        self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), monotonic_s: float = 1_000.0
    ) -> None:
        self._monotonic_s = monotonic_s
        self._wall = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def monotonic(self) -> float:
        """Return the fake monotonic time in seconds."""
        return self._monotonic_s

    def now(self) -> datetime:
        """Return the fake wall clock (aware UTC)."""
        return self._wall

    @property
    def sleeping(self) -> int:
        """How many tasks wait for time to pass."""
        return sum(1 for _, _, future in self._sleepers if not future.done())

    async def sleep(self, duration_s: float, /) -> None:
        """Wait until `advance` has passed the deadline; zero or less yields once."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic_s + duration_s, next(self._order), future))
        await future

    async def advance(self, duration_s: float) -> None:
        """Let `duration_s` seconds pass, waking each sleeper at its moment and letting it run up to its next wait."""
        await self._settle()
        end_s = self._monotonic_s + duration_s
        while self._sleepers and self._sleepers[0][0] <= end_s:
            due_s, _, future = heapq.heappop(self._sleepers)
            if future.done():  # its task was cancelled meanwhile
                continue
            self._move(max(due_s, self._monotonic_s))
            future.set_result(None)
            await self._settle()
        self._move(end_s)
        await self._settle()

    def skip(self, duration_s: float) -> None:
        """Let time pass without waking anybody, as for a process that is stopped; the next `advance` wakes who is overdue."""
        self._move(self._monotonic_s + duration_s)

    def step_wall(self, duration_s: float) -> None:
        """Jump the wall clock alone (NTP step, an operator's mistake); negative goes back."""
        self._wall += timedelta(seconds=duration_s)

    def _move(self, to_s: float) -> None:
        self._wall += timedelta(seconds=to_s - self._monotonic_s)
        self._monotonic_s = to_s

    @staticmethod
    async def _settle() -> None:
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
