"""What became of messages: a message, its deliveries and what happened to each.

Owns reading them back; they are written by `store/intake` and the queue's functions. Functions work in the caller's
transaction (`store/tenancy.as_site`). A message's deliveries are found through its acceptances: their ids are ranges of the
primary keys of `queue` and `ended`, so that nothing here needs an index of its own on the hot table.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from gateway.errors import NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("messages")
_MESSAGE = _SQL.message
_MESSAGES = _SQL.messages
_DELIVERIES = _SQL.deliveries
_EVENTS = _SQL.events
_CONTENT_OF_DELIVERY = _SQL.content_of_delivery


class Message(msgspec.Struct, frozen=True):
    """A message without its bodies. `template` names what its content was taken from, or is empty."""

    id: int
    stream: str
    sender: str
    subject: str
    template: str
    created_at: datetime


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
    next_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None


class Happening(msgspec.Struct, frozen=True):
    """What happened to a delivery beside its end."""

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


async def list_messages(connection: Connection, site_id: int, after: int, limit: int) -> list[Message]:
    """Up to `limit` messages of a site with ids above `after`."""
    return [Message(*row) for row in await connection.fetch(_MESSAGES, site_id, after, limit)]


async def list_deliveries(connection: Connection, message_id: int, after: int, limit: int) -> list[Delivery]:
    """Up to `limit` deliveries of a message with ids above `after`, open and ended."""
    return [Delivery(*row) for row in await connection.fetch(_DELIVERIES, message_id, after, limit)]


async def list_happenings(connection: Connection, delivery_ids: Sequence[int]) -> list[Happening]:
    """What happened to some deliveries, in the order in which it did."""
    return [Happening(*row) for row in await connection.fetch(_EVENTS, delivery_ids)]


async def content_of_delivery(connection: Connection, delivery_id: int) -> tuple[str, str, bool] | None:
    """HTML and text that a delivery's message was made from, and whether they are a template; None when it is gone."""
    row = await connection.fetchrow(_CONTENT_OF_DELIVERY, delivery_id >> 10)
    return (row["html"], row["text"], row["is_template"]) if row is not None else None
