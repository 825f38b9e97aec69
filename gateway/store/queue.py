"""The queue, from a dispatcher's side: claim, acknowledge, hand back, upkeep.

Owns the calls and the decoding of their rows; what they do is in `sql/migrations`, from `0006` on, with the reasons. Every
call is one round trip and one transaction. Must not know SMTP or what a reply means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from gateway.clock import Clock
from gateway.model.delivery import Granted, Leased, Result
from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("queue")

TURN_SLACK_S: Final = 0.001
"""How much later than its grant's turn a delivery may leave where more waits behind it: what `throttle.bucket.PACE` makes room for."""

TURN_MAX_S: Final = 10.0
"""Longest turn, however slow the lane: tokens of a large bucket are no reason to sit on deliveries."""


class ClaimLimits(msgspec.Struct, frozen=True):
    """What one dispatcher may take in one claim.

    `rows` in all; `rows_per_lane` and `slots` (connections wanted) for a lane that is not busy here; `lanes` looked at.
    """

    rows: int
    rows_per_lane: int
    slots: int
    lanes: int


class ServerClock:
    """Where Postgres's clock stands on this process's monotonic clock.

    Each exchange bounds the difference: the server read its clock between our sending and our receiving. The least upper
    bound of the last seconds is used, so that nothing leaves early; a server clock that jumped starts anew.
    """

    def __init__(self, window_s: float = 10.0) -> None:
        self._window_s = window_s
        self._uppers: deque[tuple[float, float]] = deque()  # (received at, received at - server's reading)
        self._difference = 0.0

    def observe(self, sent_at: float, server_at: float, received_at: float) -> None:
        """Take one exchange: our two monotonic readings around the server's clock (seconds since the epoch)."""
        if self._uppers and self._difference < sent_at - server_at:
            self._uppers.clear()
        self._uppers.append((received_at, received_at - server_at))
        while self._uppers[0][0] < received_at - self._window_s:
            self._uppers.popleft()
        self._difference = min(upper for _, upper in self._uppers)

    def monotonic(self, server_at: float) -> float:
        """Return the moment on our monotonic clock when the server's clock shows `server_at`; never too early."""
        return server_at + self._difference


class Queue:
    """One dispatcher's view of the queue, under its incarnation."""

    # Mutable on purpose: the floor of ready lanes and the clock's difference are carried from claim to claim.
    def __init__(self, owner: int, clock: Clock, late_tolerance_s: float) -> None:
        self._owner, self._clock, self._late_tolerance_s = owner, clock, late_tolerance_s
        self._server_clock = ServerClock()
        self._floor: datetime | None = None
        self._floor_until = 0.0

    async def claim(
        self,
        connection: Connection,
        limits: ClaimLimits,
        *,
        alive: Sequence[int],
        busy: Mapping[int, int],
        urgent_only: bool = False,
    ) -> list[Granted]:
        """Lease what may leave now or within a quantum. `busy`: lanes at work here and the rows each may still take.

        A lane with no connection slot free comes with `slots` 0 and no deliveries.

        Raises:
            StoreUnavailable: Postgres went away; what was claimed, if anything, is handed back by `release_unknown`.
        """
        with outages_named("claiming deliveries"):
            if self._floor is None or self._clock.monotonic() >= self._floor_until:
                await self._look_for_floor(connection)
            sent_at = self._clock.monotonic()
            rows = await connection.fetch(
                _SQL.claim,
                self._owner,
                alive,
                limits.rows,
                limits.rows_per_lane,
                limits.slots,
                list(busy),
                list(busy.values()),
                urgent_only,
                self._floor,
                limits.lanes,
            )
        if rows:
            self._server_clock.observe(sent_at, rows[0]["claimed_at"], self._clock.monotonic())
        grants: dict[int, Granted] = {}
        for row in rows:
            (delivery_id, epoch, lane_id, site_id, message_id, broadcast_id, priority, attempts, crashes, doubts, recipient,
             variables, accepted_at, expires_at, suppressed, leave_at, turn_ends, claimed_at, more, peak_per_s, burst, slots) = row  # fmt: skip
            if (grant := grants.get(lane_id)) is None:
                grant = grants[lane_id] = Granted(lane_id, peak_per_s, int(burst), slots, [])
            if delivery_id is not None:
                planned_at = self._server_clock.monotonic(max(leave_at, claimed_at))
                # Where more waits, the tokens after ours are somebody's: what is late gives way to them.
                late_at = self._server_clock.monotonic(min(turn_ends, claimed_at + TURN_MAX_S)) + (
                    TURN_SLACK_S if more else self._late_tolerance_s
                )
                grant.deliveries.append(
                    Leased(
                        delivery_id, epoch, lane_id, site_id, message_id, broadcast_id, priority, attempts, crashes, doubts,
                        recipient, variables, accepted_at, expires_at, suppressed, planned_at, late_at,
                        self._server_clock.monotonic(expires_at.timestamp()),
                    )
                )  # fmt: skip
        return list(grants.values())

    async def _look_for_floor(self, connection: Connection) -> None:
        sent_at = self._clock.monotonic()
        row = await connection.fetchrow(_SQL.ready_floor)
        assert row is not None
        self._floor = row["floor"]
        now = self._clock.monotonic()
        self._floor_until = now + 1.0
        # The shortest exchange there is: a claim takes milliseconds, and each dispatcher's would be off by other ones.
        self._server_clock.observe(sent_at, row["clock"], now)

    async def acknowledge(
        self, connection: Connection, results: Sequence[Result], owner: int | None = None
    ) -> int:
        """Write the outcomes of attempts, made by us or (journal replay) by `owner`; return how many rows took effect.

        Raises:
            StoreUnavailable: nothing was written, or its answer was lost: call again, it is idempotent.
        """
        with outages_named("acknowledging deliveries"):
            return await _number(
                connection,
                _SQL.acknowledge,
                owner or self._owner,
                [r.id for r in results],
                [r.epoch for r in results],
                [r.state for r in results],
                [r.counts for r in results],
                [r.wait_s for r in results],
                [r.code for r in results],
                [r.enhanced for r in results],
                [r.reply for r in results],
                [r.bounce_class for r in results],
                [r.suppress for r in results],
            )

    async def release(self, connection: Connection, deliveries: Iterable[Leased]) -> int:
        """Hand deliveries back that were not begun; return how many were still ours."""
        back = list(deliveries)
        with outages_named("handing deliveries back"):
            return await _number(
                connection, _SQL.release, self._owner, [d.id for d in back], [d.epoch for d in back]
            )

    async def release_unknown(self, connection: Connection, known: Iterable[int]) -> int:
        """Hand back what we hold in the database but not in memory: the answer of a claim was lost."""
        with outages_named("handing unknown deliveries back"):
            return await _number(connection, _SQL.release_unknown, self._owner, list(known))

    async def release_slots(self, connection: Connection, lanes: Sequence[int]) -> None:
        """Give up our connection slots in lanes that went idle."""
        with outages_named("giving up connection slots"):
            await connection.execute(_SQL.release_slots, self._owner, lanes)

    async def suspend_lanes(self, connection: Connection, waits: Mapping[int, tuple[float, str]]) -> None:
        """Let lanes wait: lane → (seconds, why)."""
        with outages_named("suspending lanes"):
            await connection.execute(
                _SQL.suspend_lanes,
                list(waits),
                [w[0] for w in waits.values()],
                [w[1] for w in waits.values()],
            )

    async def messages(self, connection: Connection, ids: Sequence[int]) -> Sequence[Mapping[str, object]]:
        """Content, sender and sealed key of some messages, as rows."""
        with outages_named("loading messages"):
            return await connection.fetch(_SQL.messages, ids)


