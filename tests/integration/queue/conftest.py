"""One database for a file's tests, emptied before each: a clone for each of some hundred tests would cost a minute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from gateway.store.pool import connect
from tests.support.postgres import Cluster
from tests.support.queue import EMPTY, Bench


@pytest.fixture(scope="module")
def shared_db(cluster: Cluster) -> Iterator[str]:
    """DSN of the file's own database."""
    dsn = asyncio.run(cluster.create_database())
    yield dsn
    asyncio.run(cluster.drop_database(dsn))


@pytest.fixture
async def db(shared_db: str) -> str:
    """DSN of the file's database, empty."""
    connection = await connect(shared_db)
    try:
        await connection.execute(EMPTY)
    finally:
        await connection.close()
    return shared_db


@pytest.fixture
async def bench(db: str) -> AsyncIterator[Bench]:
    """A hand on the queue, under incarnation 1."""
    connection: asyncpg.Connection = await connect(db)
    yield Bench(connection)
    connection.terminate()
