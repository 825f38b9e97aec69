"""Promotion, expiry, cancelling and rescue: what happens to deliveries that nobody is sending."""

from __future__ import annotations

import pytest

from gateway.store import fleet
from gateway.store.books import read_books
from gateway.store.pool import connect
from tests.support.queue import Bench, explained, nodes

POLICY = fleet.DoubtPolicy(transactional_wait_s=10.0, bulk_wait_s=100.0)


async def _promote(bench: Bench, limit: int = 100) -> tuple[int, int, int]:
    return tuple(
        await bench.connection.fetchrow("SELECT promoted, expired, unresolved FROM promote($1, 0)", limit)
    )


async def _balanced(bench: Bench) -> None:
    books = await read_books(bench.connection, deep=True)
    assert not books.faults(), books.faults()


async def _waits_s(bench: Bench, delivery: int) -> float:
    return float(
        await bench.connection.fetchval(
            "SELECT extract(epoch FROM due_at - clock_timestamp()) FROM queue WHERE id = $1", delivery
        )
    )


# -- promotion ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["deferred", "in_doubt"])
async def test_what_is_due_is_tried_again_and_what_is_not_waits(bench: Bench, state: str) -> None:
    [lane] = await bench.lanes()
    await bench.fill(await bench.flow(lane), 2)
    soon, late = await bench.claim()
    await bench.acknowledge([soon], state, wait_s=10.0)
    await bench.acknowledge([late], state, wait_s=100.0)
    assert await _promote(bench) == (0, 0, 0)
    await bench.pass_time(11.0)
    assert await _promote(bench) == (1, 0, 0)
    assert await bench.take() == [soon.id]


async def test_a_scheduled_delivery_leaves_when_its_time_has_come(bench: Bench) -> None:
    [lane] = await bench.lanes()
    [delivery] = await bench.fill(await bench.flow(lane), 1, due_in_s=3_600)
    assert await bench.take() == []
    await bench.pass_time(3_601)
    assert await _promote(bench) == (1, 0, 0)
    assert await bench.take() == [delivery]


async def test_what_expired_while_it_waited_ends_by_what_it_waited_for(bench: Bench) -> None:
    [lane] = await bench.lanes()
    await bench.fill(await bench.flow(lane), 2, expires_in_s=50)
    deferred, doubted = await bench.claim()
    await bench.acknowledge([deferred], "deferred", wait_s=10.0, code=451, reply="greylisted")
    await bench.acknowledge([doubted], "in_doubt", wait_s=10.0)
    await bench.pass_time(51)
    assert await _promote(bench) == (0, 1, 1)
    assert await bench.state_of(deferred.id) == "expired"
    assert await bench.state_of(doubted.id) == "unresolved"
    assert (
        await bench.connection.fetchval("SELECT reply FROM ended WHERE id = $1", deferred.id)
        == "451 greylisted"
    )
    await _balanced(bench)


async def test_what_is_in_doubt_of_a_cancelled_broadcast_is_not_tried_again(bench: Bench) -> None:
    [lane] = await bench.lanes()
    await bench.fill(await bench.flow(lane, broadcast=7), 1)
    [row] = await bench.claim()
    await bench.acknowledge([row], "in_doubt", wait_s=10.0)
    await bench.hold("broadcast", 7, "cancelled")
    assert await bench.connection.fetchval("SELECT cancel_broadcast_rows(7, 100, 0)") == 0
    await bench.pass_time(11)
    assert await _promote(bench) == (0, 0, 1)
    assert await bench.states() == {"unresolved": 1}


async def test_promotion_works_in_batches(bench: Bench) -> None:
    [lane] = await bench.lanes()
    await bench.fill(await bench.flow(lane), 25, due_in_s=10)
    await bench.pass_time(11)
    assert [await _promote(bench, 10) for _ in range(4)] == [(10, 0, 0), (10, 0, 0), (5, 0, 0), (0, 0, 0)]
    assert len(await bench.take()) == 25


async def test_what_expires_in_line_ends_in_batches_and_what_is_leased_does_not(bench: Bench) -> None:
    [lane] = await bench.lanes()
    flow = await bench.flow(lane)
    await bench.fill(flow, 8, expires_in_s=50)
    await bench.fill(flow, 2)
    assert len(await bench.take(3)) == 3
    await bench.connection.execute(
        "UPDATE queue SET state = 'held' WHERE id = (SELECT max(id) FROM queue WHERE state = 'queued' AND expires_at < now() + interval '1 h')"
    )
    await bench.pass_time(51)
    assert [await bench.connection.fetchval("SELECT expire_ready(3, 0)") for _ in range(3)] == [3, 2, 0]
    assert await bench.states() == {"leased": 3, "queued": 2, "expired": 5}
    await _balanced(bench)


