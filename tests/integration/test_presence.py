"""A node's place in the fleet outlives its connection, unless the schema has gone on without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from gateway.app.presence import Presence
from gateway.clock import SystemClock
from gateway.store.migrate import read_migrations
from gateway.store.nodes import Node, nodes

NEWEST = read_migrations()[-1].number


@asynccontextmanager
async def kept(dsn: str, unfit: Callable[[str], None]) -> AsyncIterator[Presence]:
    presence = await Presence.take(dsn, migrate=False)
    keeping = asyncio.create_task(presence.keep(unfit, SystemClock()))
    try:
        yield presence
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        presence.leave()


async def _nodes(pool: asyncpg.Pool) -> list[Node]:
    async with pool.acquire() as connection:
        return await nodes(connection)


async def test_a_node_whose_connection_was_cut_takes_part_again(db: str, pool: asyncpg.Pool) -> None:
    async with kept(db, pytest.fail) as presence:
        [before] = await _nodes(pool)
        assert before.code == NEWEST
        assert before.name.startswith("gateway node ")
        await pool.fetchval("SELECT pg_terminate_backend($1)", before.pid)
        async with asyncio.timeout(10):
            while [node.pid for node in await _nodes(pool)] in ([], [before.pid]) or not presence.connected:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while await _nodes(pool):
            await asyncio.sleep(0.01)


async def test_a_node_that_the_schema_has_left_behind_meanwhile_says_so(db: str, pool: asyncpg.Pool) -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with kept(db, told.set_result) as presence:
        [before] = await _nodes(pool)
        await pool.execute(
            "INSERT INTO gateway_migration (number, name, sha256, code_from) VALUES ($1, 'contracted', '', $1)",
            NEWEST + 1,
        )
        await pool.fetchval("SELECT pg_terminate_backend($1)", before.pid)
        async with asyncio.timeout(10):
            why = await told
        assert f"it has contracted, the code ends at {NEWEST:04}" in why
        assert not presence.connected
