"""Which domains a site may send from.

Owns the memory of domains just looked up (only verified ones, for 5 seconds: a domain that was just verified works at once, and
dispatch looks again before it signs). Must not know messages or broadcasts.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from gateway.clock import Clock
from gateway.errors import DomainUnverified
from gateway.store import domains
from gateway.store.tenancy import as_site

_REMEMBERED_S: Final = 5.0
_MAX_REMEMBERED: Final = 10_000


class Senders:
    """Knows which domains a site may send from."""

    # Mutable on purpose: a small cache.
    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock
        self._verified: dict[tuple[int, str], tuple[float, int]] = {}

    async def domain_id(self, site_id: int, domain: str) -> int:
        """Return the id of a verified domain of the site.

        Raises:
            DomainUnverified: the site has no such domain, or it is not verified.
            StoreUnavailable: Postgres does not answer.
        """
        now = self._clock.monotonic()
        known = self._verified.get((site_id, domain))
        if known is not None and known[0] > now:
            return known[1]
        async with as_site(self._pool, site_id) as connection:
            found = await domains.find_verified(connection, site_id, domain)
        if found is None:
            raise DomainUnverified(f"{domain} is no verified domain of this site; nothing is sent from it")
        if len(self._verified) >= _MAX_REMEMBERED:
            self._verified.clear()
        self._verified[site_id, domain] = (now + _REMEMBERED_S, found)
        return found
