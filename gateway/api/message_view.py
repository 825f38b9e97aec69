"""How messages are shown: on a page, and whole, with what happened to each delivery.

Owns the views of `api/status` and their making from rows. Must not know how the rows are found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.model.delivery import DeliveryState
from gateway.model.ids import PLACES, Prefix, encode
from gateway.store.messages import Delivery, Happening, Listed, Message

MIXED: Final = "mixed"
OPEN: Final = "open"
_LINE: Final = re.compile(r"([245]\d\d) (?:([245]\.\d{1,3}\.\d{1,3}) )?(.*)", re.DOTALL)
"""A reply as the queue keeps it (RFC 5321 §4.2, RFC 3463 §2)."""
_ATTEMPTS: Final = frozenset({DeliveryState.DEFERRED, DeliveryState.IN_DOUBT})
"""Happenings that are an attempt's outcome; the others befall the delivery."""
_LAST_ATTEMPTS: Final = frozenset({DeliveryState.DELIVERED, DeliveryState.BOUNCED})
"""Ends that are an attempt's outcome."""


class EventView(msgspec.Struct, frozen=True):
    """What happened to a delivery, its acceptance and its end included. `attempt`: how many had counted by then."""

    kind: str
    at: datetime
    attempt: int
    code: int | None = None
    enhanced: str | None = None
    reply: str | None = None
    bounce_class: str | None = None


class AttemptView(msgspec.Struct, frozen=True):
    """One try and what the receiver said. `number` stays where it was when a try did not count: the whole lane was refused."""

    number: int
    at: datetime
    outcome: str
    code: int | None
    enhanced: str | None
    reply: str | None
    bounce_class: str | None


class DeliveryView(msgspec.Struct, frozen=True):
    """A delivery as it stands: to one recipient. `attempts` and `events` are in the order in which they happened."""

    id: str
    to: str
    state: str
    attempts: list[AttemptView]
    code: int | None
    enhanced: str | None
    reply: str | None
    bounce_class: str | None
    next_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    events: list[EventView]


class MessageSummary(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A message on a page: its first recipient, how many there are, how that one's delivery stands (null: a broadcast's)."""

    id: str
    stream: str
    sender: str
    subject: str
    template: str
    broadcast: str | None
    to: str | None
    recipients: int | None
    state: str | None
    created_at: datetime


class MessageView(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A message and its first 1,024 deliveries; `has_more` says that there are more (a broadcast's message).

    `state` is that of all its deliveries, `mixed` when they are not in the same; `states` counts them. Of a broadcast's message `states`
    counts those that have ended, by state, and those that are `open`. `has_more_events`: of all attempts and events together the latest 10,000
    are shown, and earlier ones are not.
    """

    id: str
    state: str
    states: Mapping[str, int]
    stream: str
    sender: str
    subject: str
    template: str
    broadcast: str | None
    created_at: datetime
    deliveries: list[DeliveryView]
    has_more: bool
    has_more_events: bool


def show_message(
    message: Message,
    rows: Sequence[Delivery],
    happenings: Sequence[Happening],
    counted: Mapping[str, int] | None,
    *,
    is_cut: bool,
) -> MessageView:
    """Show a message with its first deliveries; `counted` counts all of a broadcast's, `is_cut`: earlier happenings are left out."""
    by_delivery: dict[int, list[Happening]] = {}
    for one in happenings:
        by_delivery.setdefault(one.delivery_id, []).append(one)
    shown = rows[:PLACES]
    states = counted if counted is not None else dict(Counter(row.state for row in shown))
    return MessageView(
        id=encode(Prefix.MESSAGE, message.id),
        state=MIXED if len(states) > 1 else next(iter(states), OPEN),
        states=states,
        stream=message.stream,
        sender=message.sender,
        subject=message.subject,
        template=_template(message.template),
        broadcast=_broadcast(message.broadcast_id),
        created_at=message.created_at,
        deliveries=[_delivery(row, by_delivery.get(row.id, ())) for row in shown],
        has_more=len(rows) > PLACES,
        has_more_events=is_cut,
    )


def show_summary(one: Listed) -> MessageSummary:
    """Show a message on a page."""
    return MessageSummary(
        id=encode(Prefix.MESSAGE, one.id),
        stream=one.stream,
        sender=one.sender,
        subject=one.subject,
        template=_template(one.template),
        broadcast=_broadcast(one.broadcast_id),
        to=one.first_recipient,
        recipients=one.recipients,
        state=one.first_state,
        created_at=one.created_at,
    )


def split_reply(
    code: int | None, enhanced: str | None, reply: str | None
) -> tuple[int | None, str | None, str | None]:
    """Return code, enhanced code and text of a reply; of a delivery that is open the queue keeps them in one line."""
    line = _LINE.fullmatch(reply) if code is None and reply is not None else None
    return (int(line[1]), line[2], line[3]) if line else (code, enhanced, reply)


def _delivery(row: Delivery, happenings: Sequence[Happening]) -> DeliveryView:
    events = list(_events(row, happenings))
    tried = [event for event in events if event.kind in _ATTEMPTS]
    if row.state in _LAST_ATTEMPTS:
        tried.append(events[-1])
    code, enhanced, reply = split_reply(row.code, row.enhanced, row.reply)
    return DeliveryView(
        id=encode(Prefix.DELIVERY, row.id),
        to=row.recipient,
        state=row.state,
        attempts=[
            AttemptView(one.attempt, one.at, one.kind, one.code, one.enhanced, one.reply, one.bounce_class)
            for one in tried
        ],
        code=code,
        enhanced=enhanced,
        reply=reply,
        bounce_class=row.bounce_class,
        next_at=row.next_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        events=events,
    )


def _events(row: Delivery, happenings: Sequence[Happening]) -> Iterator[EventView]:
    """From its acceptance to its end."""
    yield EventView(DeliveryState.QUEUED, row.accepted_at, 0)
    for one in happenings:
        yield EventView(one.kind, one.at, one.attempt, one.code, one.enhanced, one.reply, one.bounce_class)
    if row.ended_at is not None:
        yield EventView(
            row.state, row.ended_at, row.attempts, row.code, row.enhanced, row.reply, row.bounce_class
        )


def _template(named: str) -> str:
    number, at, version = named.partition("@")
    return f"{encode(Prefix.TEMPLATE, int(number))}@{version}" if at else named


def _broadcast(number: int | None) -> str | None:
    return None if number is None else encode(Prefix.BROADCAST, number)
