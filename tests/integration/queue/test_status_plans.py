"""The plans by which messages are read back, as Postgres chose them for an app's role: an index at every step, and no more rows than a
page needs, whatever the statistics say.

Captured by auto_explain, on 60,000 messages of which a tenth are the site's, with statistics of the empty tables, and then with fresh ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from gateway.model.delivery import Action
from gateway.store import messages, why
from gateway.store.messages import LOOK, Filters
from tests.support.queue import Bench, explained, nodes

GROWING = {
    "message",
    "acceptance",
    "queue",
    "event",
    "suppression",
    "flow",
    "lane_state",
    "lane",
    "broadcast",
    "tally",
    "incarnation",
}
COUNT = 60_000
SITE = 1
_FILL = """
INSERT INTO message (id, site_id, domain_id, stream, sender, subject, created_at)
    SELECT i, 2 - (i % 10 = 0)::integer, 1, 'transactional', 's', 's', $2::timestamptz + i * interval '1 second' FROM generate_series(1, $1::integer) i;
"""
_ACCEPTANCES = """
INSERT INTO acceptance (id, site_id, message_id, deliveries, accepted_at)
    SELECT i, 2 - (i % 10 = 0)::integer, i, 1, $2::timestamptz + i * interval '1 second' FROM generate_series(1, $1::integer) i
"""
_ENDED = """
INSERT INTO ended (id, site_id, message_id, broadcast_id, lane_id, priority, state, attempts, doubts, accepted_at, ended_at, recipient)
    SELECT i * 1024, 2 - (i % 10 = 0)::integer, i, 0, $3, 0, CASE WHEN i % 4 = 0 THEN 'suppressed' ELSE 'delivered' END::delivery_state, 1, 0,
           $2::timestamptz + i * interval '1 second', now(), 'u' || i || '@d.example' FROM generate_series(1, $1::integer) i
"""
_QUEUE = """
INSERT INTO queue (id, seq, flow_id, lane_id, site_id, message_id, priority, state, due_at, accepted_at, expires_at, recipient)
    SELECT i * 1024, i * 1024, $4, $3, 2 - (i % 10 = 0)::integer, i, 0, CASE WHEN i % 4 = 0 THEN 'held' ELSE 'queued' END::delivery_state, now(),
           $2::timestamptz + i * interval '1 second', now() + interval '1 day', 'u' || i || '@d.example'
      FROM generate_series($1::integer, $5::integer) i
"""
_EVENTS = """
INSERT INTO event (delivery_id, site_id, broadcast_id, kind, at)
    SELECT i * 1024, 2 - (i % 10 = 0)::integer, 0, 'held', $2::timestamptz + (i + 1) * interval '1 second' FROM generate_series(1, $1::integer) i
"""


async def _fill(bench: Bench) -> datetime:
    connection = bench.connection
    await bench.sites(2)
    [lane] = await bench.lanes()
    flow = await bench.flow(lane, priority=0)
    since = datetime.now(UTC) - timedelta(hours=20)
    for table in ("message", "acceptance", "queue", "ended", "event"):
        await connection.execute(f"ANALYZE {table}")  # of the empty ones
    await connection.execute(_FILL.strip().rstrip(";"), COUNT, since)
    await connection.execute(_ACCEPTANCES, COUNT, since)
    await connection.execute(_ENDED, COUNT // 2, since, lane)
    await connection.execute(_QUEUE, COUNT // 2 + 1, since, lane, flow, COUNT)
    await connection.execute(_EVENTS, COUNT, since)
    await bench.wake([flow], [1])
    return since


def _faults(said: list[str], most: int) -> list[str]:
    found: list[str] = []
    for text in said:
        for node in nodes(explained(text)):
            kind, relation, loops = (
                node["Node Type"],
                node.get("Relation Name", ""),
                node.get("Actual Loops", 0),
            )
            grows = relation in GROWING or relation.startswith(("ended", "event"))
            touched = loops * (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0))
            if grows and kind == "Seq Scan" and touched > 10:  # a table of a page may be read as it is
                found.append(f"{kind} of {relation}")
            elif grows and touched > most:
                found.append(
                    f"{kind} of {relation} by {node.get('Index Name')} went through {touched:.0f} rows"
                )
    return found


@pytest.fixture
async def watched(bench: Bench) -> list[str]:
    """The plans of what an app's session does from now on."""
    said: list[str] = []

    def listen(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if '"Plan"' in str(message.message):
            said.append(str(message.message))

    bench.connection.add_log_listener(listen)
    return said


async def test_what_is_read_costs_the_same_beside_many(bench: Bench, watched: list[str]) -> None:
    since = await _fill(bench)
    connection = bench.connection
    moment = since + timedelta(seconds=COUNT // 3)

    def find(filters: Filters) -> Callable[[], Awaitable[object]]:
        return lambda: messages.find_messages(connection, SITE, filters, COUNT // 3, 100)

    async def read(number: int) -> None:
        message = await messages.get_message(connection, number)
        rows = await messages.list_deliveries(connection, number, 0, 1025)
        assert len(rows) == 1
        happened, more = await messages.list_happenings(
            connection, [row.id for row in rows], rows[0].accepted_at
        )
        assert happened
        assert not more
        known, _ = await why.read_facts(connection, message, 0, 101)
        assert len(known) == 1

    async def act(number: int) -> None:
        for action in (Action.HOLD, Action.RELEASE, Action.CANCEL):
            assert await messages.act(connection, number, action) == 1

    # What is asked, and how many rows of a table each step may go through.
    asked: list[tuple[str, Callable[[], Awaitable[object]], int]] = [
        ("a page", find(Filters()), 202),
        ("by state", find(Filters(state="in_doubt")), LOOK),
        ("by recipient", find(Filters(recipient="U40000@d.example")), LOOK),
        ("by stream", find(Filters(stream="marketing")), LOOK),
        ("by time", find(Filters(created_from=moment, created_to=moment + timedelta(hours=1))), LOOK),
        ("an ended one", lambda: read(1_000), 10),
        ("a queued one", lambda: read(COUNT - 10), 1_100),
        ("a held one", lambda: read(COUNT), 1_100),
        ("actions", lambda: act(COUNT - 30), 10),
    ]  # fmt: skip
    await connection.execute(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off;"
        "SET auto_explain.log_nested_statements = on; SET auto_explain.log_format = json"
    )
    for statistics in ("of the empty tables", "fresh"):
        for name, ask, most in asked:
            for _ in range(7):  # after five, a statement's plan may become a generic one
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute("SET LOCAL ROLE gateway_api")
                await connection.execute("SELECT set_config('gateway.site_id', $1, true)", str(SITE))
                await connection.execute("SET LOCAL client_min_messages = log")
                watched.clear()
                await ask()
                await transaction.rollback()
                assert watched
                assert _faults(watched, most) == [], f"{name}, statistics {statistics}"
        await connection.execute("ANALYZE")
