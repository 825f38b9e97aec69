"""A command's way to what apps see, with an operator's eyes: every site, under row-level security, as the control API has it.

Owns the pool and its end. Must not know what is done with it; what only dispatchers may do goes by `app/database.connection`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from gateway.app.database import database
from gateway.config import Config
from gateway.store.pool import Connection, open_pool
from gateway.store.tenancy import OPERATOR, as_site

_ROLE: Final = "gateway_api"


@asynccontextmanager
async def operators_pool(config: Config) -> AsyncGenerator[asyncpg.Pool]:
    """A pool for `store/tenancy.as_site(…, OPERATOR)`, for commands that need more than one transaction.

    Raises:
        GatewayError: as `app/database.database`.
        StoreUnavailable: it does not answer, or has not been migrated.
    """
    async with database(config) as dsn:
        pool = await open_pool(dsn, role=_ROLE, min_size=1, max_size=2, application_name="gateway command")
        try:
            yield pool
        finally:
            pool.terminate()


@asynccontextmanager
async def transaction(config: Config) -> AsyncGenerator[Connection]:
    """One transaction that sees every site; commits when the block ends.

    Raises:
        GatewayError: as `operators_pool`.
    """
    async with operators_pool(config) as pool, as_site(pool, OPERATOR) as connection:
        yield connection
