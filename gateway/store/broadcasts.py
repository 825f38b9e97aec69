"""Broadcasts: their rows, their audience, their holds, their counts.

Owns the SQL of both sides: what an app does (under row-level security, in `store/tenancy.as_site`), and what the scheduler
does (role `gateway_dispatch`, every site). Must not know which transition is allowed: that is `model/broadcast`, and who
changes a state here has locked the row and looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.errors import NotFound
from gateway.model.broadcast import BroadcastState
from gateway.model.ids import PLACES
from gateway.store.catalogue import load
from gateway.store.messages import Delivery
from gateway.store.pool import Connection

_SQL = load("broadcasts")

LOOK: Final = 50
"""Acceptances (of 1,000 deliveries each) that one page of deliveries looks into, at most."""
REASONS_SHOWN: Final = 50
_EVERY_PLACE: Final = (1 << 63) - 1


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
    """One broadcast. `audience_until` and `cursor` are places on its list; `message_id` is its pinned content; `detail`: why it failed."""

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
    scheduled_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    detail: str


class Member(msgspec.Struct, frozen=True, gc=False):
    """One of an audience: its place on the list, where it is written to, and what a template may say of it (JSON)."""

    seq: int
    email: str
    domain: str
    variables: str


class Reach(msgspec.Struct, frozen=True):
    """Whom a broadcast would reach: the members of its list, and those among them to whom nothing is sent, by the suppression's reason."""

    audience: int
    excluded: Mapping[str, int]

    @property
    def recipients(self) -> int:
        """How many are written to."""
        return self.audience - sum(self.excluded.values())


class DeliveriesFound(msgspec.Struct, frozen=True):
    """Deliveries that fit, and up to which id was looked; `more`: there may be others behind it."""

    deliveries: list[Delivery]
    until: int
    more: bool


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


async def change_broadcast(connection: Connection, broadcast_id: int, new: NewBroadcast) -> Broadcast:
    """Give a draft that this transaction has locked other contents."""
    row = await connection.fetchrow(
        _SQL.change_broadcast, broadcast_id, new.name, new.list_id, new.template_id, new.domain_id, new.sender, new.reply_to,
        new.expires_in_s,
    )  # fmt: skip
    if row is None:
        raise NotFound("no such draft")
    return _broadcast(row)


async def delete_broadcast(connection: Connection, broadcast_id: int) -> None:
    """Remove a draft that this transaction has locked."""
    if await connection.fetchval(_SQL.delete_broadcast, broadcast_id) is None:
        raise NotFound("no such draft")


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


async def schedule(connection: Connection, broadcast_id: int, send_at: datetime) -> Broadcast:
    """Have a broadcast that this transaction has locked launched at a time, or at another one."""
    row = await connection.fetchrow(_SQL.schedule, broadcast_id, send_at)
    if row is None:
        raise NotFound("no such broadcast")
    return _broadcast(row)


async def fail(connection: Connection, broadcast_id: int, detail: str) -> Broadcast:
    """End a broadcast that this transaction has locked, and that has accepted nothing, as failed."""
    row = await connection.fetchrow(_SQL.fail, broadcast_id, detail)
    if row is None:
        raise NotFound("no such broadcast")
    return _broadcast(row)


async def reach(connection: Connection, broadcast: Broadcast) -> Reach:
    """Count whom a broadcast reaches: of a frozen audience, or of all who are on its list now."""
    until = _EVERY_PLACE if broadcast.audience_until is None else broadcast.audience_until
    rows = await connection.fetch(_SQL.excluded, broadcast.list_id, broadcast.site_id, until)
    counted = sorted(
        ((row["reason"], row["n"]) for row in rows if row["reason"] is not None),
        key=lambda one: (-one[1], one[0]),
    )
    excluded = dict(counted[:REASONS_SHOWN])
    if rest := sum(n for _, n in counted[REASONS_SHOWN:]):
        excluded["other"] = excluded.get("other", 0) + rest
    return Reach(sum(row["n"] for row in rows), excluded)


async def sample(connection: Connection, broadcast: Broadcast) -> Member | None:
    """Return the first who is on a broadcast's list, or None."""
    row = await connection.fetchrow(_SQL.audience, broadcast.list_id, 0, _EVERY_PLACE, 1)
    return Member(*row) if row is not None else None


async def find_deliveries(
    connection: Connection, broadcast_id: int, state: str | None, after: int, limit: int
) -> DeliveriesFound:
    """Up to `limit` deliveries of a broadcast with ids above `after`, in their order; with `state` those in it alone.

    No more than `LOOK` acceptances are looked into, so that with `state` fewer may be found, or none, though there are `more`: go on after
    `until`. Without it some are enough: what they have beyond a page is read for nothing.
    """
    look = LOOK if state is not None else limit // PLACES + 3
    rows = await connection.fetch(_SQL.deliveries, broadcast_id, after, state, limit + 1, look)
    until, looked = rows[0]["until"], rows[0]["looked"]
    found = [Delivery(*tuple(row)[2:]) for row in rows if row["id"] is not None]
    if len(found) > limit:
        return DeliveriesFound(found[:limit], found[limit - 1].id, more=True)
    return DeliveriesFound(found, after if until is None else until, more=looked == look)


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


async def due(connection: Connection, now: datetime, limit: int) -> list[Broadcast]:
    """Up to `limit` scheduled broadcasts whose time has come, the earliest first."""
    return [_broadcast(row) for row in await connection.fetch(_SQL.due, now, limit)]


async def lock_due(connection: Connection, broadcast_id: int, now: datetime) -> bool:
    """Take a scheduled broadcast for its launch; False when another scheduler has it, or it is not due (any more)."""
    return await connection.fetchval(_SQL.lock_due, broadcast_id, now) is not None


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
