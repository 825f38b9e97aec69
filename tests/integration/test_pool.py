"""Pools against a real server: what a session is like, and what outages are called."""

from __future__ import annotations

import asyncpg
import pytest

from gateway.errors import StoreUnavailable
from gateway.store.pool import Connection, connect, open_pool, outages_named
from tests.support.postgres import database_of, in_database


@pytest.mark.parametrize("role", ["gateway_api", "gateway_dispatch", "gateway_maintain"])
async def test_every_session_works_as_its_role(db: str, role: str) -> None:
    async with await open_pool(db, role=role, min_size=2, max_size=2, application_name="under test") as pool:
        assert await pool.fetchval("SELECT current_user") == role
        assert await pool.fetchval("SELECT current_user") == role, "after a connection came back"
        assert await pool.fetchval("SHOW application_name") == "under test"


async def test_sessions_have_no_jit_speak_utc_and_take_further_settings(db: str) -> None:
    async with await open_pool(db, settings={"statement_timeout": "1234ms"}) as pool:
        assert await pool.fetchval("SHOW jit") == "off"
        assert await pool.fetchval("SHOW TimeZone") == "UTC"
        assert await pool.fetchval("SHOW statement_timeout") == "1234ms"


async def test_a_commit_waits_for_the_disk_whatever_the_server_says(db: str) -> None:
    admin = await connect(db)
    await admin.execute(f"ALTER DATABASE {database_of(db)} SET synchronous_commit = off")
    await admin.execute(
        "ALTER ROLE CURRENT_USER IN DATABASE " + database_of(db) + " SET synchronous_commit = off"
    )
    await admin.close()
    loose = db + ("&" if "?" in db else "?") + "synchronous_commit=off&options=-csynchronous_commit%3Doff"
    for dsn in (db, loose):
        async with await open_pool(dsn, role="gateway_api") as pool:
            assert await pool.fetchval("SHOW synchronous_commit") == "on"
        connection = await connect(dsn)
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        await connection.close()


async def test_who_can_do_without_says_so(db: str) -> None:
    async with await open_pool(db, settings={"synchronous_commit": "off"}) as pool:
        assert await pool.fetchval("SHOW synchronous_commit") == "off"


async def test_jsonb_is_text_both_ways(pool: asyncpg.Pool) -> None:
    assert await pool.fetchval("SELECT $1::jsonb", '{"a":1}') == '{"a": 1}'


async def test_an_open_transaction_does_not_survive_the_return_to_the_pool(db: str) -> None:
    async with await open_pool(db, max_size=1) as pool:
        connection = await pool.acquire()
        await connection.execute("BEGIN; CREATE TABLE unfinished ()")
        await pool.release(connection)
        assert await pool.fetchval("SELECT to_regclass('unfinished')") is None


async def test_an_unknown_role_or_database_is_named(db: str) -> None:
    with pytest.raises(
        StoreUnavailable, match=r'role "nobody_here" does not exist; .* made by the migrations'
    ):
        await open_pool(db, role="nobody_here")
    with pytest.raises(StoreUnavailable, match='database "no_such_mail" does not exist'):
        await connect(in_database(db, "no_such_mail"))


async def test_a_password_is_never_in_the_message() -> None:
    with pytest.raises(StoreUnavailable, match=r"no Postgres answers at app@127.0.0.1:1/mail") as caught:
        await connect("postgresql://app:hunter2@127.0.0.1:1/mail")
    assert "hunter2" not in str(caught.value)


async def test_a_session_that_is_ended_is_an_outage(pool: asyncpg.Pool) -> None:
    async def query_twice(connection: Connection) -> None:
        with outages_named("claiming"):
            await connection.fetchval("SELECT 1")
            await connection.fetchval("SELECT 1")

    async with pool.acquire() as victim, pool.acquire() as other:
        await other.execute(
            "SELECT pg_terminate_backend($1)", await victim.fetchval("SELECT pg_backend_pid()")
        )
        with pytest.raises(StoreUnavailable, match="claiming: "):
            await query_twice(victim)  # while it ends
        with pytest.raises(StoreUnavailable, match="claiming: "):
            await query_twice(victim)  # when it has ended


async def test_a_query_that_takes_too_long_is_an_outage(pool: asyncpg.Pool) -> None:
    with pytest.raises(StoreUnavailable, match=r"claiming: .*TimeoutError"), outages_named("claiming"):
        await pool.fetchval("SELECT pg_sleep(10)", timeout=0.05)


async def test_an_error_of_a_query_is_no_outage(pool: asyncpg.Pool) -> None:
    with pytest.raises(asyncpg.UndefinedTableError), outages_named("claiming"):
        await pool.fetchval("SELECT 1 FROM no_such_table")