async def test_a_cancelled_broadcast_ends_in_batches_and_no_other_is_touched(bench: Bench) -> None:
    lanes = await bench.lanes(3)
    for lane in lanes:
        await bench.fill(await bench.flow(lane, broadcast=7), 10)
        await bench.fill(await bench.flow(lane, broadcast=8), 5)
    await bench.hold("broadcast", 8)
    rows = await bench.claim(9, per_lane=3)
    await bench.unhold("broadcast", 8)
    await bench.acknowledge(rows[:6], "deferred", wait_s=100.0)
    await bench.acknowledge(rows[6:8], "in_doubt", wait_s=100.0)
    await bench.hold("broadcast", 7, "cancelled")
    counts = [await bench.connection.fetchval("SELECT cancel_broadcast_rows(7, 4, 0)") for _ in range(8)]
    assert sum(counts) == 27  # neither the one leased nor the two in doubt
    assert max(counts) <= 8
    assert counts[-1] == 0
    states = dict(
        await bench.connection.fetch(
            "SELECT state::text, count(*) FROM queue WHERE broadcast_id = 7 GROUP BY 1"
        )
    )
    assert states == {"leased": 1, "in_doubt": 2}
    assert (
        await bench.connection.fetchval(
            "SELECT count(*) FROM queue WHERE broadcast_id = 8 AND state = 'queued'"
        )
        == 15
    )
    assert await bench.connection.fetchval("SELECT count(*) FROM ended WHERE state = 'cancelled'") == 27
    await _balanced(bench)


# -- rescue ------------------------------------------------------------------------------------------------------------


async def _held(bench: Bench, count: int, *, priority: int = 1) -> tuple[int, list[int]]:
    """A dead incarnation, and what it held."""
    dead = await bench.incarnation()
    [lane] = await bench.lanes()
    ids = await bench.fill(await bench.flow(lane, priority=priority), count)
    assert await Bench(bench.connection, dead).take() == ids
    await fleet.bury(bench.connection, dead)
    return dead, ids


def _of(ids: list[int], epoch: int = 1) -> dict[int, int]:
    """As a journal names them: the lease by which they were begun."""
    return dict.fromkeys(ids, epoch)


async def test_rescue_with_the_journal(bench: Bench) -> None:
    """In doubt what had a dot; suspects alone with a count; the rest at once and clean."""
    dead, ids = await _held(bench, 6)
    moved = await fleet.rescue(
        bench.connection, dead, POLICY, journal=True, in_doubt=_of(ids[:2]), started=_of(ids[2:3])
    )
    assert moved == {"in_doubt": 2, "queued": 4}
    assert await bench.connection.fetchval("SELECT status FROM incarnation WHERE id = $1", dead) == "closed"
    for delivery in ids[:2]:
        assert 95 < await _waits_s(bench, delivery) < 101
    rows = await bench.claim()
    assert [row.id for row in rows] == ids[2:]
    assert [row.crashes for row in rows] == [1, 0, 0, 0]
    kinds = dict(await bench.connection.fetch("SELECT kind, count(*) FROM event GROUP BY 1"))
    assert kinds == {"in_doubt": 2, "suspect": 1}
    await _balanced(bench)


async def test_what_a_journal_says_of_an_earlier_lease_is_not_true_of_this_one(bench: Bench) -> None:
    """In doubt, queued again, leased by the same dispatcher and not begun when it died: its old dot is in the segment still."""
    dead, ids = await _held(bench, 4)
    moved = await fleet.rescue(
        bench.connection, dead, POLICY, journal=True, in_doubt=_of(ids[:2], 0), started=_of(ids[1:3], 0)
    )
    assert moved == {"queued": 4}
    assert [(row.crashes, row.doubts) for row in await bench.claim()] == [(0, 0)] * 4
    assert await bench.connection.fetchval("SELECT count(*) FROM event") == 0
    await _balanced(bench)


async def test_a_dot_of_an_earlier_lease_hides_no_suspect(bench: Bench) -> None:
    dead, [culprit] = await _held(bench, 1)
    moved = await fleet.rescue(
        bench.connection, dead, POLICY, journal=True, in_doubt=_of([culprit], 0), started=_of([culprit])
    )
    assert moved == {"queued": 1}
    assert [row.crashes for row in await bench.claim()] == [1]


@pytest.mark.parametrize(("priority", "wait_s"), [(0, 10.0), (1, 100.0)])
async def test_rescue_without_the_journal_puts_everything_in_doubt(
    bench: Bench, priority: int, wait_s: float
) -> None:
    dead, ids = await _held(bench, 4, priority=priority)
    assert await fleet.rescue(bench.connection, dead, POLICY, journal=False, started=_of(ids)) == {
        "in_doubt": 4
    }
    assert wait_s - 5 < await _waits_s(bench, ids[0]) < wait_s + 1
    assert await bench.connection.fetchval("SELECT max(crashes) FROM queue") == 0
    await _balanced(bench)


