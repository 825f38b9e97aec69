"""What the control API reads of the queue beside pages of messages: by index at every step, and no more rows than it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import msgspec

from gateway.store import broadcasts, lanes, sites
from gateway.store.catalogue import load
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
    await connection.execute(
        "SET session_replication_role = replica;"  # of what a broadcast refers to nothing is there
        f"INSERT INTO broadcast (id, site_id, name, list_id, template_id, domain_id, sender, expires_in_s) OVERRIDING SYSTEM VALUE "
        f"VALUES ({MINE}, 1, 'mine', 1, 1, 1, 'a@b.example', 60);"
        "SET session_replication_role = DEFAULT;"
    )
    for state, broadcast, count in (("held", MINE, 20), ("deferred", MINE, 30), ("deferred", THEIRS, 5_000)):
        await connection.execute(
            "UPDATE queue SET state = $1::text::delivery_state "
            "WHERE id IN (SELECT id FROM queue WHERE state = 'queued' AND broadcast_id = $2 ORDER BY id DESC LIMIT $3)",
            state,
            broadcast,
            count,
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

    # As the API asks: row-level security keeps the planner from partial indexes, and from operators that may leak.
    await connection.execute("SET ROLE gateway_api")

    async def site(who: str) -> None:
        await connection.execute("SELECT set_config('gateway.site_id', $1, false)", who)

    async def page(state: str | None, found: int) -> None:
        assert len((await broadcasts.find_deliveries(connection, MINE, state, 0, 100)).deliveries) == found

    async def books() -> None:
        counted = await broadcasts.counts(connection, MINE)
        assert counted.states["held"] == 20
        assert counted.states["deferred"] == 30

    async def backlog() -> None:
        assert await sites.count_backlog(connection, 1, 1, 1_000) == 1_000

    async def shown() -> None:
        await site("*")
        assert (await lanes.get_lane(connection, lane, most=1_000)).ready == 1_000
        await site("1")

    asked: list[tuple[str, Callable[[], Awaitable[object]], int]] = [
        ("a page", lambda: page(None, 100), 3 * 1_024),
        ("by state", lambda: page("bounced", 100), 50 * 1_024),
        ("by a state that none has", lambda: page("cancelled", 0), 50 * 1_024),
        ("the books", books, 100),
        ("a site's backlog", backlog, 2_100),
        ("a lane", shown, 2_100),
    ]
    await site("1")
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
        await connection.execute("RESET ROLE; ANALYZE; SET ROLE gateway_api")


async def test_a_page_of_a_list_or_of_suppressions_does_not_walk_past_what_is_before_it(bench: Bench) -> None:
    connection = bench.connection
    await bench.sites(2)
    await connection.execute(
        "INSERT INTO contact (site_id, email, domain, source) SELECT 1 + i % 2, i || '@x.example', 'x.example', 'api' FROM generate_series(1, 40000) i;"
        "INSERT INTO list (id, site_id, name) OVERRIDING SYSTEM VALUE VALUES (1, 1, 'a'), (2, 2, 'b');"
        "INSERT INTO list_member (list_id, contact_id, site_id) SELECT site_id, id, site_id FROM contact;"
        "INSERT INTO suppression (site_id, email_key, scope, reason) SELECT site_id, email_key, 'all', 'common' FROM contact;"
        "ANALYZE"
    )
    middle: int = await connection.fetchval(
        "SELECT id FROM contact WHERE site_id = 1 ORDER BY id LIMIT 1 OFFSET 10000"
    )
    lists, suppressions = load("lists"), load("suppressions")
    await connection.execute("SET ROLE gateway_api; SELECT set_config('gateway.site_id', '1', false)")
    asked: list[tuple[str, tuple[object, ...], int]] = [
        (lists.members, (1, middle, 101), 101),
        (suppressions.suppressions, (1, "5", "", 101, None, None, 101), 101),
        (suppressions.suppressions, (1, "5", "", 101, None, "rare", 5_000), 5_000),
    ]
    for query, given, most in asked:
        (plan,) = await connection.fetchrow("EXPLAIN (ANALYZE, FORMAT JSON) " + query, *given)  # type: ignore[misc]
        for node in nodes(msgspec.json.decode(plan)[0]["Plan"]):
            if node.get("Relation Name"):
                touched = node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
                assert touched <= most, (
                    f"{node['Node Type']} of {node['Relation Name']} went through {touched:.0f} rows"
                )
