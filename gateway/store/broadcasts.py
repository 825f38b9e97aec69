"""Broadcasts: their rows, their audience, their holds, their counts.

Owns the SQL of both sides: what an app does (under row-level security, in `store/tenancy.as_site`), and what the scheduler
does (role `gateway_dispatch`, every site). Must not know which transition is allowed: that is `model/broadcast`, and who
changes a state here has locked the row and looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import asyncpg
import msgspec

from gateway.errors import NotFound
from gateway.model.broadcast import BroadcastState
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("broadcasts")


class NewBroadcast(msgspec.Struct, frozen=True):
    """A broadcast to make; its list, template and domain are the site's own."""

    name: str
    list_id: int
    template_id: int
    domain_id: int
    sender: str
    reply_to: str
    expires_in_s: int


class Broadcast(msgspec.Struct, frozen=True):
    """One broadcast. `audience_until` and `cursor` are places on its list; `message_id` is its pinned content."""

    id: int
    site_id: int
    name: str
    list_id: int
    template_id: int
    domain_id: int
    sender: str
    reply_to: str
    state: BroadcastState
    paused_by: str
    message_id: int | None
    expires_in_s: int
    audience_until: int | None
    cursor: int
    expanded: bool
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Member(msgspec.Struct, frozen=True, gc=False):
    """One of an audience: its place on the list, where it is written to, and what a template may say of it (JSON)."""

    seq: int
    email: str
    domain: str
    variables: str


class Counts(msgspec.Struct, frozen=True):
    """The books of one broadcast: `accepted` is the sum of `states`, in which zeros may be left out."""

    accepted: int
    states: Mapping[str, int]


async def create_broadcast(connection: Connection, site_id: int, new: NewBroadcast) -> Broadcast:
    """Make a draft."""
    row = await connection.fetchrow(
        _SQL.create_broadcast, site_id, new.name, new.list_id, new.template_id, new.domain_id, new.sender, new.reply_to,
        new.expires_in_s,
    )  # fmt: skip
    assert row is not None
    return _broadcast(row)


async def list_broadcasts(connection: Connection, site_id: int, after: int, limit: int) -> list[Broadcast]:
    """Up to `limit` broadcasts of a site with ids above `after`."""
    return [_broadcast(row) for row in await connection.fetch(_SQL.broadcasts, site_id, after, limit)]


async def get_broadcast(connection: Connection, broadcast_id: int, *, lock: bool = False) -> Broadcast:
    """One broadcast; with `lock` nobody else changes it until the transaction ends.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_SQL.lock_broadcast if lock else _SQL.broadcast, broadcast_id)
    if row is None:
        raise NotFound("no such broadcast")
    return _broadcast(row)


async def set_state(
    connection: Connection, broadcast_id: int, state: BroadcastState, paused_by: str = ""
) -> Broadcast:
    """Change the state of a broadcast that this transaction has locked."""
    row = await connection.fetchrow(_SQL.set_state, broadcast_id, state, paused_by)
    if row is None:
        raise NotFound("no such broadcast")
    return _broadcast(row)


async def freeze(connection: Connection, broadcast_id: int, message_id: int) -> Broadcast:
    """Begin a launch: the audience is who is on the list now, the content what the template says now.

    Pins the content as message `message_id`, in the same transaction.
    """
    await connection.execute(_SQL.pin_message, broadcast_id, message_id)
    row = await connection.fetchrow(_SQL.freeze, broadcast_id, message_id)
    if row is None:
        raise NotFound("no such broadcast")
    return _broadcast(row)


async def hold(connection: Connection, broadcast_id: int, why: str) -> None:
    """Hold a broadcast's deliveries back without touching them: `paused` or `cancelled`."""
    await connection.execute(_SQL.hold, broadcast_id, why)


async def unhold(connection: Connection, broadcast_id: int) -> None:
    """Take a pause's hold away; what it parked wakes by `wake`, after the commit."""
    await connection.execute(_SQL.unhold, broadcast_id)


async def wake(connection: Connection, broadcast_id: int) -> None:
    """Wake what a hold had parked, of a broadcast that the transaction may see."""
    await connection.execute(_SQL.wake_broadcast, broadcast_id)


async def counts(connection: Connection, broadcast_id: int) -> Counts:
    """Read the books of one broadcast in one snapshot.

    The ready ones are accepted less all others: counting a million rows for a progress bar would cost more than sending.
    """
    rows = await connection.fetch(_SQL.counts, broadcast_id)
    numbers: dict[str, int] = {row["entry"]: row["n"] for row in rows}
    accepted = numbers.pop("accepted", 0)
    numbers["queued"] = accepted - sum(numbers.values())
    return Counts(accepted, numbers)


# What the scheduler does.


async def working(connection: Connection) -> list[Broadcast]:
    """Broadcasts with something to do: to expand, to complete, or to clear away after a cancel."""
    return [_broadcast(row) for row in await connection.fetch(_SQL.working)]


async def lock_to_expand(connection: Connection, broadcast_id: int) -> Broadcast | None:
    """Take a broadcast for one chunk; None when another scheduler has it, or there is nothing to expand any more."""
    row = await connection.fetchrow(_SQL.lock_to_expand, broadcast_id)
    return _broadcast(row) if row else None


async def audience(connection: Connection, broadcast: Broadcast, limit: int) -> list[Member]:
    """The next members of a frozen audience after its cursor."""
    rows = await connection.fetch(
        _SQL.audience, broadcast.list_id, broadcast.cursor, broadcast.audience_until, limit
    )
    return [Member(*row) for row in rows]


async def advance(connection: Connection, broadcast_id: int, cursor: int, *, expanded: bool) -> None:
    """Move the cursor, in the transaction that accepted what it passes."""
    await connection.execute(_SQL.advance, broadcast_id, cursor, expanded)


async def complete(connection: Connection, broadcast_id: int) -> bool:
    """End a broadcast all of whose deliveries have ended: sending becomes completed, a cancelled one stays so.

    Returns whether it was ended now: the compare and set of two schedulers' race.
    """
    return await connection.fetchval(_SQL.complete, broadcast_id) is not None


async def cancel_rows(connection: Connection, broadcast_id: int, limit: int) -> int:
    """End up to `limit` waiting deliveries of a cancelled broadcast (or twice that); return how many."""
    return await connection.fetchval(_SQL.cancel_rows, broadcast_id, limit) or 0


def _broadcast(row: asyncpg.Record) -> Broadcast:
    return msgspec.convert(dict(row), Broadcast)
