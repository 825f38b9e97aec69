"""The queue by hand, for tests: lanes, flows and deliveries made by its own SQL functions, claimed and acknowledged.

A `Bench` works on one connection; several of them on one database are several dispatchers (or submitters). Nothing here waits or
sleeps: a test moves a lane's time with `pass_time`, which is what the claim reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

FAST = 1e6
"""A rate that is never the limit."""

CLAIM = "SELECT * FROM claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
ACKNOWLEDGE = "SELECT acknowledge($1, $2, $3, $4::text[]::delivery_state[], $5, $6, $7, $8, $9, $10, $11)"

# Rows of the last test go by DELETE: emptying by TRUNCATE gives every table and index new files, 0.2 s.
EMPTY = """
DO $$
DECLARE t text;
BEGIN
    SET LOCAL session_replication_role = replica;  -- no cascades: every table is emptied by name
    FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
             AND relname NOT IN ('gateway_migration', 'database_identity') LOOP
        EXECUTE format('DELETE FROM %I', t);
    END LOOP;
    FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' LOOP
        EXECUTE format('ALTER SEQUENCE %I RESTART', t);
    END LOOP;
END $$
"""


class Row(msgspec.Struct, frozen=True):
    """A claimed row, as `claim` gives it; `id` None: the lane had no connection slot free."""

    id: int | None
    epoch: int | None
    lane_id: int
    flow_id: int | None
    site_id: int | None
    message_id: int | None
    broadcast_id: int | None
    priority: int | None
    attempts: int | None
    crashes: int | None
    doubts: int | None
    recipient: str | None
    variables: str | None
    accepted_at: datetime | None
    expires_at: datetime | None
    suppressed: bool | None
    leave_at: float | None
    turn_ends: float | None
    claimed_at: float
    more: bool | None
    peak_per_s: float
    burst: float
    slots: int


class Bench:
    """One connection's hand on the queue."""

    def __init__(self, connection: asyncpg.Connection, owner: int = 1) -> None:
        self.connection, self.owner = connection, owner
        self.alive = [owner]

    async def sites(self, count: int = 1) -> None:
        """Make sites 1 … count."""
        await self.connection.execute(
            "INSERT INTO site (id, name) OVERRIDING SYSTEM VALUE SELECT i, 's' || i FROM generate_series(1, $1) i", count
        )  # fmt: skip

    async def incarnation(self) -> int:
        """Register a dispatcher's life."""
        return await self.connection.fetchval(
            "INSERT INTO incarnation (host_key, pid) VALUES ('h', 1) RETURNING id"
        )

    async def lanes(
        self,
        count: int = 1,
        *,
        rate: float = FAST,
        burst: float = 10_000,
        connections: int = 100,
        prefix: str = "d",
    ) -> list[int]:
        """Make `count` lanes of domains of their own; their ids."""
        rows = await self.connection.fetch(
            "SELECT lane_id FROM ensure_lanes($1, $2, $3, $4) ORDER BY 1",
            [f"{prefix}{i}.example" for i in range(count)], [rate] * count, [burst] * count, [connections] * count,
        )  # fmt: skip
        return [row[0] for row in rows]

    async def flow(
        self, lane: int, *, site: int = 1, priority: int = 1, broadcast: int = 0, weight: float = 1.0
    ) -> int:
        """Make a flow; its id."""
        flow = await self.connection.fetchval(
            "SELECT flow_id FROM ensure_flows($1, $2::smallint, $3, $4)", [lane], priority, site, broadcast
        )
        if weight != 1.0:
            await self.connection.execute("UPDATE flow SET weight = $2 WHERE id = $1", flow, weight)
        return flow

    async def fill(
        self,
        flow: int,
        count: int,
        *,
        wake: bool = True,
        due_in_s: float = 0.0,
        expires_in_s: float = 86_400.0,
        domain: str = "d0.example",
        recipients: Sequence[str] | None = None,
    ) -> list[int]:
        """Accept deliveries into a flow, in as many transactions as they need; their ids."""
        lane, site, priority, broadcast = await self.connection.fetchrow(
            "SELECT lane_id, site_id, priority, broadcast_id FROM flow WHERE id = $1", flow
        )
        made: list[int] = []
        for start in range(0, count, 1024):
            n = min(1024, count - start)
            number = await self.connection.fetchval("SELECT nextval('acceptance_id')")
            now = datetime.now(UTC)
            ids = [number * 1024 + place for place in range(n)]
            names = recipients[start : start + n] if recipients else [f"u{i}@{domain}" for i in ids]
            await self.connection.execute(
                "SELECT accept_deliveries($1, $2, $3::smallint, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                site, broadcast, priority, now, ids, [number] * n, names, [None] * n, [lane] * n, [flow] * n,
                [now + timedelta(seconds=due_in_s)] * n, [now + timedelta(seconds=expires_in_s)] * n,
            )  # fmt: skip
            made += ids
        if wake and made:
            await self.wake([flow], [made[0]])
        return made

    async def wake(self, flows: Sequence[int], seqs: Sequence[int]) -> None:
        await self.connection.execute("SELECT wake($1, $2)", flows, seqs)

    async def claim(
        self,
        total: int = 1_000,
        *,
        per_lane: int = 100,
        slots: int = 2,
        busy: dict[int, int] | None = None,
        urgent_only: bool = False,
        lanes: int = 100,
        since: datetime | None = None,
    ) -> list[Row]:
        """Claim; `since` is where `ready_floor` says, unless given. A lane's share of the total counts whether it has the rows or not."""
        if since is None:
            since = await self.connection.fetchval("SELECT ready_floor()")
        # A lane is not asked twice within a millisecond of the server's clock, which a quick machine would do here.
        await self.connection.execute("SELECT pg_sleep(0.0012)")
        rows = await self.connection.fetch(
            CLAIM, self.owner, self.alive, total, per_lane, slots, list(busy or {}), list((busy or {}).values()),
            urgent_only, since, lanes,
        )  # fmt: skip
        return [Row(*row) for row in rows]

    async def take(self, total: int = 1_000, **options: Any) -> list[int]:
        """Claim, and give the ids in the order of leaving."""
        return [row.id for row in await self.claim(total, **options) if row.id is not None]

    async def acknowledge(
        self,
        rows: Iterable[Row],
        state: str = "delivered",
        *,
        owner: int | None = None,
        epoch: int | None = None,
        wait_s: float = 0.0,
        counts: bool = True,
        code: int | None = 250,
        reply: str | None = "ok",
        suppress: str | None = None,
    ) -> int:
        """Tell one outcome of all these rows; how many took effect."""
        told = [row for row in rows if row.id is not None]
        n = len(told)
        return await self.connection.fetchval(
            ACKNOWLEDGE, owner or self.owner, [row.id for row in told],
            [row.epoch if epoch is None else epoch for row in told], [state] * n, [counts] * n, [wait_s] * n,
            [code] * n, [None] * n, [reply] * n, ["ok"] * n, [suppress] * n,
        )  # fmt: skip

    async def release(self, rows: Iterable[Row]) -> int:
        back = [row for row in rows if row.id is not None]
        return await self.connection.fetchval(
            "SELECT release($1, $2, $3)", self.owner, [row.id for row in back], [row.epoch for row in back]
        )

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for every lane and waiting row: what they wait for moves into the past."""
        await self.lanes_wait(seconds)
        await self.connection.execute(
            "UPDATE queue SET due_at = due_at - $1::interval, expires_at = expires_at - $1::interval", timedelta(seconds=seconds)
        )  # fmt: skip

    async def lanes_wait(self, seconds: float) -> None:
        """Let time pass for every lane alone."""
        await self.connection.execute(
            "UPDATE lane_state SET tat = tat - $1::interval, token_at = token_at - $1::interval, "
            "suspended_until = suspended_until - $1::interval",
            timedelta(seconds=seconds),
        )

    async def hold(self, kind: str, ref: int = 0, why: str = "paused") -> None:
        await self.connection.execute("INSERT INTO hold (kind, ref, why) VALUES ($1, $2, $3)", kind, ref, why)

    async def unhold(self, kind: str, ref: int = 0) -> None:
        await self.connection.execute("DELETE FROM hold WHERE kind = $1 AND ref = $2", kind, ref)

    async def row(self, delivery: int) -> asyncpg.Record | None:
        """The delivery's row in the queue."""
        return await self.connection.fetchrow("SELECT * FROM queue WHERE id = $1", delivery)

    async def state_of(self, delivery: int) -> str:
        """Where a delivery stands, open or ended."""
        return await self.connection.fetchval(
            "SELECT state::text FROM queue WHERE id = $1 UNION ALL SELECT state::text FROM ended WHERE id = $1", delivery
        )  # fmt: skip

    async def states(self) -> dict[str, int]:
        """How many deliveries stand in each state."""
        return dict(
            await self.connection.fetch(
                "SELECT state::text, count(*) FROM (SELECT state FROM queue UNION ALL SELECT state FROM ended) s GROUP BY 1"
            )
        )

    async def lane_state(self, lane: int) -> asyncpg.Record:
        """The lane's bucket and what a claim would look at."""
        row = await self.connection.fetchrow(
            "SELECT *, ready_at <= clock_timestamp() AS ready, next_due = 'infinity' AS asleep FROM lane_state WHERE lane_id = $1", lane
        )  # fmt: skip
        assert row is not None
        return row


async def until(condition: Callable[[], Awaitable[object]], *, timeout_s: float = 20.0) -> None:
    """Wait for something that another process does. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)


def explained(message: str) -> dict[str, Any]:
    """The plan in a message of auto_explain with `log_format = json`."""
    return msgspec.json.decode(message[message.index("{") :])["Plan"]


def nodes(plan: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """A plan's nodes, the top one first."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)
