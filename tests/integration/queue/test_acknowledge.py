"""What an outcome does to its delivery, whoever tells it, however late and however often."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import pytest

from gateway.store.books import read_books
from tests.support.queue import Bench, Row


async def _one(bench: Bench, *, priority: int = 1, count: int = 1, site: int = 1) -> list[Row]:
    [lane] = await bench.lanes()
    await bench.fill(await bench.flow(lane, priority=priority, site=site, broadcast=5), count)
    return await bench.claim()


async def _balanced(bench: Bench) -> None:
    books = await read_books(bench.connection, deep=True)
    assert not books.faults(), books.faults()


@pytest.mark.parametrize(
    "state", ["delivered", "bounced", "expired", "suppressed", "cancelled", "quarantined"]
)
async def test_an_end_moves_the_row_into_the_books(bench: Bench, state: str) -> None:
    [row] = await _one(bench)
    assert await bench.acknowledge([row], state, code=250, reply="said so", counts=state == "delivered") == 1
    assert await bench.row(row.id) is None
    ended = await bench.connection.fetchrow("SELECT * FROM ended")
    assert (ended["id"], ended["state"], ended["code"], ended["reply"]) == (row.id, state, 250, "said so")
    assert ended["attempts"] == (state == "delivered")
    assert ended["accepted_at"] == row.accepted_at
    assert (
        await bench.connection.fetchval(
            "SELECT sum(n) FROM tally WHERE broadcast_id = 5 AND state::text = $1", state
        )
        == 1
    )
    await _balanced(bench)


@pytest.mark.parametrize("state", ["deferred", "in_doubt"])
@pytest.mark.parametrize("counts", [True, False])
async def test_what_waits_keeps_its_row_and_leaves_an_event(bench: Bench, state: str, counts: bool) -> None:
    [row] = await _one(bench)
    assert await bench.acknowledge([row], state, wait_s=60.0, counts=counts, code=451, reply="later") == 1
    waiting = await bench.row(row.id)
    assert waiting is not None
    assert (waiting["state"], waiting["owner_id"], waiting["attempts"]) == (state, None, int(counts))
    assert waiting["doubts"] == (state == "in_doubt")
    assert waiting["last_reply"] == "451 later"
    assert 55 < (waiting["due_at"] - datetime.now(UTC)).total_seconds() < 61
    event = await bench.connection.fetchrow("SELECT * FROM event")
    assert (event["delivery_id"], event["kind"], event["attempt"], event["code"]) == (
        row.id,
        state,
        int(counts),
        451,
    )
    await _balanced(bench)


async def test_a_wait_does_not_go_beyond_the_expiry(bench: Bench) -> None:
    [lane] = await bench.lanes()
    await bench.fill(await bench.flow(lane), 1, expires_in_s=100)
    [row] = await bench.claim()
    await bench.acknowledge([row], "deferred", wait_s=3_600.0)
    waiting = await bench.row(row.id)
    assert waiting is not None
    assert waiting["due_at"] == row.expires_at


async def test_bulk_in_doubt_twice_waits_until_it_expires(bench: Bench) -> None:
    [row] = await _one(bench)
    for doubts in (1, 2):
        await bench.acknowledge([row], "in_doubt", wait_s=5.0)
        waiting = await bench.row(row.id)
        assert waiting is not None
        assert waiting["doubts"] == doubts
        assert (waiting["due_at"] == row.expires_at) == (doubts == 2)
        await bench.pass_time(6.0)
        await bench.connection.fetch("SELECT promote(10, 0)")
        again = await bench.claim()
        assert len(again) == (doubts == 1)
        if again:
            [row] = again
            row = Row(**{name: getattr(row, name) for name in Row.__struct_fields__})
    await bench.pass_time(86_400)
    assert tuple(
        await bench.connection.fetchrow("SELECT promoted, expired, unresolved FROM promote(10, 0)")
    ) == (0, 0, 1)
    assert await bench.state_of(row.id) == "unresolved"
    await _balanced(bench)


async def test_transactional_in_doubt_is_tried_again_each_time(bench: Bench) -> None:
    [row] = await _one(bench, priority=0)
    for _ in range(3):
        await bench.acknowledge([row], "in_doubt", wait_s=5.0)
        await bench.pass_time(6.0)
        await bench.connection.fetch("SELECT promote(10, 0)")
        [row] = await bench.claim()
    assert row.doubts == 3


@pytest.mark.parametrize("state", ["queued", "leased", "deferred", "held", "in_doubt"])
async def test_a_positive_of_an_older_epoch_ends_an_open_row_in_every_state(bench: Bench, state: str) -> None:
    [row] = await _one(bench)
    await bench.connection.execute(
        "UPDATE queue SET state = $1::text::delivery_state, owner_id = CASE WHEN $1::text = 'leased' THEN 2 END, epoch = epoch + 1", state
    )  # fmt: skip
    assert await bench.acknowledge([row], "delivered") == 1
    assert await bench.state_of(row.id) == "delivered"
    # Whoever holds it now is fenced: what it tells later changes nothing.
    later = Row(**{name: getattr(row, name) for name in Row.__struct_fields__})
    for told in ("delivered", "bounced", "deferred", "in_doubt"):
        assert await bench.acknowledge([later], told, owner=2, epoch=2) == 0
    assert await bench.state_of(row.id) == "delivered"
    await _balanced(bench)


@pytest.mark.parametrize(
    "told", ["bounced", "deferred", "in_doubt", "suppressed", "expired", "cancelled", "quarantined"]
)
@pytest.mark.parametrize("how", ["older epoch", "another owner", "not leased"])
async def test_anything_else_needs_the_lease(bench: Bench, told: str, how: str) -> None:
    [row] = await _one(bench)
    if how == "not leased":
        await bench.release([row])
    else:
        change = "epoch = epoch + 1" if how == "older epoch" else "owner_id = 2"
        await bench.connection.execute(f"UPDATE queue SET {change}")
    before = await bench.row(row.id)
    assert await bench.acknowledge([row], told, suppress="invalid" if told == "bounced" else None) == 0
    assert await bench.row(row.id) == before
    assert await bench.connection.fetchval("SELECT count(*) FROM event") == 0
    assert await bench.connection.fetchval("SELECT count(*) FROM suppression") == 0
    await _balanced(bench)


@pytest.mark.parametrize("state", ["delivered", "bounced", "deferred", "in_doubt"])
async def test_telling_it_again_changes_nothing(bench: Bench, state: str) -> None:
    rows = await _one(bench, count=5)
    assert await bench.acknowledge(rows, state, wait_s=60.0) == 5
    tables = ("queue", "ended", "tally", "event")

    async def all_of(table: str) -> list[asyncpg.Record]:
        return await bench.connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4")

    before = [await all_of(table) for table in tables]
    assert await bench.acknowledge(rows, state, wait_s=60.0) == 0
    assert [await all_of(table) for table in tables] == before
    await _balanced(bench)


async def test_one_batch_of_every_outcome(bench: Bench) -> None:
    rows = await _one(bench, count=8)
    states = [
        "delivered",
        "bounced",
        "deferred",
        "in_doubt",
        "expired",
        "suppressed",
        "cancelled",
        "quarantined",
    ]
    n = len(rows)
    told = await bench.connection.fetchval(
        "SELECT acknowledge(1, $1, $2, $3::text[]::delivery_state[], $4, $5, $6, $7, $7, $7, $8)",
        [row.id for row in rows], [row.epoch for row in rows], states, [True] * n, [9.0] * n, [250] * n, [None] * n,
        [None, "invalid", *[None] * 6],
    )  # fmt: skip
    assert told == 8
    assert [await bench.state_of(row.id) for row in rows if row.id] == states
    assert await bench.connection.fetchval("SELECT count(*) FROM suppression") == 1
    await _balanced(bench)


async def test_the_same_id_twice_in_a_batch_ends_once(bench: Bench) -> None:
    [row] = await _one(bench)
    assert await bench.acknowledge([row, row], "delivered") == 1
    await _balanced(bench)


async def test_a_late_positive_turns_unresolved_into_delivered(bench: Bench) -> None:
    rows = await _one(bench, count=3)
    await bench.acknowledge(rows, "in_doubt", wait_s=1.0)
    await bench.pass_time(2 * 86_400)
    await bench.connection.fetch("SELECT promote(10, 0)")
    assert await bench.states() == {"unresolved": 3}
    assert await bench.acknowledge(rows[:2], "delivered", reply="250 after all") == 2
    assert await bench.states() == {"unresolved": 1, "delivered": 2}
    tally = dict(await bench.connection.fetch("SELECT state::text, sum(n)::int FROM tally GROUP BY 1"))
    assert tally == {"unresolved": 1, "delivered": 2}
    assert await bench.acknowledge(rows[:2], "delivered") == 0
    await _balanced(bench)


async def _in_doubt_and_queued_again(bench: Bench, count: int) -> list[Row]:
    """Deliveries that may be with the receiver, waiting for their next try; as the first try had them."""
    rows = await _one(bench, count=count)
    await bench.acknowledge(rows, "in_doubt", wait_s=5.0)
    await bench.pass_time(6.0)
    await bench.connection.fetch("SELECT promote(10, 0)")
    assert await bench.states() == {"queued": count}
    return rows


async def _tally(bench: Bench) -> dict[str, int]:
    rows = await bench.connection.fetch("SELECT state::text, sum(n)::int FROM tally GROUP BY 1")
    return {state: n for state, n in rows if n}


async def test_a_late_positive_of_what_was_in_doubt_wins_over_its_cancelling(bench: Bench) -> None:
    rows = await _in_doubt_and_queued_again(bench, 3)
    ids = [row.id for row in rows]
    assert await bench.connection.fetchval(
        "SELECT end_deliveries($1, 'cancelled', 1, '{queued}', 'cancelled by its sender')", ids
    ) == 3  # fmt: skip
    assert await bench.acknowledge(rows[:2], "delivered", reply="250 after all") == 2
    assert await bench.states() == await _tally(bench) == {"cancelled": 1, "delivered": 2}
    record = await bench.connection.fetchrow("SELECT reply, bounce_class FROM ended WHERE id = $1", ids[0])
    assert tuple(record) == ("250 after all", "ok")
    assert await bench.acknowledge(rows[:2], "delivered") == 0
    await _balanced(bench)


async def test_a_late_positive_of_what_was_in_doubt_wins_over_its_expiry(bench: Bench) -> None:
    rows = await _in_doubt_and_queued_again(bench, 2)
    await bench.acknowledge(await bench.claim(), "deferred", wait_s=3_600.0)
    await bench.pass_time(2 * 86_400)
    await bench.connection.fetch("SELECT promote(10, 0)")
    assert await bench.states() == {"expired": 2}
    assert await bench.acknowledge(rows[:1], "delivered") == 1
    assert await bench.states() == await _tally(bench) == {"expired": 1, "delivered": 1}
    await _balanced(bench)


async def test_a_positive_changes_no_end_of_what_was_never_in_doubt(bench: Bench) -> None:
    rows = await _one(bench, count=3)
    for row, state in zip(rows, ("cancelled", "expired", "bounced"), strict=True):
        await bench.acknowledge([row], state)
    assert await bench.acknowledge(rows, "delivered") == 0
    assert await bench.states() == await _tally(bench) == {"cancelled": 1, "expired": 1, "bounced": 1}
    await _balanced(bench)


async def test_a_bounce_that_suppresses_does_it_at_once_and_once(bench: Bench) -> None:
    """The address is on the list of the site alone, out of the site's lists, and no later row of it leaves."""
    connection = bench.connection
    await bench.sites(2)
    rows = await _one(bench, count=2)
    address = rows[0].recipient
    for site in (1, 2):
        await connection.execute(
            "WITH c AS (INSERT INTO contact (site_id, email, domain) VALUES ($1, $2, 'd') RETURNING id), "
            "l AS (INSERT INTO list (site_id, name) VALUES ($1, 'l') RETURNING id) "
            "INSERT INTO list_member (list_id, contact_id, site_id) SELECT l.id, c.id, $1 FROM c, l", site, str(address).upper()
        )  # fmt: skip
    assert (
        await bench.acknowledge(rows[:1], "bounced", suppress="invalid", code=550, reply="no such user") == 1
    )
    listed = await connection.fetchrow("SELECT * FROM suppression")
    assert (listed["site_id"], listed["email_key"], listed["scope"], listed["reason"]) == (
        1,
        address,
        "all",
        "invalid",
    )
    assert (listed["evidence"], listed["delivery_id"]) == ("no such user", rows[0].id)
    assert [r[0] for r in await connection.fetch("SELECT site_id FROM list_member")] == [2]
    flow = rows[0].flow_id
    assert flow is not None
    # One that was accepted before the suppression is claimed with the mark that it must not leave.
    await bench.connection.execute("UPDATE queue SET recipient = $1", str(address).upper())
    await bench.release(rows[1:])
    [again] = await bench.claim()
    assert again.suppressed
    await bench.acknowledge([again], "suppressed", counts=False)
    # One that comes after it never enters the queue.
    assert len(await bench.fill(flow, 1, recipients=[str(address)])) == 1
    assert await bench.take() == []
    assert await bench.states() == {"bounced": 1, "suppressed": 2}
    await _balanced(bench)


async def test_release_hands_back_only_what_is_still_ours(bench: Bench) -> None:
    rows = await _one(bench, count=4)
    await bench.connection.execute("UPDATE queue SET crashes = 1")
    await bench.connection.execute("UPDATE queue SET owner_id = 2 WHERE id = $1", rows[0].id)
    await bench.connection.execute("UPDATE queue SET epoch = 9 WHERE id = $1", rows[1].id)
    assert await bench.release(rows) == 2
    assert await bench.release(rows) == 0
    again = await bench.claim()
    assert [row.id for row in again] == [rows[2].id, rows[3].id]
    assert [row.crashes for row in again] == [0, 0]
    assert [row.epoch for row in again] == [2, 2]


async def test_what_a_lost_answer_left_leased_is_handed_back(bench: Bench) -> None:
    rows = await _one(bench, count=4)
    other = Bench(bench.connection, 2)
    known = [rows[1].id, rows[2].id]
    assert await other.connection.fetchval("SELECT release_unknown(2, '{}')") == 0
    assert await bench.connection.fetchval("SELECT release_unknown(1, $1)", known) == 2
    assert await other.take() == [rows[0].id, rows[3].id]
