"""The runner of migrations against a real server, with folders of migrations made for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from gateway.store.migrate import MigrationError, migrate, status
from gateway.store.pool import connect
from tests.support.postgres import Cluster


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
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (id int);\nINSERT INTO first VALUES (1);\n")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE second (id int);\n")
    return tmp_path


async def test_applies_in_order_and_once(connection: asyncpg.Connection, folder: Path) -> None:
    assert (await status(connection, folder)).pending == ("0001_first", "0002_second")
    assert await migrate(connection, folder) == ["0001_first", "0002_second"]
    assert await migrate(connection, folder) == []
    assert await connection.fetchval("SELECT count(*) FROM first") == 1
    now = await status(connection, folder)
    assert [row.name for row in now.applied] == ["0001_first", "0002_second"]
    assert (now.pending, now.problem) == ((), "")


async def test_applies_only_what_came_later(connection: asyncpg.Connection, folder: Path) -> None:
    await migrate(connection, folder)
    (folder / "0003_third.sql").write_text("CREATE TABLE third (id int);")
    assert await migrate(connection, folder) == ["0003_third"]


async def test_a_failing_migration_leaves_no_trace_and_names_its_line(
    connection: asyncpg.Connection, folder: Path
) -> None:
    (folder / "0003_third.sql").write_text("CREATE TABLE third (id int);\nSELEKT 1;\n")
    with pytest.raises(MigrationError, match=r"0003_third\.sql, line 2.*nothing of it was applied"):
        await migrate(connection, folder)
    assert await connection.fetchval("SELECT to_regclass('third')") is None
    assert [row.number for row in (await status(connection, folder)).applied] == [1, 2]
    (folder / "0003_third.sql").write_text("CREATE TABLE third (id int);\n")
    assert await migrate(connection, folder) == ["0003_third"]


async def test_refuses_a_changed_file(connection: asyncpg.Connection, folder: Path) -> None:
    await migrate(connection, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (id bigint);\n")
    with pytest.raises(MigrationError, match="0001_first has changed since it was applied"):
        await migrate(connection, folder)
    assert "0001_first has changed" in (await status(connection, folder)).problem


async def test_refuses_a_missing_file(connection: asyncpg.Connection, folder: Path) -> None:
    await migrate(connection, folder)
    (folder / "0001_first.sql").rename(folder / "0001_other.sql")
    with pytest.raises(MigrationError, match=r"0001_first was applied .* but its file is missing"):
        await migrate(connection, folder)


async def test_refuses_a_database_newer_than_the_code(connection: asyncpg.Connection, folder: Path) -> None:
    await migrate(connection, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(
        MigrationError, match="newer than this code: it has 0002_second, the code ends at 0001"
    ):
        await migrate(connection, folder)


async def test_many_migrators_at_once_apply_each_file_once(empty_db: str, folder: Path) -> None:
    connections = [await connect(empty_db) for _ in range(8)]
    done = await asyncio.gather(*(migrate(connection, folder) for connection in connections))
    assert sorted(name for names in done for name in names) == ["0001_first", "0002_second"]
    for connection in connections:
        await connection.close()


async def test_names_the_session_that_holds_the_lock(
    connection: asyncpg.Connection, empty_db: str, folder: Path
) -> None:
    other = await connect(empty_db, application_name="another migrator")
    (folder / "0003_slow.sql").write_text("SELECT pg_sleep(30);")
    slow = asyncio.create_task(migrate(other, folder))
    while not (await status(connection, folder)).applied:
        await asyncio.sleep(0)
    with pytest.raises(MigrationError, match=r"session \d+ \(another migrator\) has been migrating"):
        await migrate(connection, folder, lock_timeout_s=0.1)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    await other.close()


async def test_line_ends_do_not_count(connection: asyncpg.Connection, folder: Path) -> None:
    await migrate(connection, folder)
    text = (folder / "0001_first.sql").read_text()
    (folder / "0001_first.sql").write_bytes(text.replace("\n", "\r\n").encode())
    assert await migrate(connection, folder) == []


async def test_the_gateways_own_migrations_are_applied_to_the_template(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        now = await status(connection)
    assert (now.pending, now.problem) == ((), "")


async def test_a_login_that_is_no_superuser_migrates_a_database_that_was_prepared_for_it(
    connection: asyncpg.Connection, empty_db: str
) -> None:
    """As docs/operations.md has an administrator prepare it; without its last grant they are told where it stands."""
    login, database = f"login_{uuid.uuid4().hex}", await connection.fetchval("SELECT current_database()")
    recipe = [
        f"CREATE ROLE {login} LOGIN",
        f"GRANT gateway_api, gateway_dispatch, gateway_maintain TO {login}",
        f'ALTER DATABASE "{database}" OWNER TO {login}',
    ]
    for statement in recipe:
        await connection.execute(statement)
    as_login = await connect(empty_db)
    try:
        await as_login.execute(f"SET SESSION AUTHORIZATION {login}")
        with pytest.raises(MigrationError, match=r"permission denied for schema public; docs/operations\.md"):
            await migrate(as_login)
        await connection.execute("GRANT CREATE ON SCHEMA public TO gateway_maintain")
        assert (await migrate(as_login))[0] == "0010_access"
        assert (await status(as_login)).pending == ()
    finally:
        await as_login.close()
        await connection.execute(f'ALTER DATABASE "{database}" OWNER TO CURRENT_USER')
        await connection.execute(f"REASSIGN OWNED BY {login} TO CURRENT_USER")
        await connection.execute(f"DROP OWNED BY {login}")
        await connection.execute(f"DROP ROLE {login}")
