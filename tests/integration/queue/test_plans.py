"""The plans of claim and acknowledgement, as Postgres really chose them: an index at every step, whatever the statistics say.

Captured by auto_explain from inside the functions. Four worlds: nothing, many rows in few lanes, many lanes, and statistics of an
empty table over a full one. What is refused: a sequential scan of a table that grows, a sort or a scan of more than was asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.support.queue import Bench, explained, nodes

GROWING = {"queue", "flow", "lane_state", "lane", "acceptance", "suppression"}
ASKED = 400


async def _fill(bench: Bench, lanes: int, rows: int) -> None:
    """Rows straight into the queue, spread over the lanes: accept_deliveries would take its time for a million."""
    connection = bench.connection
    for start in range(0, lanes, 5_000):
        n = min(5_000, lanes - start)
        await bench.lanes(n, prefix=f"p{start}-")
    await connection.execute(
        "INSERT INTO flow (lane_id, priority, site_id, broadcast_id) SELECT lane_id, 1, 1, 7 FROM lane_state"
    )
    now = datetime.now(UTC)
    flows = [tuple(row) for row in await connection.fetch("SELECT id, lane_id FROM flow ORDER BY id")]
    columns = ["id", "seq", "flow_id", "lane_id", "site_id", "message_id", "broadcast_id", "priority", "state", "due_at", "accepted_at",
               "expires_at", "recipient"]  # fmt: skip
    for start in range(0, rows, 100_000):
        records = [
            (
                i,
                i,
                *flows[i % len(flows)],
                1,
                1,
                7,
                1,
                "queued",
                now,
                now,
                now + timedelta(days=3),
                f"u{i}@d.example",
            )
            for i in range(start + 1, min(rows, start + 100_000) + 1)
        ]
        await connection.copy_records_to_table("queue", records=records, columns=columns)
    await connection.execute("SELECT wake(array_agg(id), array_agg(1::bigint)) FROM flow")


async def _plans(bench: Bench) -> list[dict[str, Any]]:
    """The plans of a claim and its acknowledgement, and of the upkeep's looks, nested statements included."""
    connection = bench.connection
    said: list[str] = []

    def listen(_: object, message: asyncpg.PostgresLogMessage) -> None:
        said.append(str(message.message))

    for _ in range(
        2
    ):  # the second round has warm caches and rows behind the first: plans are kept over calls
        await bench.acknowledge(await bench.claim(ASKED, per_lane=50))
    await connection.execute(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off;"
        "SET auto_explain.log_nested_statements = on; SET auto_explain.log_format = json; SET client_min_messages = log"
    )
    connection.add_log_listener(listen)
    rows = await bench.claim(ASKED, per_lane=50)
    third = len(rows) // 3
    await bench.acknowledge(rows[:third])
    await bench.acknowledge(rows[third : 2 * third], "deferred", wait_s=60.0)
    await bench.release(rows[2 * third :])
    for statement in (
        "promote(100, 0)",
        "expire_ready(100, 0)",
        "cancel_broadcast_rows(99, 100, 0)",
        "sweep()",
    ):
        await connection.execute(f"SELECT {statement}")
    await connection.execute("SET auto_explain.log_min_duration = -1")
    connection.remove_log_listener(listen)
    found = [explained(text) for text in said if '"Plan"' in text]
    assert len(found) > 10
    return found


def _faults(plans: list[dict[str, Any]], most_rows: int) -> list[str]:
    faults: list[str] = []
    for plan in plans:
        for node in nodes(plan):
            kind, relation = node["Node Type"], node.get("Relation Name", "")
            loops = node.get("Actual Loops", 0)
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
            touched = loops * (node.get("Actual Rows", 0) + removed)
            if kind == "Seq Scan" and relation in GROWING and loops:
                faults.append(f"{kind} of {relation}")
            if touched > most_rows:
                faults.append(
                    f"{kind} {relation} {node.get('Index Name', '')} went through {touched:.0f} rows"
                )
            if kind == "Sort" and touched > 2 * ASKED:
                faults.append(f"a sort of {touched:.0f} rows")
    return faults


async def test_an_empty_queue(bench: Bench) -> None:
    await bench.lanes(5)
    assert _faults(await _plans(bench), 2 * ASKED) == []


@pytest.mark.parametrize("rows", [200_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
async def test_many_rows_over_eight_lanes_with_stale_and_fresh_statistics(
    bench: Bench, rows: int, pytestconfig: pytest.Config
) -> None:
    if rows >= 1_000_000 and "slow" not in str(pytestconfig.getoption("markexpr")):
        pytest.skip("a million rows take a minute: run with -m slow")
    await bench.connection.execute("ALTER TABLE queue SET (autovacuum_enabled = off)")
    await bench.connection.execute("ANALYZE queue; ANALYZE flow; ANALYZE lane_state")  # of the empty tables
    await _fill(bench, 8, rows)
    assert _faults(await _plans(bench), 3 * ASKED) == []
    await bench.connection.execute("ANALYZE queue; ANALYZE flow; ANALYZE lane_state; ANALYZE lane")
    assert _faults(await _plans(bench), 3 * ASKED) == []


async def test_twenty_thousand_lanes(bench: Bench) -> None:
    """A sweep looks at each flow once; nothing else may."""
    await _fill(bench, 20_000, 40_000)
    await bench.connection.execute("ANALYZE queue; ANALYZE flow; ANALYZE lane_state; ANALYZE lane")
    plans = await _plans(bench)
    sweeps = [plan for plan in plans if any(node["Node Type"] == "Recursive Union" for node in nodes(plan))]
    assert len(sweeps) == 1
    assert _faults([plan for plan in plans if plan is not sweeps[0]], 3 * ASKED) == []
    assert _faults(sweeps, 60_000) == []
