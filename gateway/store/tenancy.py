"""A transaction that works for one site: row-level security shows it that site's rows and no others.

Owns `gateway.site_id`, the setting that the policies read. Must not know a table. An operator's transaction sees every site.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg

from gateway.errors import StoreUnavailable
from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("tenancy")
_SET_SITE = _SQL.set_site
_WHO_AM_I = _SQL.who_am_i

OPERATOR = None
"""In place of a site's number: all of them."""


@asynccontextmanager
async def as_site(
    pool: asyncpg.Pool, site_id: int | None, *, timeout_s: float = 5.0
) -> AsyncGenerator[Connection]:
    """A connection inside a transaction that sees `site_id` alone, or every site for `OPERATOR`.

    Commits when the block ends, rolls back when it raises.

    Raises:
        StoreUnavailable: Postgres went away or is full, or no connection came free within `timeout_s`.
    """
    with outages_named("working for a site"):
        async with pool.acquire(timeout=timeout_s) as connection:
            try:
                async with connection.transaction():
                    await connection.execute(_SET_SITE, "*" if site_id is None else str(site_id))
                    yield connection
            except asyncpg.InsufficientResourcesError as error:
                raise StoreUnavailable(f"Postgres has no room left ({error})") from error


async def role_of(pool: asyncpg.Pool, *, timeout_s: float = 5.0) -> str:
    """The role that this pool's connections work as: a question that only a living database answers.

    Raises:
        StoreUnavailable: it does not.
    """
    with outages_named("asking for the role"):
        async with pool.acquire(timeout=timeout_s) as connection:
            return await connection.fetchval(_WHO_AM_I, timeout=timeout_s)
