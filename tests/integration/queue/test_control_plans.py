"""What the control API reads of the queue beside pages of messages: by index at every step, and no more rows than it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg

from gateway.store import broadcasts, lanes, sites
from tests.support.queue import Bench, explained, nodes

MINE, THEIRS = 7, 8
COUNT = 20 * 1024
GROWING = {"queue", "acceptance", "suppression"}


async def test_deliveries_and_backlogs_cost_the_same_beside_many(bench: Bench) -> None:
    connection = bench.connection
    await bench.sites(2)
    [lane] = await bench.lanes()
    for table in ("acceptance", "queue", "ended", "flow"):
        await connection.execute(f"ANALYZE {table}")  # of the empty ones
    for site, broadcast in ((1, MINE), (2, THEIRS)):
        await bench.fill(await bench.flow(lane, site=site, broadcast=broadcast), COUNT)
    await connection.execute(
        "SELECT end_deliveries(array_agg(id), 'bounced', 1, '{queued}', 'no') FROM queue WHERE id % 2 = 0"
    )
    said: list[str] = []

    def listen(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if '"Plan"' in str(message.message):
            said.append(str(message.message))

    connection.add_log_listener(listen)
    await connection.execute(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off;"
        "SET auto_explain.log_nested_statements = on; SET auto_explain.log_format = json; SET client_min_messages = log"
    )

    async def page(state: str | None, found: int) -> None:
        assert len((await broadcasts.find_deliveries(connection, MINE, state, 0, 100)).deliveries) == found

    async def backlog() -> None:
        assert await sites.count_backlog(connection, 1, 1, 1_000) == 1_000

    async def shown() -> None:
        assert (await lanes.get_lane(connection, lane, most=1_000)).ready == 1_000

    asked: list[tuple[str, Callable[[], Awaitable[object]], int]] = [
        ("a page", lambda: page(None, 100), 1_000),
        ("by state", lambda: page("bounced", 100), 50 * 1_024),
        ("by a state that none has", lambda: page("cancelled", 0), 50 * 1_024),
        ("a site's backlog", backlog, 2_100),
        ("a lane", shown, 2_100),
    ]
    for statistics in ("of the empty tables", "fresh"):
        for name, ask, most in asked:
            for _ in range(7):  # after five, a statement's plan may become a generic one
                said.clear()
                await ask()
                assert said, "nothing was explained"
                faults: list[str] = []
                for text in said:
                    for node in nodes(explained(text)):
                        relation = node.get("Relation Name", "")
                        if relation not in GROWING and not relation.startswith("ended"):
                            continue
                        touched = node["Actual Loops"] * (
                            node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                        )
                        if touched > most or (node["Node Type"] == "Seq Scan" and touched > 100):
                            faults.append(
                                f"{node['Node Type']} of {relation} went through {touched:.0f} rows"
                            )
                assert not faults, f"{name}, with statistics {statistics}: {faults}"
        await connection.execute("ANALYZE")
