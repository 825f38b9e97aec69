"""F9: somebody's transaction stays open (a backup, a forgotten console): what is finished must not be walked over again.

Postgres cannot remove a dead row that an old snapshot might see. Measured in index entries that a claim and an acknowledgement read
(dead ones count) and in pages that they touch, which no neighbour on the machine changes: they may not grow with what was sent since.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from gateway.store.pool import connect
from tests.support.queue import ACKNOWLEDGE, CLAIM, Bench, Row

ROWS, BATCH, LANES = 30_000, 400, 4
MAY_GROW = 1.10
"""The fault's own bound: at most a tenth of the throughput."""


async def _fill(bench: Bench, rows: int) -> None:
    lanes = await bench.lanes(LANES)
    flows = [await bench.flow(lane, broadcast=7) for lane in lanes]
    now = datetime.now(UTC)
    columns = ["id", "seq", "flow_id", "lane_id", "site_id", "message_id", "broadcast_id", "priority", "state", "due_at", "accepted_at",
               "expires_at", "recipient"]  # fmt: skip
    records = [
        (i, i, flows[i % LANES], lanes[i % LANES], 1, 1, 7, 1, "queued", now, now, now + timedelta(days=3), f"u{i}@d.example")
        for i in range(1, rows + 1)
    ]  # fmt: skip
    await bench.connection.copy_records_to_table("queue", records=records, columns=columns)
    await bench.wake(flows, [1] * LANES)


async def _pages(connection: asyncpg.Connection, statement: str, *args: object) -> int:
    """Run a statement and count the pages that it touched, in the functions it calls too."""
    plan = await connection.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", *args
    )
    top: dict[str, Any] = msgspec.json.decode(plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"]) + int(top["Shared Read Blocks"])


async def _entries(connection: asyncpg.Connection) -> int:
    """Index entries read so far, in this database."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    return int(await connection.fetchval("SELECT sum(idx_tup_read) FROM pg_stat_user_indexes"))


class Cost(msgspec.Struct):
    """For each delivery."""

    entries: float
    pages: float


# The floor without its second of slack: in that second a quick machine leaves more dead entries than a slow one.
_EXACT_FLOOR = "SELECT min(ready_at) FROM lane_state"


async def _cost(bench: Bench, rounds: int, floor: str = _EXACT_FLOOR) -> Cost:
    """Claim and acknowledge some batches; what a delivery cost."""
    connection = bench.connection
    entries = pages = 0
    for _ in range(rounds):
        since = await connection.fetchval(floor)
        before = await _entries(connection)
        pages += await _pages(connection, CLAIM, 1, [1], BATCH, BATCH // LANES, 2, [], [], False, since, 100)
        entries += await _entries(connection) - before
        rows = await connection.fetch("SELECT id, epoch FROM queue WHERE owner_id = 1 AND state = 'leased'")
        n = len(rows)
        assert n == BATCH
        before = await _entries(connection)
        pages += await _pages(
            connection, ACKNOWLEDGE, 1, [row["id"] for row in rows], [row["epoch"] for row in rows], ["delivered"] * n, [True] * n,
            [0.0] * n, [250] * n, ["2.0.0"] * n, ["ok"] * n, ["ok"] * n, [None] * n,
        )  # fmt: skip
        entries += await _entries(connection) - before
    return Cost(entries / rounds / BATCH, pages / rounds / BATCH)


async def _send(bench: Bench, count: int) -> None:
    for _ in range(count // BATCH):
        rows: list[Row] = await bench.claim(BATCH, per_lane=BATCH // LANES)
        assert await bench.acknowledge(rows) == len(rows) == BATCH


async def test_a_transaction_left_open_costs_at_most_a_tenth(db: str) -> None:
    worker = await connect(db, settings={"synchronous_commit": "off"})
    bench = Bench(worker)
    await _fill(bench, ROWS)
    await _send(bench, 8 * BATCH)  # warm: plans are kept, pages are read
    forgotten = await connect(db)
    async with forgotten.transaction(isolation="repeatable_read"):
        await forgotten.fetchval("SELECT count(*) FROM lane_state")  # from here on it sees what is now
        early = await _cost(bench, 5)
        await _send(bench, ROWS - 20 * BATCH)
        late = await _cost(bench, 5)
        assert await worker.fetchval("SELECT count(*) FROM queue") < ROWS * 0.1
        assert await forgotten.fetchval("SELECT count(*) FROM queue") > ROWS * 0.85, (
            "the old snapshot still sees them"
        )
    assert late.pages <= early.pages * MAY_GROW, f"{early} became {late}"
    assert late.entries <= early.entries * MAY_GROW, f"{early} became {late}"
    assert early.entries < 10
    assert early.pages < 40
    await worker.close()
    await forgotten.close()


@pytest.mark.parametrize("what", ["floor", "watermark"])
async def test_the_measure_sees_what_the_floors_are_for(db: str, what: str) -> None:
    """Without the flows' floors, or without the claim's, the same measure grows: it is no measure that cannot fail."""
    worker = await connect(db, settings={"synchronous_commit": "off"})
    bench = Bench(worker)
    await _fill(bench, 10_000)
    await _send(bench, 2 * BATCH)
    forgotten = await connect(db)
    async with forgotten.transaction(isolation="repeatable_read"):
        await forgotten.fetchval("SELECT count(*) FROM lane_state")
        early = await _cost(bench, 1, "SELECT ready_floor()")
        if what == "floor":
            await _send(bench, 4_000)
            await worker.execute("UPDATE flow SET floor = 0")
        else:
            # A lane that is claimed leaves a dead entry in the index of ready lanes, each time.
            await worker.execute(
                "DO $$ begin for i in 1..1000 loop update lane_state set token_at = token_at + interval '1 us'; end loop; end $$"
            )
            await worker.execute(
                "CREATE OR REPLACE FUNCTION ready_floor() RETURNS timestamptz LANGUAGE sql AS $$ select '-infinity'::timestamptz $$"
            )
        late = await _cost(bench, 1, "SELECT ready_floor()")
        assert late.entries > early.entries * 2, f"{early} became {late}"
    await worker.close()
    await forgotten.close()
