"""Who asks: the text of a key → its holder.

Owns the memory of keys just seen. Must not know the doors at which they are shown (HTTP, SMTP). A key is looked up by its prefix and compared as a hash in constant
time (`store/sites`); what was found is remembered for 2 seconds, so that a revoked key, or a suspended site, is refused within
that time by every process, and at once by the one that revoked it. Its last use is written at most once a minute.
"""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from gateway.clock import Clock
from gateway.errors import StoreUnavailable, Unauthorized
from gateway.store import sites
from gateway.store.sites import Holder

TOKEN_LIMIT: Final = 200
"""Characters; a key has 48."""

_REMEMBERED_S: Final = 2.0
_TOUCH_S: Final = 60.0
_MAX_REMEMBERED: Final = 10_000


class Authenticator:
    """Finds the holders of keys."""

    # Mutable on purpose: a small cache, and when each key's use was last written.
    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock
        self._seen: dict[bytes, tuple[float, Holder]] = {}
        self._touched: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def holder(self, token: str) -> Holder:
        """Return whom a key speaks for.

        Raises:
            Unauthorized: no key that is known and not revoked.
            StoreUnavailable: Postgres does not answer.
        """
        if len(token) > TOKEN_LIMIT:
            raise Unauthorized("this is no API key")
        digest = sites.digest_of(token)
        now = self._clock.monotonic()
        known = self._seen.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        holder = await sites.find_holder(self._pool, token)
        if holder is None:
            raise Unauthorized("this API key is unknown or revoked")
        if len(self._seen) >= _MAX_REMEMBERED:
            self._seen.clear()
        self._seen[digest] = (now + _REMEMBERED_S, holder)
        self._touch(holder.key_id, now)
        return holder

    def forget(self) -> None:
        """Look every key up anew: one was revoked."""
        self._seen.clear()

    def _touch(self, key_id: int, now: float) -> None:
        if now - self._touched.get(key_id, float("-inf")) < _TOUCH_S:
            return
        if len(self._touched) >= _MAX_REMEMBERED:
            self._touched.clear()
        self._touched[key_id] = now
        task = asyncio.create_task(self._write(key_id), name="touch key")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, key_id: int) -> None:
        try:
            await sites.touch_keys(self._pool, [key_id])
        except StoreUnavailable:
            self._touched.pop(key_id, None)
