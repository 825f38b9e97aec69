"""Lanes as operators see them, and what they may do to them: other limits for a time, suspend, resume.

Owns reading them and an operator's hand; what dispatchers do to lanes is in `store/queue`, what keeps them to the throttles in
`dispatch/limits`. Functions work in an operator's transaction (`store/tenancy.as_site`): a lane is of no site; the last two under the role
`gateway_dispatch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.errors import NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection
from gateway.store.queue import LaneLimits

_SQL = load("lanes")
_OWN: Final = 12
"""Columns of a lane's own, before those of its override."""


class Override(msgspec.Struct, frozen=True):
    """Limits that an operator gave a lane for a time; None: as the throttles say."""

    rate_per_s: float | None
    burst: float | None
    max_connections: int | None
    until_at: datetime
    why: str
    created_at: datetime


class Lane(msgspec.Struct, frozen=True):
    """One lane as it stands. `tokens`: how many might leave at once; `owes_s`: until the bucket is full.

    `ready` and `waiting` (for another try) are counted up to a bound. `leased`: what dispatchers have in hand.
    """

    id: int
    name: str
    source: str
    rate_per_s: float
    burst: float
    max_connections: int
    tokens: float
    owes_s: float
    suspended: bool
    suspended_until: datetime | None
    suspended_why: str
    used_at: datetime
    override: Override | None
    ready: int
    waiting: int
    leased: int


class FleetHold(msgspec.Struct, frozen=True):
    """Why all sending is stopped, and since when."""

    why: str
    since: datetime


class Overridden(msgspec.Struct, frozen=True):
    """A lane to which an operator gave limits, which may be over."""

    limits: LaneLimits
    is_over: bool


async def list_lanes(
    connection: Connection,
    after: int,
    limit: int,
    *,
    domain: str | None = None,
    suspended: bool = False,
    most: int,
) -> list[Lane]:
    """Up to `limit` lanes with ids above `after`, only a domain's, only suspended ones; backlogs are counted up to `most` each."""
    rows = await connection.fetch(_SQL.lanes, after, limit, domain, suspended)
    counted = await connection.fetch(_SQL.backlogs, [row["id"] for row in rows], most)
    backlogs = {row["lane_id"]: (row["ready"], row["waiting"], row["leased"]) for row in counted}
    found: list[Lane] = []
    for row in rows:
        own, limits = tuple(row)[:_OWN], tuple(row)[_OWN:]
        override = Override(*limits) if row["until_at"] is not None else None
        ready, waiting, leased = backlogs[row["id"]]
        found.append(Lane(*own, override=override, ready=ready, waiting=waiting, leased=leased))
    return found


async def get_lane(connection: Connection, lane_id: int, *, most: int) -> Lane:
    """One lane.

    Raises:
        NotFound: there is none.
    """
    found = await list_lanes(connection, lane_id - 1, 1, most=most)
    if not found or found[0].id != lane_id:
        raise NotFound("no such lane")
    return found[0]


async def fleet_hold(connection: Connection) -> FleetHold | None:
    """What stops all sending, or None."""
    row = await connection.fetchrow(_SQL.fleet_hold)
    return FleetHold(*row) if row is not None else None


async def limit_lane(
    connection: Connection,
    lane_id: int,
    *,
    rate_per_s: float | None,
    burst: float | None,
    max_connections: int | None,
    for_s: float,
    why: str,
) -> None:
    """Give a lane limits for some seconds, at once; those of before end.

    Raises:
        NotFound: there is no such lane.
    """
    given = (rate_per_s, burst, max_connections)
    if not await connection.fetchval(_SQL.limit_lane, lane_id, *given, for_s, why):
        raise NotFound("no such lane")


async def unlimit_lane(connection: Connection, lane_id: int) -> bool:
    """End the limits that an operator gave a lane: within seconds it has those of the throttles. False: there are none."""
    return bool(await connection.fetchval(_SQL.unlimit_lane, lane_id))


async def suspend_lane(connection: Connection, lane_id: int, for_s: float | None, why: str) -> None:
    """Let nothing leave through a lane for some seconds, or (None) until it is resumed; what dispatchers have in hand still goes.

    Raises:
        NotFound: there is no such lane.
    """
    if not await connection.fetchval(_SQL.suspend_lane, lane_id, for_s, why):
        raise NotFound("no such lane")


async def resume_lane(connection: Connection, lane_id: int) -> bool:
    """Let a lane go on at once. False: it is not suspended."""
    return bool(await connection.fetchval(_SQL.resume_lane, lane_id))


async def list_overrides(connection: Connection) -> list[Overridden]:
    """The lanes to which operators gave limits, those that are over too."""
    rows = await connection.fetch(_SQL.overrides)
    return [Overridden(LaneLimits(*tuple(row)[:-1]), row["is_over"]) for row in rows]


async def forget_overrides(connection: Connection, lane_ids: Sequence[int]) -> None:
    """Remove limits of lanes that are over."""
    await connection.execute(_SQL.forget_overrides, lane_ids)
