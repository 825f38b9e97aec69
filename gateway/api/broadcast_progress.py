"""How far a broadcast has come: its books, its deliveries, and a stream of the books until it has ended.

Owns `stats`, `deliveries` and `stream` of `/v1/broadcasts/{id}`. Must not know how a broadcast is made or launched (`api/broadcasts`).

The stream sends the whole of `stats` whenever it has changed, so nothing that a client missed is missing: an event's id is a digest of
what it says, and a client that comes back with the last one (Last-Event-ID) is told what has changed since. After `end` it comes back
once more and gets 204, which ends it for good. It holds no transaction and no connection between two looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec

from gateway.api import sse
from gateway.api.described import one_of
from gateway.api.endpoint import Call, Routes
from gateway.api.message_view import split_reply
from gateway.api.page import Page
from gateway.api.serving import Reply, Streamed, authorize
from gateway.errors import Invalid, Problem, StoreUnavailable
from gateway.model.delivery import DeliveryState
from gateway.model.ids import Prefix, encode
from gateway.store import broadcasts
from gateway.store.broadcasts import Broadcast
from gateway.store.messages import Delivery
from gateway.store.pool import Connection
from gateway.store.tenancy import as_site
from gateway.telemetry import Event, log

routes = Routes("broadcasts")

POLL_S: Final = 1.0
"""How often a stream looks at the books."""
HEARTBEAT_S: Final = 15.0
"""A stream that has nothing to tell says so after this time."""
REST: Final = 20.0
"""How many times as long as a look took a stream rests after it, where that is more than `POLL_S`."""
LIFETIME_S: Final = 3_600.0
"""A stream ends after this time, and its client comes again: one that reads nothing keeps its place no longer."""
_RETRY_MS: Final = 2_000
_HEADERS: Final = {"x-accel-buffering": "no"}  # proxies that gather answers must not


class Stats(msgspec.Struct, frozen=True):
    """The books of a broadcast: `accepted` is the sum of `states`, and grows until it is `expanded`."""

    accepted: int
    expanded: bool
    state: str
    states: Mapping[str, int]


class BroadcastDelivery(msgspec.Struct, frozen=True):
    """A delivery of a broadcast as it stands, with what the receiver, or we ourselves, said last."""

    id: str
    to: str
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


@routes.add("GET", "/v1/broadcasts/{id}/stats", answer=Stats, scopes={"read", "campaigns"}, campaigns=True)
async def get_stats(call: Call) -> Stats:
    """Count a broadcast's deliveries by state."""
    broadcast = await broadcasts.get_broadcast(call.connection, call.id(Prefix.BROADCAST))
    return await _stats(call.connection, broadcast)


@routes.add(
    "GET", "/v1/broadcasts/{id}/deliveries", answer=Page[BroadcastDelivery], scopes={"read", "campaigns"}, campaigns=True,
    query={"state": one_of(DeliveryState, "only those in this state")},
)  # fmt: skip
async def list_deliveries(call: Call) -> Page[BroadcastDelivery]:
    """List a broadcast's deliveries, in the order of the list. With `state` a page may hold few, or none, while `has_more`."""
    limit, after = call.limit(), call.after(Prefix.DELIVERY)
    state = call.query("state") or None
    if state is not None and state not in list(DeliveryState):
        raise Invalid([("", f"state: expected one of {', '.join(DeliveryState)}")])
    broadcast = await broadcasts.get_broadcast(call.connection, call.id(Prefix.BROADCAST))
    found = await broadcasts.find_deliveries(call.connection, broadcast.id, state, after, limit)
    following = encode(Prefix.DELIVERY, found.until) if found.more else None
    return Page([_delivery(one) for one in found.deliveries], has_more=found.more, next=following)


