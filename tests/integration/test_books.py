"""The books on a real Postgres: they balance while the queue works, and each way of breaking them is seen and named."""

from __future__ import annotations

import asyncpg
import pytest

from gateway.store.books import Books, read_books, read_outcomes, read_recipients

SITE = 1
BROADCAST = 7


async def accept(connection: asyncpg.Connection, count: int, *, broadcast: int = BROADCAST) -> list[int]:
    """Accept `count` deliveries as the launch of a broadcast does; their ids."""
    number = await connection.fetchval("SELECT nextval('acceptance_id')")
    ids = [number * 1024 + place for place in range(count)]
    await connection.execute(
        """SELECT accept_deliveries($1, $2, 1::smallint, now(), $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::int[],
                  $8::bigint[], $9::timestamptz[], $9::timestamptz[])
           FROM (SELECT array_fill(now(), ARRAY[$10::int])) x(t)""".replace("$9", "x.t").replace("$10", "$9"),
        SITE, broadcast, ids, [number] * count, [f"a{i}@b.test" for i in ids], [None] * count, [1] * count, [1] * count, count,
    )  # fmt: skip
    return ids


async def end(connection: asyncpg.Connection, ids: list[int], state: str = "delivered") -> None:
    await connection.fetchval("SELECT end_deliveries($1, $2, 3, '{queued}', 'test')", ids, state)


@pytest.fixture
async def connection(pool: asyncpg.Pool):
    async with pool.acquire() as lent:
        yield lent


async def deep(connection: asyncpg.Connection) -> Books:
    return await read_books(connection, deep=True)


async def test_an_empty_database_balances(connection: asyncpg.Connection) -> None:
    books = await deep(connection)
    assert books.balanced
    assert books.overall.accepted == 0


async def test_counts_each_state_of_each_broadcast(connection: asyncpg.Connection) -> None:
    ids = await accept(connection, 10)
    await accept(connection, 3, broadcast=0)
    await end(connection, ids[:4])
    await end(connection, ids[4:6], "bounced")
    books = await deep(connection)
    assert books.faults() == []
    single, broadcast = books.accounts
    assert (single.broadcast_id, single.accepted, dict(single.states)) == (0, 3, {"queued": 3})
    assert dict(broadcast.states) == {"queued": 4, "delivered": 4, "bounced": 2}
    assert (books.overall.accepted, books.overall.count("queued")) == (13, 7)


async def test_what_was_suppressed_at_acceptance_is_in_the_books(connection: asyncpg.Connection) -> None:
    await connection.execute("INSERT INTO site (id, name) OVERRIDING SYSTEM VALUE VALUES ($1, 's')", SITE)
    number = await connection.fetchval("SELECT last_value + 1 FROM acceptance_id")
    await connection.execute(
        "INSERT INTO suppression (site_id, email_key, scope, reason) SELECT $1, 'a' || i || '@b.test', 'all', 'test' "
        "FROM generate_series($2::bigint * 1024 - 2048, $2::bigint * 1024 + 2048) i",
        SITE,
        number,
    )
    await accept(connection, 5)
    books = await deep(connection)
    assert books.faults() == []
    assert dict(books.overall.states) == {"suppressed": 5}


async def test_a_lost_row_is_named(connection: asyncpg.Connection) -> None:
    ids = await accept(connection, 10)
    await connection.execute("DELETE FROM queue WHERE id = $1", ids[3])
    assert not (await read_books(connection)).balanced
    books = await deep(connection)
    assert [(fault.kind, fault.n, fault.ids) for fault in books.faulty_ids] == [("lost", 1, (ids[3],))]
    assert "broadcast 7: accepted 10, but its states add up to 9: 1 missing" in books.faults()


async def test_a_double_record_is_named(connection: asyncpg.Connection) -> None:
    ids = await accept(connection, 4)
    await end(connection, ids[:1])
    await connection.execute(
        "INSERT INTO ended SELECT id, site_id, message_id, broadcast_id, lane_id, priority, 'bounced', 0, 0, null, null, null, null, "
        "accepted_at + interval '1 day', ended_at, recipient FROM ended"
    )
    books = await deep(connection)
    assert [(fault.kind, fault.ids) for fault in books.faulty_ids] == [("double", (ids[0],))]
    assert [(fault.state, fault.tallied, fault.ended) for fault in books.faulty_tallies] == [
        ("bounced", 0, 1)
    ]


