"""Code of two versions on one schema: who may work with it, and which migration waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from gateway.store.migrate import Joined, MigrationError, migrate, status, take_part
from gateway.store.nodes import nodes
from gateway.store.pool import connect
from tests.support.postgres import Cluster

FIRST = "CREATE TABLE first (id int, gone int);"
EXPAND = "-- phase: expand\nALTER TABLE first ADD COLUMN come int;"
CONTRACT = "-- phase: contract from 0002\nALTER TABLE first DROP COLUMN gone;"
CHANGE = "ALTER TABLE first ALTER COLUMN id TYPE bigint;"


@pytest.fixture
async def empty_db(cluster: Cluster) -> AsyncIterator[str]:
    dsn = await cluster.create_database(empty=True)
    yield dsn
    await cluster.drop_database(dsn)


@pytest.fixture
async def connection(empty_db: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await connect(empty_db)
    yield opened
    await opened.close()


@pytest.fixture
async def other(empty_db: str) -> AsyncIterator[asyncpg.Connection]:
    """Another node's connection."""
    opened = await connect(empty_db, application_name="gateway node elsewhere")
    yield opened
    opened.terminate()


def code(folder: Path, name: str, *migrations: str) -> Path:
    """A version of the gateway: the folder with its migrations."""
    version = folder / name
    version.mkdir()
    for number, sql in enumerate(migrations, start=1):
        (version / f"{number:04}_step.sql").write_text(sql + "\n")
    return version


async def test_older_code_works_beside_a_schema_that_was_expanded(
    connection: asyncpg.Connection, tmp_path: Path
) -> None:
    old, new = code(tmp_path, "old", FIRST), code(tmp_path, "new", FIRST, EXPAND)
    await migrate(connection, new)
    assert (await status(connection, old)).complaint() == ""
    assert await take_part(connection, old, apply=True) == Joined((), ())
    assert [node.code for node in await nodes(connection)] == [1]


async def test_code_that_a_contract_left_behind_is_told_which_code_works(
    connection: asyncpg.Connection, tmp_path: Path
) -> None:
    old, middle = code(tmp_path, "old", FIRST), code(tmp_path, "middle", FIRST, EXPAND)
    await migrate(connection, code(tmp_path, "new", FIRST, EXPAND, CONTRACT))
    with pytest.raises(
        MigrationError, match="has 0002_step, the code ends at 0001, and only code from 0002 on works with it"
    ):
        await take_part(connection, old, apply=False)
    assert await nodes(connection) == []
    assert await take_part(connection, middle, apply=False) == Joined((), ())


async def test_a_contract_waits_until_older_nodes_have_ended(
    connection: asyncpg.Connection, other: asyncpg.Connection, tmp_path: Path
) -> None:
    old, new = code(tmp_path, "old", FIRST), code(tmp_path, "new", FIRST, EXPAND, CONTRACT)
    await take_part(other, old, apply=True)
    assert await take_part(connection, new, apply=True) == Joined(("0002_step",), ("0003_step",))
    oldest, newest = await nodes(connection)
    assert (oldest.code, oldest.name, newest.code) == (1, "gateway node elsewhere", 3)
    await other.close()
    while len(await nodes(connection)) > 1:  # the server ends a session a moment after its client
        pass
    assert await migrate(connection, new) == ["0003_step"]


async def test_a_change_is_refused_by_name_while_an_older_node_works(
    connection: asyncpg.Connection, other: asyncpg.Connection, tmp_path: Path
) -> None:
    await take_part(other, code(tmp_path, "old", FIRST), apply=True)
    new = code(tmp_path, "new", FIRST, EXPAND, CHANGE)
    with pytest.raises(
        MigrationError,
        match=r"0003_step does not go with gateway node elsewhere \(session \d+, code 0001\).*end every node with code "
        r"older than 0003 first; nothing was applied",
    ):
        await migrate(connection, new)
    assert (await status(connection, new)).pending == ("0002_step", "0003_step")


async def test_code_starts_before_its_contract_was_applied_and_not_before_its_expansion(
    connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await migrate(connection, code(tmp_path, "old", FIRST))
    new = code(tmp_path, "new", FIRST, EXPAND, CONTRACT)
    with pytest.raises(MigrationError, match=r"there lacks 1 of the migrations \(0002_step is the first\)"):
        await take_part(connection, new, apply=False, where="there")
    await migrate(connection, code(tmp_path, "middle", FIRST, EXPAND))
    assert await take_part(connection, new, apply=False) == Joined((), ("0003_step",))


async def test_a_record_of_an_older_version_is_read_and_extended(
    connection: asyncpg.Connection, tmp_path: Path
) -> None:
    old, new = code(tmp_path, "old", FIRST), code(tmp_path, "new", FIRST, EXPAND)
    await migrate(connection, old)
    await connection.execute("ALTER TABLE gateway_migration DROP COLUMN code_from")
    assert [row.code_from for row in (await status(connection, old)).applied] == [1]
    assert await migrate(connection, new) == ["0002_step"]
    assert [row.code_from for row in (await status(connection, new)).applied] == [1, 1]


async def test_a_table_that_somebody_uses_is_tried_again_while_others_go_on(
    connection: asyncpg.Connection, other: asyncpg.Connection, tmp_path: Path
) -> None:
    await migrate(connection, code(tmp_path, "old", FIRST))
    new = code(tmp_path, "new", FIRST, EXPAND)
    backup = other.transaction()
    await backup.start()
    await other.fetch("SELECT * FROM first")
    with pytest.raises(
        MigrationError, match=r"0002_step\.sql: somebody keeps a table .* nothing of it was applied"
    ):
        await migrate(connection, new, lock_timeout_s=0.0)
    migrating = asyncio.create_task(migrate(connection, new))
    async with asyncio.timeout(10):
        while not await other.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'first'::regclass AND NOT granted)"
        ):
            await asyncio.sleep(0.01)
    await backup.rollback()
    assert await migrating == ["0002_step"]