async def holds(connection: Connection) -> dict[tuple[str, int], str]:
    """What is held now: (kind, reference) → why."""
    with outages_named("reading holds"):
        return {(row["kind"], row["ref"]): row["why"] for row in await connection.fetch(_SQL.holds)}


class Promoted(msgspec.Struct, frozen=True):
    """What one promotion did, in rows."""

    promoted: int
    expired: int
    unresolved: int


async def promote(connection: Connection, limit: int, shard: int) -> Promoted:
    """Wake deliveries whose time has come; end those that expired while they waited. Deterministic in batches of `limit`."""
    with outages_named("promoting deferred deliveries"):
        row = await connection.fetchrow(_SQL.promote, limit, shard)
    return Promoted(row["promoted"], row["expired"], row["unresolved"]) if row else Promoted(0, 0, 0)


async def expire_ready(connection: Connection, limit: int, shard: int) -> int:
    """End deliveries that expired while they were ready or held; return how many."""
    with outages_named("expiring deliveries"):
        return await _number(connection, _SQL.expire_ready, limit, shard)


async def sweep(connection: Connection) -> int:
    """Wake flows with ready rows that no claim would look at (a process died between insert and wake); return how many."""
    with outages_named("sweeping for sleepers"):
        return await _number(connection, _SQL.sweep)


async def reap(connection: Connection, flow_idle: timedelta, lane_idle: timedelta, limit: int) -> int:
    """Remove flows and lanes idle for so long; return how many."""
    with outages_named("reaping idle flows and lanes"):
        return await _number(connection, _SQL.reap, flow_idle, lane_idle, limit)


async def make_partitions(connection: Connection, days_ahead: int) -> int:
    """Make the partitions of the days ahead; return how many were missing. Needs the role `gateway_maintain`."""
    with outages_named("making partitions"):
        return await _number(connection, _SQL.make_partitions, days_ahead)


class LaneLimits(msgspec.Struct, frozen=True):
    """A lane and the limits it has; `own_…`: those of them that an operator gave it for a time."""

    lane_id: int
    name: str
    rate_per_s: float
    burst: float
    max_connections: int
    own_rate_per_s: float | None = None
    own_burst: float | None = None
    own_max_connections: int | None = None


async def lane_limits(connection: Connection, after: int, limit: int) -> list[LaneLimits]:
    """The limits of up to `limit` lanes, by id, after lane `after`."""
    with outages_named("reading lanes"):
        return [LaneLimits(*row) for row in await connection.fetch(_SQL.lane_limits, after, limit)]


async def set_lane_limits(connection: Connection, limits: Sequence[LaneLimits]) -> None:
    """Give lanes new limits, less those that an operator gave them for a time; what they owe is rescaled to the new rate."""
    with outages_named("changing lanes' limits"):
        await connection.execute(
            _SQL.set_lane_limits,
            [x.lane_id for x in limits],
            [x.rate_per_s for x in limits],
            [x.burst for x in limits],
            [x.max_connections for x in limits],
        )


async def _number(connection: Connection, query: str, *args: object) -> int:
    return int(await connection.fetchval(query, *args) or 0)
