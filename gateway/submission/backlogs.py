"""How much of one site may wait: what keeps one app from being everybody's trouble, at either door.

Owns the memory of what waits of each site and stream: counted in the database now and then, and what this process has added since. It is of
one process: behind several, each has its own. Must not know the doors. The two streams have a backlog each: a million of a newsletter must
not keep a password from being reset.
"""

from __future__ import annotations

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
_RETRY_S: Final = 5.0
_KEPT: Final = 10_000


class _Count(msgspec.Struct):
    waiting: int
    counted_at: float


class Backlogs:
    """What waits of each site and stream."""

    # Mutable on purpose: a small cache.
    def __init__(self, pool: asyncpg.Pool, clock: Clock, *, acquire_timeout_s: float = 5.0) -> None:
        self._pool, self._clock, self._timeout_s = pool, clock, acquire_timeout_s
        self._counts: dict[tuple[int, Stream], _Count] = {}

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
        age_s = self._clock.monotonic() - known.counted_at if known is not None else KNOWN_S
        if known is None or age_s >= KNOWN_S or (known.waiting + more > limit and age_s >= DOUBTED_S):
            async with as_site(self._pool, site_id, timeout_s=self._timeout_s) as connection:
                waiting = await sites.count_backlog(connection, site_id, stream.priority, limit + 1)
            if len(self._counts) >= _KEPT:
                self._counts.clear()
            known = self._counts[site_id, stream] = _Count(waiting, self._clock.monotonic())
        if known.waiting + more > limit:
            raise RateLimited(
                _RETRY_S,
                f"{known.waiting:,} {stream} deliveries of this site wait; with {more:,} more they would be above {limit:,}",
            )
        known.waiting += more
