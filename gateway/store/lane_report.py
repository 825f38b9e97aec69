"""Every lane with all that stands in it, by state, and who may send it: the long look of an operator.

Owns that look, which reads the whole queue. The short one, counted up to a bound, and an operator's hand on lanes: `store/lanes`. Needs the
role `gateway_dispatch`.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("lane_report")


class LaneReport(msgspec.Struct, frozen=True):
    """A lane: its limits, its bucket, and its open deliveries by state.

    Attributes:
        connections: slots that living dispatchers have, of `max_connections`.
        owes_s: how far ahead its tokens are spent.
        spent: no claim now: the tokens of its last grant are used up.
        suspended_until: None, while `suspended`: until it is resumed.
        paused: of the `queued`, those of paused broadcasts and of sites on hold.
        site_held: of those, the ones of sites on hold.
        next_due_at: when the first of the `deferred` and `in_doubt` is looked at again.
    """

    id: int
    name: str
    rate_per_s: float
    burst: float
    max_connections: int
    connections: int
    owes_s: float
    spent: bool
    suspended: bool
    suspended_until: datetime | None
    suspended_why: str
    queued: int
    paused: int
    site_held: int
    leased: int
    deferred: int
    held: int
    in_doubt: int
    next_due_at: datetime | None


class Fleet(msgspec.Struct, frozen=True):
    """Dispatchers that live by their own word, and why all claiming is stopped (None: it is not)."""

    dispatchers: int
    stopped: str | None


async def report_lanes(
    connection: Connection, *, lane_id: int | None = None, idle: bool = False, limit: int = 50
) -> list[LaneReport]:
    """Up to `limit` lanes, the longest backlog first; with `idle` those with nothing to do too. Reads the whole queue."""
    with outages_named("reading lanes"):
        return [LaneReport(*row) for row in await connection.fetch(_SQL.lanes, lane_id, idle, limit)]


async def read_fleet(connection: Connection) -> Fleet:
    """Who claims at all."""
    with outages_named("reading the fleet"):
        row = await connection.fetchrow(_SQL.fleet)
    assert row is not None
    return Fleet(*row)
