"""`/v1/messages` as calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from gateway.client.bodies import NewMessage, Stream
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of, query_of, time_of
from gateway.client.results import Accepted, Item, Message, MessageSummary, Why


class Items(msgspec.Struct, frozen=True):
    """The answer to several messages."""

    data: list[Item]


def send(message: NewMessage, *, idempotency_key: str = "") -> Call[Accepted]:
    """Send one message to one or more recipients; the answer means that it is on disk."""
    return Call("POST", "/v1/messages", Accepted, body=body_of(message), idempotency_key=idempotency_key)


def send_many(messages: Sequence[NewMessage], *, idempotency_key: str = "") -> Call[Items]:
    """Send up to 1,000 messages in one request; each is accepted or refused for itself, in order."""
    return Call("POST", "/v1/messages", Items, body=body_of(list(messages)), idempotency_key=idempotency_key)


def get(message: str) -> Call[Message]:
    """Show a message: its state, and the attempts and events of each delivery."""
    return Call("GET", at("/v1/messages/{}", message), Message)


def find(
    *,
    stream: Stream | None = None,
    state: str | None = None,
    recipient: str | None = None,
    broadcast: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    page_size: int = PAGE_SIZE,
) -> Pages[MessageSummary]:
    """All messages that fit, the oldest first. Times have a time zone; `created_to` is not included."""
    query = query_of(
        stream=stream,
        state=state,
        recipient=recipient,
        broadcast=broadcast,
        created_from=time_of(created_from),
        created_to=time_of(created_to),
    )
    return Pages("/v1/messages", Page[MessageSummary], query, page_size)


def why(message: str) -> Pages[Why]:
    """For each delivery of a message: why it is where it is, and what would release it."""
    return Pages(at("/v1/messages/{}/why", message), Page[Why])


def cancel(message: str, *, idempotency_key: str = "") -> Call[Message]:
    """Cancel what waits; what is being sent, or may have been, goes on."""
    return _act(message, "cancel", idempotency_key)


def hold(message: str, *, idempotency_key: str = "") -> Call[Message]:
    """Hold what waits until it is released; it still expires."""
    return _act(message, "hold", idempotency_key)


def release(message: str, *, idempotency_key: str = "") -> Call[Message]:
    """Let what is held go on."""
    return _act(message, "release", idempotency_key)


def _act(message: str, action: str, idempotency_key: str) -> Call[Message]:
    return Call(
        "POST", at("/v1/messages/{}/actions/{}", message, action), Message, idempotency_key=idempotency_key
    )
