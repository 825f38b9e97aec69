"""Who may see and do what, by role: an app's connection sees its own site in every table that knows one, and cannot rewrite the books.

The tables come from the catalogue: one that is added later is held to the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.store.pool import connect
from tests.support.queue import Bench

MINE, THEIRS = 1, 2
_TABLES = """
SELECT c.relname, has_table_privilege('gateway_api', c.oid, 'SELECT') AS readable, c.relrowsecurity AS guarded
  FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
   AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'site_id' AND NOT a.attisdropped)
"""


@pytest.fixture
async def world(bench: Bench) -> Bench:
    """Two sites, each with a row in every table that knows one."""
    connection = bench.connection
    await bench.sites(2)
    for site in (MINE, THEIRS):
        [lane] = await bench.lanes(prefix=f"s{site}-")
        flow = await bench.flow(lane, site=site, broadcast=site)
        await bench.fill(flow, 3, recipients=[f"{n}@s{site}.example" for n in "abc"])
        rows = await bench.claim()
        await bench.acknowledge(rows[:1])
        await bench.acknowledge(rows[1:2], "deferred", wait_s=60.0)
        await connection.execute(
            f"""
            INSERT INTO api_key (site_id, prefix, hash, scopes) VALUES ({site}, 'p{site}', sha256('x'), '{{}}');
            INSERT INTO domain (site_id, name, selector, private_key_sealed, public_key) VALUES ({site}, 's{site}.example', 's', '', '');
            INSERT INTO domain_key (domain_id, site_id, selector, algorithm, private_key_sealed, public_key)
                SELECT id, {site}, 't', 'rsa-sha256', '', '' FROM domain WHERE site_id = {site};
            INSERT INTO idempotency (site_id, key, body_hash) VALUES ({site}, 'k', '');
            INSERT INTO contact (site_id, email, domain) VALUES ({site}, 'a@b.example', 'b.example');
            INSERT INTO list (site_id, name) VALUES ({site}, 'l');
            INSERT INTO list_member (list_id, contact_id, site_id)
                SELECT l.id, c.id, {site} FROM list l, contact c WHERE l.site_id = {site} AND c.site_id = {site};
            INSERT INTO import (site_id) VALUES ({site});
            INSERT INTO import_error (import_id, site_id, line, reason) SELECT id, {site}, 1, 'r' FROM import WHERE site_id = {site};
            INSERT INTO suppression (site_id, email_key, scope, reason) VALUES ({site}, 'a@b.example', 'all', 'r');
            INSERT INTO template (site_id, name, subject) VALUES ({site}, 't', 's');
            INSERT INTO message (id, site_id, domain_id, stream, sender, subject)
                SELECT {site}, {site}, id, 'marketing', 's', 's' FROM domain WHERE site_id = {site};
            INSERT INTO broadcast (site_id, name, list_id, template_id, domain_id, sender)
                SELECT {site}, 'b', l.id, t.id, d.id, 's' FROM list l, template t, domain d
                 WHERE l.site_id = {site} AND t.site_id = {site} AND d.site_id = {site};
            """
        )
    return bench


@pytest.fixture
async def app(db: str, world: Bench) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the control API has it, in a transaction for site 1."""
    connection = await connect(db, role="gateway_api")
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT set_config('gateway.site_id', $1, true)", str(MINE))
    yield connection
    connection.terminate()


async def test_an_app_sees_one_site_in_every_table_that_knows_one(
    app: asyncpg.Connection, world: Bench
) -> None:
    tables = await world.connection.fetch(_TABLES)
    assert len(tables) >= 17
    for table, readable, guarded in tables:
        if not readable:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with app.transaction():
                    await app.fetch(f"SELECT * FROM {table}")
            continue
        everything = {row[0] for row in await world.connection.fetch(f"SELECT site_id FROM {table}")}
        assert everything == {MINE, THEIRS}, f"the test has no rows of both sites in {table}"
        assert guarded, f"{table} has no row-level security"
        assert {row[0] for row in await app.fetch(f"SELECT site_id FROM {table}")} == {MINE}, table


async def test_an_app_without_a_site_sees_nothing(db: str, world: Bench) -> None:
    connection = await connect(db, role="gateway_api")
    for table, readable, _ in await world.connection.fetch(_TABLES):
        if readable:
            assert await connection.fetch(f"SELECT * FROM {table}") == [], table
    assert await connection.fetch("SELECT * FROM site") == []
    await connection.close()


async def test_an_operator_s_key_sees_all_sites(db: str, world: Bench) -> None:
    connection = await connect(db, role="gateway_api", settings={"gateway.site_id": "*"})
    assert {row[0] for row in await connection.fetch("SELECT site_id FROM queue")} == {MINE, THEIRS}
    await connection.close()


async def test_partitions_are_no_way_around(app: asyncpg.Connection, world: Bench) -> None:
    partitions = await world.connection.fetch(
        "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"
    )
    assert len(partitions) > 2
    for (partition,) in partitions:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with app.transaction():
                await app.fetch(f"SELECT * FROM {partition}")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE queue SET state = 'delivered'", "DELETE FROM queue", "UPDATE ended SET state = 'delivered'", "DELETE FROM ended",
        "UPDATE acceptance SET deliveries = 1", "DELETE FROM acceptance", "UPDATE event SET kind = 'x'", "DELETE FROM event",
        "DELETE FROM tally", "UPDATE lane_state SET rate_per_s = 1e9", "DELETE FROM flow", "UPDATE incarnation SET status = 'dead'",
        "TRUNCATE queue", "UPDATE tally SET n = 0", "INSERT INTO tally VALUES (1, 1, 'delivered', 1, 1)", "DELETE FROM gateway_migration", "SELECT * FROM gateway_migration",
    ],
)  # fmt: skip
async def test_an_app_cannot_rewrite_the_books_nor_the_fleet(app: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement)


