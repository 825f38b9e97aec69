"""The facts that decide when a delivery leaves, read for a page of a message's deliveries: what `model/why` explains.

Owns the queries: each is a look by key, so that the price is the same whatever waits. Must not know how it is told. Functions work in
the caller's transaction (`store/tenancy.as_site`), or under a role that sees every site.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.model.delivery import DeliveryState
from gateway.model.stream import Stream
from gateway.model.why_facts import Facts, Hold, Lane, Suppression, Surroundings
from gateway.store.catalogue import load
from gateway.store.messages import Message
from gateway.store.pool import Connection

_SQL = load("why")
_DELIVERIES = _SQL.deliveries
_FLEET = _SQL.fleet
_LANES = _SQL.lanes
_HOLDS = _SQL.holds
_SUPPRESSIONS = _SQL.suppressions
_HELD_SINCE = _SQL.held_since
_TURNS = _SQL.turns

PAGE_MAX: Final = 100
"""Deliveries that one reading may be asked for."""
AHEAD_MAX: Final = 1_000
"""As many deliveries before one are counted at most; where there are more, that is said."""
_COUNTED_MAX: Final = 4_000
"""Places before them that are counted in all their flows together."""
_LIVE: Final = "live"


class Known(msgspec.Struct, frozen=True):
    """One delivery, and what is known of it."""

    id: int
    recipient: str
    facts: Facts


async def read_facts(
    connection: Connection, message: Message, after: int, limit: int
) -> tuple[list[Known], Surroundings]:
    """Read what there is to know of up to `limit` deliveries of a message with ids above `after`, and of what is around them."""
    rows = await connection.fetch(_DELIVERIES, message.id, after, limit)
    fleet = await connection.fetchrow(_FLEET)
    assert fleet is not None
    now: datetime = fleet["now"]
    holds = await connection.fetch(_HOLDS, message.site_id, message.broadcast_id or 0)
    still_open = [row for row in rows if row["ended_at"] is None]
    lanes = await _lanes(connection, {row["lane_id"] for row in still_open}, now)
    turns = await _turns(connection, [row for row in still_open if row["state"] == DeliveryState.QUEUED])
    held = await _held_since(connection, [row for row in still_open if row["state"] == DeliveryState.HELD])
    suppressed = await _suppressions(
        connection, message.site_id, [row for row in rows if row["state"] == DeliveryState.SUPPRESSED]
    )
    known: list[Known] = []
    for row in rows:
        ahead, more_ahead, sharing = turns.get(row["id"], (0, False, 1))
        found = [
            entry
            for entry in suppressed.get(row["recipient"].lower(), ())
            if entry.scope == "all" or row["priority"] == Stream.MARKETING.priority
        ]
        facts = Facts(
            state=DeliveryState(row["state"]),
            accepted_at=row["accepted_at"],
            attempts=row["attempts"],
            broadcast_id=row["broadcast_id"],
            due_at=row["due_at"],
            expires_at=row["expires_at"],
            ended_at=row["ended_at"],
            reply=_reply(row),
            bounce_class=row["bounce_class"],
            owner_lives=row["owner_status"] == _LIVE,
            held_at=held.get(row["id"]),
            lane=lanes.get(row["lane_id"]),
            ahead=ahead,
            more_ahead=more_ahead,
            sharing=sharing,
            suppression=min(found, key=lambda entry: entry.since, default=None),
        )
        known.append(Known(row["id"], row["recipient"], facts))
    around = Surroundings(now, tuple(Hold(*row) for row in holds), dispatching=fleet["dispatching"])
    return known, around


async def _lanes(connection: Connection, ids: set[int], now: datetime) -> dict[int, Lane]:
    if not ids:
        return {}
    return {
        row["lane_id"]: Lane(
            name=row["name"],
            rate_per_s=row["rate_per_s"],
            burst=row["burst"],
            owes_s=row["owes_s"],
            suspended=row["suspended"],
            suspended_until=row["suspended_until"],
            suspended_why=row["suspended_why"],
        )
        for row in await connection.fetch(_LANES, sorted(ids), now)
    }


async def _turns(
    connection: Connection, queued: Sequence[asyncpg.Record]
) -> dict[int, tuple[int, bool, int]]:
    """Of queued deliveries: how many stand before each in its flow, whether there are more, and how many flows share the lane.

    It is counted up to the first of each flow; of the others it is known that they come behind each other.
    """
    by_flow: dict[int, list[asyncpg.Record]] = defaultdict(list)
    for row in sorted(queued, key=lambda row: (row["seq"], row["id"])):
        by_flow[row["flow_id"]].append(row)
    if not by_flow:
        return {}
    most = max(10, min(AHEAD_MAX, _COUNTED_MAX // len(by_flow)))
    counted = await connection.fetch(
        _TURNS, list(by_flow), [rows[0]["seq"] for rows in by_flow.values()], most
    )
    found: dict[int, tuple[int, bool, int]] = {}
    for flow_id, ahead, sharing in counted:
        for place, row in enumerate(by_flow[flow_id]):
            found[row["id"]] = (ahead + place, ahead >= most, sharing)
    return found


async def _held_since(connection: Connection, held: Sequence[asyncpg.Record]) -> dict[int, datetime]:
    if not held:
        return {}
    since = min(row["accepted_at"] for row in held)
    rows = await connection.fetch(_HELD_SINCE, [row["id"] for row in held], since)
    return {row["delivery_id"]: row["at"] for row in rows}


async def _suppressions(
    connection: Connection, site_id: int, rows: Sequence[asyncpg.Record]
) -> dict[str, list[Suppression]]:
    found: dict[str, list[Suppression]] = defaultdict(list)
    if rows:
        addresses = sorted({row["recipient"].lower() for row in rows})
        for address, *entry in await connection.fetch(_SUPPRESSIONS, site_id, addresses):
            found[address].append(Suppression(*entry))
    return found


def _reply(row: asyncpg.Record) -> str | None:
    """The last reply as one line; of what is open it is one already."""
    parts = [str(part) for part in (row["code"], row["enhanced"], row["reply"]) if part]
    return " ".join(parts) or None