@routes.add(
    "GET", "/v1/broadcasts/{id}/stream", answer=Stats, scopes={"read", "campaigns"}, campaigns=True, own_transaction=True,
    media_type="text/event-stream", statuses={204: "It has ended, and `Last-Event-ID` is that of its end: there is no more to follow."},
    reads={"Last-Event-ID": "id of the last event that came; what has changed since is told"},
)  # fmt: skip
async def stream(call: Call) -> Streamed | Reply:
    """Follow a broadcast's books as Server-Sent Events, `progress` on each change and `end` when it has ended."""
    broadcast_id = call.id(Prefix.BROADCAST)
    last_id = call.request.headers.get("last-event-id", "")
    stats, ended = await _look(call, broadcast_id)
    if ended and last_id == _id_of(_encoded(stats)):
        return Reply(b"", status=204)
    following = _follow(call, broadcast_id, last_id)
    await anext(
        following
    )  # takes its place, while a refusal can still be said; gives it back though nothing of it were ever sent
    return Streamed(following, headers=_HEADERS)


async def _follow(call: Call, broadcast_id: int, last_id: str) -> AsyncGenerator[bytes]:
    """The stream, after one empty piece, until the broadcast has ended, the key opens it no more, or this process is to end.

    Raises:
        RateLimited: too many follow already.
    """
    assert call.holder is not None
    with call.services.followers.place(call.holder.key_id):
        yield b""
        try:
            async with aclosing(_tell(call, broadcast_id, last_id)) as pieces:
                async for piece in pieces:
                    yield piece
        except Problem:
            return  # the key was revoked, or the draft is gone: the client learns it when it comes again
        except Exception:
            log.exception(
                Event.API_REQUEST,
                route="GET /v1/broadcasts/{id}/stream",
                status=200,
                request_id=call.request_id,
            )


async def _tell(call: Call, broadcast_id: int, last_id: str) -> AsyncGenerator[bytes]:
    services = call.services
    yield sse.retry(_RETRY_MS)
    began = told_at = services.clock.monotonic()
    while not services.stopping.is_set() and services.clock.monotonic() - began < LIFETIME_S:
        looked_at = services.clock.monotonic()
        with suppress(StoreUnavailable):  # an outage is waited out; heartbeats go on
            await authorize(services, call.endpoint, call.request)
            stats, ended = await _look(call, broadcast_id)
            data = _encoded(stats)
            event_id = _id_of(data)
            if event_id != last_id:
                yield sse.event("progress", data, event_id)
                last_id, told_at = event_id, services.clock.monotonic()
            if ended:
                yield sse.event("end", data, event_id)
                return
        now = services.clock.monotonic()
        if now - told_at >= HEARTBEAT_S:
            yield sse.HEARTBEAT
            told_at = now
        with suppress(TimeoutError):
            await asyncio.wait_for(
                services.stopping.wait(), max(POLL_S, min(HEARTBEAT_S, REST * (now - looked_at)))
            )


async def _look(call: Call, broadcast_id: int) -> tuple[Stats, bool]:
    """Read the books in a transaction of their own; and whether the broadcast has ended."""
    timeout_s = call.services.config.database.acquire_timeout_s
    async with as_site(call.services.pool, call.site_id, timeout_s=timeout_s) as connection:
        broadcast = await broadcasts.get_broadcast(connection, broadcast_id)
        return await _stats(connection, broadcast), broadcast.ended_at is not None


async def _stats(connection: Connection, broadcast: Broadcast) -> Stats:
    counts = await broadcasts.counts(connection, broadcast.id)
    return Stats(counts.accepted, broadcast.expanded, broadcast.state, counts.states)


def _encoded(stats: Stats) -> bytes:
    """The same books are always the same bytes."""
    return msgspec.json.encode(stats, order="deterministic")


def _id_of(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def _delivery(one: Delivery) -> BroadcastDelivery:
    code, enhanced, reply = split_reply(one.code, one.enhanced, one.reply)
    return BroadcastDelivery(
        id=encode(Prefix.DELIVERY, one.id),
        to=one.recipient,
        state=one.state,
        attempts=one.attempts,
        code=code,
        enhanced=enhanced,
        reply=reply,
        bounce_class=one.bounce_class,
        accepted_at=one.accepted_at,
        next_at=one.next_at,
        expires_at=one.expires_at,
        ended_at=one.ended_at,
    )
