"""How much of one site may wait: what keeps one app from being everybody's trouble, at either door.

Owns the memory of what waits of each site and stream: counted in the database now and then, and what this process has added since. It is of
one process: behind several, each has its own. Must not know the doors. The two streams have a backlog each: a million of a newsletter must
not keep a password from being reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from gateway.clock import Clock
from gateway.errors import RateLimited
from gateway.model.stream import Stream
from gateway.store import sites
from gateway.store.intake import Submission
from gateway.store.tenancy import as_site

KNOWN_S: Final = 10.0
"""How long a count holds."""
DOUBTED_S: Final = 1.0
"""A count so old is made anew before it refuses anything."""
REST: Final = 20.0
"""It holds at least so many times as long as it took: a million waiting take 0.4 s (two cores, 2026-11-26)."""
_RETRY_S: Final = 5.0
_KEPT: Final = 10_000


class _Count(msgspec.Struct):
    waiting: int
    counted_at: float
    took_s: float


class Backlogs:
    """What waits of each site and stream."""

    # Mutable on purpose: a small cache.
    def __init__(self, pool: asyncpg.Pool, clock: Clock, *, acquire_timeout_s: float = 5.0) -> None:
        self._pool, self._clock, self._timeout_s = pool, clock, acquire_timeout_s
        self._counts: dict[tuple[int, Stream], _Count] = {}
        self._counting: dict[tuple[int, Stream], asyncio.Lock] = {}

    async def add(self, site_id: int, submissions: Sequence[Submission], limit: int) -> None:
        """Count what is about to be accepted.

        Raises:
            RateLimited: with it more than `limit` deliveries of this site and one stream would wait.
            StoreUnavailable: Postgres does not answer.
        """
        for stream in Stream:
            more = sum(len(one.deliveries.recipients) for one in submissions if one.stream is stream)
            if more:
                await self._add(site_id, stream, more, limit)

    async def _add(self, site_id: int, stream: Stream, more: int, limit: int) -> None:
        known = self._counts.get((site_id, stream))
        if known is None or self._is_old(known, more, limit):
            known = await self._count(site_id, stream, more, limit)
        if known.waiting + more > limit:
            raise RateLimited(
                _RETRY_S,
                f"{known.waiting:,} {stream} deliveries of this site wait; with {more:,} more they would be above {limit:,}",
            )
        known.waiting += more

    async def _count(self, site_id: int, stream: Stream, more: int, limit: int) -> _Count:
        """Count once, however many ask at the same time."""
        key = (site_id, stream)
        counting = self._counting.setdefault(key, asyncio.Lock())
        try:
            async with counting:
                known = self._counts.get(key)
                if known is not None and not self._is_old(known, more, limit):
                    return known
                began = self._clock.monotonic()
                async with as_site(self._pool, site_id, timeout_s=self._timeout_s) as connection:
                    waiting = await sites.count_backlog(connection, site_id, stream.priority, limit + 1)
                if len(self._counts) >= _KEPT:
                    self._counts.clear()
                now = self._clock.monotonic()
                known = self._counts[key] = _Count(waiting, now, now - began)
                return known
        finally:
            if not counting.locked():
                self._counting.pop(key, None)

    def _is_old(self, known: _Count, more: int, limit: int) -> bool:
        age_s = self._clock.monotonic() - known.counted_at
        rest_s = REST * known.took_s
        return age_s >= max(KNOWN_S, rest_s) or (
            known.waiting + more > limit and age_s >= max(DOUBTED_S, rest_s)
        )