@pytest.mark.parametrize(
    "table", ["contact", "suppression", "template", "message", "queue", "acceptance", "ended"]
)
async def test_an_app_cannot_write_into_another_s_site(app: asyncpg.Connection, table: str) -> None:
    columns = {
        "contact": ("email, domain", "'x@b.example', 'b.example'"), "suppression": ("email_key, scope, reason", "'x', 'all', 'r'"),
        "template": ("name, subject", "'x', 's'"), "message": ("id, domain_id, stream, sender, subject", "99, 1, 'marketing', 's', 's'"),
        "queue": ("id, seq, flow_id, lane_id, message_id, priority, due_at, accepted_at, expires_at, recipient",
                  "99, 99, 1, 1, 1, 1, now(), now(), now(), 'r'"),
        "acceptance": ("id, message_id, deliveries", "99, 1, 1"),
        "ended": ("id, message_id, broadcast_id, lane_id, priority, state, attempts, doubts, accepted_at, ended_at, recipient",
                  "99, 1, 0, 1, 1, 'delivered', 0, 0, now(), now(), 'r'"),
    }  # fmt: skip
    names, values = columns[table]
    async with app.transaction():
        await app.execute(f"INSERT INTO {table} (site_id, {names}) VALUES ({MINE}, {values})")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(
            f"INSERT INTO {table} (site_id, {names}) VALUES ({THEIRS}, {values.replace('99', '98')})"
        )


async def test_an_app_accepts_for_its_site_alone(db: str, world: Bench) -> None:
    connection = await connect(db, role="gateway_api", settings={"gateway.site_id": str(MINE)})
    app = Bench(connection)
    [lane] = await app.lanes(prefix="s1-")
    flow = await app.flow(lane)
    place = (
        "SELECT accept_deliveries($1, 0, 1::smallint, now(), ARRAY[$2::bigint], ARRAY[1::bigint], ARRAY['r@s.example'], ARRAY[null], "
        f"ARRAY[{lane}], ARRAY[{flow}::bigint], ARRAY[now()], ARRAY[now() + interval '1 day'])"
    )
    await connection.execute(place, MINE, 900 * 1024)
    await app.wake([flow], [900 * 1024])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(place, THEIRS, 901 * 1024)
    assert 900 * 1024 in await world.take()
    await connection.execute(place.replace("r@s.example", "A@b.example"), MINE, 902 * 1024)
    tally = await world.connection.fetch("SELECT site_id, n FROM tally WHERE state = 'suppressed'")
    assert [tuple(row) for row in tally] == [(MINE, 1)]
    for site, count in ((THEIRS, 1), (MINE, -1)):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT tally_suppressed($1, 0, $2)", site, count)
    await connection.close()


async def test_an_app_acts_on_its_own_messages_alone(db: str, world: Bench) -> None:
    for site in (MINE, THEIRS):
        [lane] = await world.lanes(prefix=f"m{site}-")
        await world.fill(await world.flow(lane, site=site), 1, recipients=[f"m@m{site}.example"])
    rows = await world.connection.fetch(
        "SELECT site_id, message_id, flow_id FROM queue WHERE broadcast_id = 0 ORDER BY 1"
    )
    (_, mine, my_flow), (_, theirs, their_flow) = rows
    connection = await connect(db, role="gateway_api", settings={"gateway.site_id": str(MINE)})
    for function in ("hold_message", "release_message", "cancel_message"):
        assert await connection.fetchval(f"SELECT {function}($1)", theirs) == 0
        assert await connection.fetchval(f"SELECT {function}($1)", mine) == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.fetchval("SELECT lock_deliveries($1, '{queued}')", theirs)
    turns = await connection.fetch("SELECT flow_id FROM flow_turns($1, '{1,1}', 10)", [my_flow, their_flow])
    assert [row[0] for row in turns] == [my_flow]
    await connection.close()


async def test_a_dispatcher_sees_and_serves_all_sites(db: str, world: Bench) -> None:
    connection = await connect(db, role="gateway_dispatch")
    for table, _, guarded in await world.connection.fetch(_TABLES):
        if guarded:
            assert {row[0] for row in await connection.fetch(f"SELECT site_id FROM {table}")} == {
                MINE,
                THEIRS,
            }, table
    bench = Bench(connection, 9)
    await bench.connection.fetchval("SELECT release_unknown(1, '{}')")
    rows = await bench.claim()
    assert {row.site_id for row in rows} == {MINE, THEIRS}
    assert await bench.acknowledge(rows) == 2
    await bench.acknowledge(rows, "deferred")
    for upkeep in ("promote(10, 0)", "expire_ready(10, 0)", "sweep()", "cancel_broadcast_rows(1, 10, 0)", "wake_held(1, 0)",
                   "reap('1 day', '7 days', 10)", "release_slots(9, '{1}')", "rescue(9, false, '{}', '{}', 1, 1, 3)", "rescue(9, false, '{}', '{}', '{}', '{}', 1, 1, 3)"):  # fmt: skip
        await connection.execute(f"SELECT {upkeep}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("ALTER TABLE queue DISABLE ROW LEVEL SECURITY")
    await connection.close()
