"""What a person may ask of a site: to see what it keeps of them, and to be forgotten.

Owns both. An address is forgotten in parts (`erase_step`, role `schedule`), since no index leads from an address to what was sent to it:
the site's messages are walked in their order, and a site may have many. The books are not touched: a delivery keeps its number and its
state, and loses who it went to. A suppression stays: it is what keeps the address from being written to again. Must not know HTTP.
Functions but the last work in the transaction of a site (`store/tenancy.as_site`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.errors import NotFound
from gateway.model.ids import PLACES
from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("privacy")
_BEGIN_ERASURE = _SQL.begin_erasure
_FORGET_CONTACT = _SQL.forget_contact
_ERASURES = _SQL.erasures
_ERASURE = _SQL.erasure
_ERASE_STEP = _SQL.erase_step
_LISTS_OF = _SQL.lists_of
_PLACE_OF = _SQL.place_of
_SENT_TO = _SQL.sent_to

BEGINS_IN_S: Final = 15.0
"""A message's number is taken some seconds before it is committed, and the walk passes a number once."""
LOOK: Final = 10_000
"""Deliveries that one look goes over, about: a part of an erasure, or a page of what was sent."""
_LOOK_AGAIN_S: Final = 60.0


class Erasure(msgspec.Struct, frozen=True):
    """One address that is being forgotten, or was: which one is forgotten too. `deliveries`: how many went to it, as far as it came."""

    id: int
    deliveries: int
    created_at: datetime
    ended_at: datetime | None


class Part(msgspec.Struct, frozen=True):
    """A part of an erasure that was done."""

    erasure_id: int
    deliveries: int
    is_last: bool


class Membership(msgspec.Struct, frozen=True):
    """A list that a contact is on."""

    list_id: int
    name: str
    added_at: datetime


class Sent(msgspec.Struct, frozen=True):
    """One delivery to somebody."""

    id: int
    message_id: int
    broadcast_id: int | None
    stream: str
    sender: str
    subject: str
    state: str
    accepted_at: datetime
    ended_at: datetime | None


class SentTo(msgspec.Struct, frozen=True):
    """What a look found. `until`: the number behind which the next one goes on, where there may be `more`."""

    sent: list[Sent]
    until: int
    more: bool


async def begin_erasure(connection: Connection, site_id: int, address: str) -> Erasure:
    """Remove the contact with an address, if there is one, and ask that the address be forgotten everywhere else."""
    await connection.execute(_FORGET_CONTACT, site_id, address)
    row = await connection.fetchrow(_BEGIN_ERASURE, site_id, address, BEGINS_IN_S)
    assert row is not None
    return Erasure(*row)


async def list_erasures(connection: Connection, site_id: int, after: int, limit: int) -> list[Erasure]:
    """Up to `limit` erasures of a site with ids above `after`."""
    return [Erasure(*row) for row in await connection.fetch(_ERASURES, site_id, after, limit)]


async def get_erasure(connection: Connection, erasure_id: int) -> Erasure:
    """One erasure.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_ERASURE, erasure_id)
    if row is None:
        raise NotFound("no such erasure")
    return Erasure(*row)


async def list_memberships(connection: Connection, contact_id: int) -> list[Membership]:
    """The lists that a contact is on."""
    return [Membership(*row) for row in await connection.fetch(_LISTS_OF, contact_id)]


async def find_sent(
    connection: Connection, site_id: int, address: str, after: int, limit: int, look: int = LOOK
) -> SentTo:
    """What a site sent to an address, among the next `look` deliveries behind `after`, the `until` of the look before (0: from the start).

    About `limit`: those of one acceptance stay together.
    """
    acceptance = after // PLACES
    message = await connection.fetchval(_PLACE_OF, acceptance) if after else 0
    rows = await connection.fetch(_SENT_TO, site_id, address, message or 0, acceptance, look)
    until, more = rows[0]["until"], rows[0]["more"]
    sent = [Sent(*tuple(row)[2:]) for row in rows if row["id"] is not None]
    if len(sent) > limit:
        until = sent[limit - 1].id // PLACES
        more = more or sent[-1].id // PLACES != until
        sent = sent[:limit] + [one for one in sent[limit:] if one.id // PLACES == until]
    return SentTo(sent, (until or 0) * PLACES + PLACES - 1, more)


async def erase_step(connection: Connection, look: int = LOOK) -> Part | None:
    """Do a part of an erasure that is due, of any site; None when none is, or when a claim was in its way. Call again after a part.

    Raises:
        StoreUnavailable: Postgres went away.
    """
    with outages_named("forgetting an address"):
        try:
            row = await connection.fetchrow(_ERASE_STEP, look, _LOOK_AGAIN_S)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            return None
    return Part(*row) if row is not None and row["erasure"] is not None else None