async def test_a_row_both_open_and_ended_is_named(connection: asyncpg.Connection) -> None:
    ids = await accept(connection, 4)
    await connection.execute(
        "INSERT INTO ended SELECT id, site_id, message_id, broadcast_id, lane_id, priority, 'delivered', 1, 0, 250, null, null, null, "
        "accepted_at, now(), recipient FROM queue WHERE id = $1",
        ids[2],
    )
    books = await deep(connection)
    assert [(fault.kind, fault.ids) for fault in books.faulty_ids] == [("double", (ids[2],))]


async def test_a_tally_that_is_off_is_named_although_the_ids_are_right(
    connection: asyncpg.Connection,
) -> None:
    ids = await accept(connection, 4)
    await end(connection, ids[:2])
    await connection.execute("UPDATE tally SET n = n + 5")
    books = await deep(connection)
    assert books.faulty_ids == ()
    assert books.faults() == [
        "broadcast 7: accepted 4, but its states add up to 9: 5 too many",
        "broadcast 7, site 1: 7 tallied as delivered, but 2 records ended so",
    ]


async def test_a_record_that_nothing_accepted_is_named(connection: asyncpg.Connection) -> None:
    ids = await accept(connection, 4)
    await connection.execute("UPDATE acceptance SET deliveries = 3")
    books = await deep(connection)
    assert [(fault.kind, fault.ids) for fault in books.faulty_ids] == [("unknown", (ids[3],))]


async def test_a_record_of_another_broadcast_is_named(connection: asyncpg.Connection) -> None:
    ids = await accept(connection, 4)
    await connection.execute("UPDATE queue SET broadcast_id = 8 WHERE id = $1", ids[1])
    books = await deep(connection)
    assert [(fault.kind, fault.ids) for fault in books.faulty_ids] == [("misplaced", (ids[1],))]
    assert len(books.faults()) == 3


async def test_two_errors_that_cancel_out_are_seen_by_the_deep_proof_alone(
    connection: asyncpg.Connection,
) -> None:
    ids = await accept(connection, 4)
    await end(connection, ids[:1])
    await connection.execute("DELETE FROM queue WHERE id = $1", ids[3])
    await connection.execute("UPDATE tally SET n = n + 1")
    assert (await read_books(connection)).balanced
    assert not (await deep(connection)).balanced


async def test_names_twenty_ids_and_the_number_of_all(connection: asyncpg.Connection) -> None:
    ids = await accept(connection, 50)
    await connection.execute("DELETE FROM queue")
    [fault] = (await deep(connection)).faulty_ids
    assert (fault.n, list(fault.ids)) == (50, ids[:20])
    assert "… and 30 more" in (await deep(connection)).faults()[-1]


async def test_one_broadcast_alone(connection: asyncpg.Connection) -> None:
    ids = await accept(connection, 4)
    await accept(connection, 2, broadcast=8)
    await connection.execute("DELETE FROM queue WHERE id = $1", ids[0])
    assert (await read_books(connection, broadcast_id=8, deep=True)).balanced
    assert not (await read_books(connection, broadcast_id=BROADCAST, deep=True)).balanced


async def test_reads_one_snapshot_while_deliveries_end(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as reader, pool.acquire() as writer:
        ids = await accept(writer, 100)
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            await reader.fetchval("SELECT count(*) FROM queue")
            await end(writer, ids[:60])
        books = await read_books(reader, deep=True)
        assert books.balanced
        assert books.overall.count("delivered") == 60


async def test_a_role_that_sees_every_site_is_enough(connection: asyncpg.Connection) -> None:
    await accept(connection, 4)
    await connection.execute("SET ROLE gateway_dispatch")
    assert (await read_books(connection, deep=True)).overall.accepted == 4


async def test_outcomes_tell_delivered_undelivered_and_whatever_was_in_doubt(
    connection: asyncpg.Connection,
) -> None:
    ids = await accept(connection, 6)
    await connection.execute("UPDATE queue SET doubts = 1 WHERE id = ANY ($1)", [ids[0], ids[2], ids[4]])
    await connection.execute("UPDATE queue SET state = 'in_doubt' WHERE id = $1", ids[4])
    await end(connection, ids[:2])
    await end(connection, ids[2:4], "bounced")
    found = await read_outcomes(connection, broadcast_id=BROADCAST)
    assert found.delivered == set(ids[:2])
    assert found.undelivered == set(ids[2:4])
    assert found.ever_in_doubt == {ids[0], ids[2], ids[4]}
    assert await read_recipients(connection, [ids[0], ids[5], 1]) == {
        id_: f"a{id_}@b.test" for id_ in (ids[0], ids[5])
    }