async def test_rescue_leaves_what_others_hold(bench: Bench) -> None:
    dead, ids = await _held(bench, 2)
    living = Bench(bench.connection, await bench.incarnation())
    [lane] = await bench.lanes()
    others = await bench.fill(await bench.flow(lane), 2)
    assert await living.take() == others
    assert await fleet.rescue(bench.connection, dead, POLICY, journal=True) == {"queued": 2}
    assert await fleet.rescue(bench.connection, dead, POLICY, journal=True) == {}
    assert await bench.take() == ids


async def test_a_second_doubt_of_bulk_by_rescue_waits_until_it_expires(bench: Bench) -> None:
    dead, [delivery] = await _held(bench, 1)
    await bench.connection.execute("UPDATE queue SET doubts = 1")
    await fleet.rescue(bench.connection, dead, POLICY, journal=False)
    row = await bench.row(delivery)
    assert row is not None
    assert row["due_at"] == row["expires_at"]


async def test_a_row_that_was_begun_at_three_deaths_is_quarantined(bench: Bench) -> None:
    dead, [culprit, bystander] = await _held(bench, 2)
    for death in (1, 2, 3):
        moved = await fleet.rescue(
            bench.connection, dead, POLICY, journal=True, started=_of([culprit], death)
        )
        assert moved == ({"queued": 2} if death < 3 else {"queued": 2, "quarantined": 1})
        rows = await bench.claim()
        assert {row.id: row.crashes for row in rows} == (
            {culprit: death, bystander: 0} if death < 3 else {bystander: 0}
        )
        dead = await bench.incarnation()
        await bench.connection.execute("UPDATE queue SET owner_id = $1", dead)
    assert await bench.state_of(culprit) == "quarantined"
    await _balanced(bench)


async def test_a_row_handed_back_is_no_suspect_any_more(bench: Bench) -> None:
    dead, ids = await _held(bench, 1)
    await fleet.rescue(bench.connection, dead, POLICY, journal=True, started=_of(ids))
    [row] = await bench.claim()
    assert row.crashes == 1
    await bench.release([row])
    [row] = await bench.claim()
    assert row.crashes == 0


async def test_only_one_rescuer_works_on_a_dead_incarnation(bench: Bench, db: str) -> None:
    dead, _ = await _held(bench, 1)
    second = await connect(db)
    async with bench.connection.transaction():
        assert await fleet.lock_dead(bench.connection, dead)
        assert not await fleet.lock_dead(second, dead)
        await fleet.rescue(bench.connection, dead, POLICY, journal=True)
    assert not await fleet.lock_dead(second, dead)
    await second.close()


async def test_a_peer_is_declared_dead_only_where_its_counter_still_stands(bench: Bench) -> None:
    peer = await bench.incarnation()
    assert await fleet.beat(bench.connection, peer) is not None
    assert not await fleet.declare_dead(bench.connection, peer, 0)
    assert await fleet.declare_dead(bench.connection, peer, 1)
    assert not await fleet.declare_dead(bench.connection, peer, 1)
    assert await fleet.beat(bench.connection, peer) is None


# -- lanes -------------------------------------------------------------------------------------------------------------


async def test_lanes_are_made_once_whoever_asks_and_however(bench: Bench) -> None:
    names = ["b.example", "a.example", "b.example"]
    for _ in range(2):
        rows = await bench.connection.fetch(
            "SELECT * FROM ensure_lanes($1, $2, $3, $4)", names, [5.0] * 3, [2.0] * 3, [4] * 3
        )
        assert sorted({row["domain"] for row in rows}) == ["a.example", "b.example"]
    assert await bench.connection.fetchval("SELECT count(*) FROM lane") == 2
    assert await bench.connection.fetchval("SELECT count(*) FROM lane_state") == 2
    state = await bench.connection.fetchrow(
        "SELECT rate_per_s, burst, max_connections FROM lane_state LIMIT 1"
    )
    assert tuple(state) == (5.0, 2.0, 4)


async def test_making_many_lanes_at_once_takes_time_in_proportion(bench: Bench) -> None:
    """Counted in rows that the plans went through, not in seconds: 4,000 domains were 16,000,000 comparisons."""
    connection = bench.connection
    said: list[str] = []
    connection.add_log_listener(lambda _, message: said.append(message.message))
    await connection.execute(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; "
        "SET auto_explain.log_timing = off; SET auto_explain.log_nested_statements = on; SET auto_explain.log_format = json; "
        "SET client_min_messages = log"
    )
    n = 4_000
    rows = await connection.fetch(
        "SELECT * FROM ensure_lanes($1, $2, $3, $4)", [f"d{i}.example" for i in range(n)], [5.0] * n, [2.0] * n, [4] * n
    )  # fmt: skip
    assert len(rows) == n
    await connection.execute("SET auto_explain.log_min_duration = -1")
    plans = [explained(text) for text in said if '"Plan"' in text]
    assert plans
    worst = max(
        node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Join Filter", 0) + node.get("Rows Removed by Filter", 0))
        for plan in plans for node in nodes(plan)
    )  # fmt: skip
    assert worst <= 2 * n
