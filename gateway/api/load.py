"""How much one key may ask, and one site may have waiting: what keeps one app from being everybody's trouble.

Owns two memories of this process. `Rates`: a token bucket (GCRA) for each key. `Backlogs`: what waits of each site and stream, counted in the
database now and then, and what this process has added since. Both are of one process: behind several, each has its own. Must not know a
route. The two streams have a backlog each: a million of a newsletter must not keep a password from being reset.
"""

from __future__ import annotations

from typing import Final

import asyncpg
import msgspec

from gateway.clock import Clock
from gateway.errors import RateLimited
from gateway.model.stream import Stream
from gateway.store import sites
from gateway.store.tenancy import as_site

KNOWN_S: Final = 10.0
"""How long a count holds."""
DOUBTED_S: Final = 1.0
"""A count so old is made anew before it refuses anything."""
_RETRY_S: Final = 5.0
_KEPT: Final = 10_000


class Rates:
    """How often each key may ask."""

    # Mutable on purpose: one number a key, bounded.
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tats: dict[int, float] = {}

    def take(self, key_id: int, rate_per_s: float, burst: int) -> None:
        """Count a request of a key.

        Raises:
            RateLimited: it comes too early, and is not counted; says when the next one will be taken.
        """
        now = self._clock.monotonic()
        tat = max(self._tats.get(key_id, now), now)
        early_s = tat - now - (burst - 1) / rate_per_s
        if early_s > 0:
            raise RateLimited(early_s, f"more than {rate_per_s:g} requests a second with this key")
        if len(self._tats) >= _KEPT:
            self._tats = {key: at for key, at in self._tats.items() if at > now}
        self._tats[key_id] = tat + 1 / rate_per_s


class _Count(msgspec.Struct):
    waiting: int
    counted_at: float


class Backlogs:
    """What waits of each site and stream."""

    # Mutable on purpose: a small cache.
    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock
        self._counts: dict[tuple[int, Stream], _Count] = {}

    async def add(self, site_id: int, stream: Stream, more: int, limit: int, *, timeout_s: float) -> None:
        """Count deliveries that are about to be accepted.

        Raises:
            RateLimited: with them more than `limit` of this site and stream would wait.
            StoreUnavailable: Postgres does not answer.
        """
        known = self._counts.get((site_id, stream))
        age_s = self._clock.monotonic() - known.counted_at if known is not None else KNOWN_S
        if known is None or age_s >= KNOWN_S or (known.waiting + more > limit and age_s >= DOUBTED_S):
            async with as_site(self._pool, site_id, timeout_s=timeout_s) as connection:
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
