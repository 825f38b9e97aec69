"""What became of messages: a message, its deliveries and what happened to each; and what its sender may still do about it.

Owns reading them back, and the three actions on what has not been begun; they are written by `store/intake` and the queue's functions.
Functions work in the caller's transaction (`store/tenancy.as_site`). A message's deliveries are found through its acceptances: their
ids are ranges of the primary keys of `queue` and `ended`, so that nothing here needs an index of its own on the hot table. For the
same reason a filter looks at a bounded number of messages, and says how far it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from gateway.errors import NotFound, Unavailable
from gateway.model.delivery import Action
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("messages")
_MESSAGE = _SQL.message
_BY_INDEX = _SQL.by_index
_MESSAGES = _SQL.messages
_MESSAGE_AT = _SQL.message_at
_DELIVERIES = _SQL.deliveries
_EVENTS = _SQL.events
_CONTENT_OF_DELIVERY = _SQL.content_of_delivery
_COUNTS = _SQL.counts
_ACTIONS: Final[Mapping[Action, str]] = {
    Action.CANCEL: _SQL.cancel_message,
    Action.HOLD: _SQL.hold_message,
    Action.RELEASE: _SQL.release_message,
}

LOOK: Final = 1_000
"""Messages that one page with filters looks at, at most."""
LOOK_RECIPIENTS: Final = 10_000
"""Recipients that these have together, at most (a message more)."""
HAPPENINGS: Final = 10_000
"""What is read of what happened to a message's deliveries, at most: a delivery may be deferred for days."""
_EVERY_RECIPIENT: Final = 1 << 40
_LAST_ID: Final = (1 << 53) - 1  # its deliveries have 63 bits
_CLOCKS_APART: Final = timedelta(seconds=15)
"""How far ids and times may be out of order: numbers are kept for 5 s, and the API's hosts have clocks of their own."""


class Message(msgspec.Struct, frozen=True):
    """A message without its bodies. `template` names what its content was taken from, or is empty."""

    id: int
    site_id: int
    stream: str
    sender: str
    subject: str
    template: str
    created_at: datetime
    broadcast_id: int | None


class Listed(msgspec.Struct, frozen=True):
    """A message on a page: the first of its recipients, how many there are and how that one's delivery stands. None of a broadcast's."""

    id: int
    stream: str
    sender: str
    subject: str
    template: str
    created_at: datetime
    broadcast_id: int | None
    recipients: int | None
    first_recipient: str | None
    first_state: str | None


class Filters(msgspec.Struct, frozen=True):
    """What messages must be like: all that is given. `recipient` and `state` are of one and the same delivery."""

    stream: str | None = None
    state: str | None = None
    recipient: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    """The first moment that is not meant any more."""
    message_id: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every message fits."""
        return self == Filters(message_id=self.message_id)


class Found(msgspec.Struct, frozen=True):
    """Messages that fit, and up to which id was looked; `more`: there may be others behind it."""

    messages: list[Listed]
    until: int
    more: bool


class Delivery(msgspec.Struct, frozen=True):
    """One delivery as it stands. `reply` is the last one, or our own words; `next_at`: not before, while it waits."""

    id: int
    recipient: str
    state: str
    attempts: int
    code: int | None
    enhanced: str | None
    reply: str | None
    bounce_class: str | None
    accepted_at: datetime
    next_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None


class Happening(msgspec.Struct, frozen=True):
    """What happened to a delivery beside its end. `attempt`: how many attempts counted until then."""

    delivery_id: int
    kind: str
    at: datetime
    attempt: int
    code: int | None
    enhanced: str | None
    reply: str | None
    bounce_class: str | None


async def get_message(connection: Connection, message_id: int) -> Message:
    """One message.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_MESSAGE, message_id)
    if row is None:
        raise NotFound("no such message")
    return Message(*row)


async def find_messages(
    connection: Connection, site_id: int, filters: Filters, after: int, limit: int
) -> Found:
    """Up to `limit` messages of a site that fit, with ids above `after`, in their order.

    Without filters these are the next ones. With filters no more than `LOOK` messages are looked at, so that fewer may be found, or
    none, though there are `more`: go on after `until`.
    """
    low, high = after, _LAST_ID
    if filters.message_id is not None:
        low, high = max(low, filters.message_id - 1), filters.message_id + 1
    if filters.created_from is not None:
        low = max(low, await _message_at(connection, site_id, filters.created_from - _CLOCKS_APART) - 1)
    if filters.created_to is not None:
        high = min(high, await _message_at(connection, site_id, filters.created_to + _CLOCKS_APART))
    await connection.execute(_BY_INDEX)
    rows = await connection.fetch(
        _MESSAGES,
        site_id,
        low,
        high,
        limit + 1 if filters.is_empty else max(LOOK, limit + 1),
        _EVERY_RECIPIENT if filters.is_empty else LOOK_RECIPIENTS,
        limit + 1,
        filters.stream,
        filters.created_from,
        filters.created_to,
        filters.state,
        filters.recipient and filters.recipient.lower(),
    )
    until, more = rows[0]["until"], rows[0]["more"]
    found = [Listed(*tuple(row)[2:]) for row in rows if row["id"] is not None]
    if len(found) > limit:
        return Found(found[:limit], found[limit - 1].id, more=True)
    return Found(found, after if until is None else until, more=more)


async def _message_at(connection: Connection, site_id: int, moment: datetime) -> int:
    return await connection.fetchval(_MESSAGE_AT, site_id, moment) or 0


async def list_deliveries(connection: Connection, message_id: int, after: int, limit: int) -> list[Delivery]:
    """Up to `limit` deliveries of a message with ids above `after`, open and ended."""
    return [Delivery(*row) for row in await connection.fetch(_DELIVERIES, message_id, after, limit)]


async def list_happenings(
    connection: Connection, delivery_ids: Sequence[int], since: datetime
) -> tuple[list[Happening], bool]:
    """What happened to some deliveries since a moment before all of it, in the order in which it did; and whether there is more.

    The latest `HAPPENINGS`, where there is more.
    """
    rows = await connection.fetch(_EVENTS, delivery_ids, since, HAPPENINGS + 1)
    return [Happening(*row) for row in rows[-HAPPENINGS:]], len(rows) > HAPPENINGS


async def count_broadcast(connection: Connection, broadcast_id: int) -> dict[str, int]:
    """How many deliveries of a broadcast have ended, by state, and how many are `open`."""
    counts = {row["entry"]: row["n"] for row in await connection.fetch(_COUNTS, broadcast_id)}
    accepted = counts.pop("accepted", 0)
    still_open = accepted - sum(counts.values())
    return counts | ({"open": still_open} if still_open else {})


async def act(connection: Connection, message_id: int, action: Action) -> int:
    """Do something to those deliveries of a message whose state allows it; return how many. Not for a broadcast's message.

    Raises:
        Unavailable: somebody has held one of them for half a second; nothing was changed.
    """
    try:
        return await connection.fetchval(_ACTIONS[action], message_id) or 0
    except asyncpg.LockNotAvailableError as error:
        raise Unavailable(1.0, "a delivery of this message is just being worked on") from error


async def content_of_delivery(connection: Connection, delivery_id: int) -> tuple[str, str, bool] | None:
    """HTML and text that a delivery's message was made from, and whether they are a template; None when it is gone."""
    row = await connection.fetchrow(_CONTENT_OF_DELIVERY, delivery_id >> 10)
    return (row["html"], row["text"], row["is_template"]) if row is not None else None
