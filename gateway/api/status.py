"""`/v1/messages`, the way back: what became of a message, why it is where it is, and what its sender may still do about it.

Owns the routes and the words of the filters. Must not know how reasons are found (`model/why`), how it is shown (`api/message_view`) or
what an action does to the queue (`store/messages`, `sql/migrations/0016_status.sql`). How they come in: `api/messages`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.api.described import ADDRESS, TIME, Described, id_schema, one_of, or_nothing
from gateway.api.endpoint import Call, Routes
from gateway.api.message_view import MessageSummary, MessageView, show_message, show_summary
from gateway.api.page import Page
from gateway.errors import Conflict, Invalid, NotFound
from gateway.model.address import AddressError, parse
from gateway.model.delivery import Action, DeliveryState, refuse
from gateway.model.ids import PLACES, Prefix, encode
from gateway.model.lane_why import refusal_of
from gateway.model.stream import Stream
from gateway.model.why import Code, Reason, explain
from gateway.model.why_facts import Lane
from gateway.store import broadcasts, messages, why
from gateway.store.messages import Filters, Happening, Message

routes = Routes("messages")

_REFUSED: Final = {"conflict", "invalid_transition"}


class DeliveryWhy(msgspec.Struct, frozen=True):
    """Why a delivery is where it is: the first of `reasons` decides, the others would hold it next."""

    id: str
    to: str
    state: str
    expires_at: datetime | None
    reasons: list[Reason]


@routes.add(
    "GET", "/v1/messages", answer=Page[MessageSummary], scopes={"read", "send"},
    query={
        "stream": one_of(Stream, "of this stream"),
        "state": one_of(DeliveryState, "with a delivery in this state; finds no message of a broadcast"),
        "recipient": Described("to this address; finds no message of a broadcast", or_nothing(ADDRESS)),
        "broadcast": Described("its message; not together with `state` or `recipient`", id_schema(Prefix.BROADCAST)),
        "created_from": Described("accepted at this time or later (RFC 3339)", or_nothing(TIME)),
        "created_to": Described("accepted before this time (RFC 3339)", or_nothing(TIME)),
    },
)  # fmt: skip
async def list_messages(call: Call) -> Page[MessageSummary]:
    """List the messages, oldest first. With filters a page looks at 250 (or its limit): it may hold few, or none, while `has_more`."""
    limit, after = call.limit(), call.after(Prefix.MESSAGE)
    filters = await _filters(call)
    if filters is None:
        return Page([], has_more=False, next=None)
    found = await messages.find_messages(call.connection, call.site_id, filters, after, limit)
    following = encode(Prefix.MESSAGE, found.until) if found.more else None
    return Page([show_summary(one) for one in found.messages], has_more=found.more, next=following)


@routes.add("GET", "/v1/messages/{id}", answer=MessageView, scopes={"read", "send"})
async def get_message(call: Call) -> MessageView:
    """Show a message: its state, its deliveries, and the attempts and events of each."""
    return await _show(call, await messages.get_message(call.connection, call.id(Prefix.MESSAGE)))


@routes.add("GET", "/v1/messages/{id}/why", answer=Page[DeliveryWhy], scopes={"read", "send"})
async def explain_message(call: Call) -> Page[DeliveryWhy]:
    """Say why each delivery of a message is where it is, and what would release it; a page holds up to 100."""
    message = await messages.get_message(call.connection, call.id(Prefix.MESSAGE))
    limit = min(call.limit(), why.PAGE_MAX)
    known, around = await why.read_facts(call.connection, message, call.after(Prefix.DELIVERY), limit + 1)
    shown, more = known[:limit], len(known) > limit
    data = [
        DeliveryWhy(
            encode(Prefix.DELIVERY, one.id),
            one.recipient,
            one.facts.state,
            one.facts.expires_at,
            [_discreet(reason, one.facts.lane) for reason in explain(one.facts, around)],
        )
        for one in shown
    ]
    return Page(data, has_more=more, next=data[-1].id if more else None)


@routes.add(
    "POST", "/v1/messages/{id}/actions/cancel", answer=MessageView, scopes={"send"}, problems=_REFUSED
)
async def cancel_message(call: Call) -> MessageView:
    """Cancel what waits; what is being sent, or may have been, goes on."""
    return await _act(call, Action.CANCEL)


@routes.add("POST", "/v1/messages/{id}/actions/hold", answer=MessageView, scopes={"send"}, problems=_REFUSED)
async def hold_message(call: Call) -> MessageView:
    """Hold what waits until it is released; it still expires."""
    return await _act(call, Action.HOLD)


@routes.add(
    "POST", "/v1/messages/{id}/actions/release", answer=MessageView, scopes={"send"}, problems=_REFUSED
)
async def release_message(call: Call) -> MessageView:
    """Let what is held go on."""
    return await _act(call, Action.RELEASE)


async def _act(call: Call, action: Action) -> MessageView:
    message = await messages.get_message(call.connection, call.id(Prefix.MESSAGE))
    if message.broadcast_id is not None:
        broadcast = encode(Prefix.BROADCAST, message.broadcast_id)
        raise Conflict(f"this is a broadcast's message: see the actions of /v1/broadcasts/{broadcast}")
    changed = await messages.act(call.connection, message.id, action)
    shown = await _show(call, message)
    if not changed:
        raise refuse((one.state for one in shown.deliveries), action)
    return shown


async def _show(call: Call, message: Message) -> MessageView:
    rows = await messages.list_deliveries(call.connection, message.id, 0, PLACES + 1)
    happenings, is_cut = list[Happening](), False
    if rows:
        since = min(row.accepted_at for row in rows)
        ids = [row.id for row in rows[:PLACES]]
        happenings, is_cut = await messages.list_happenings(call.connection, ids, since)
    counted = None
    if message.broadcast_id is not None:
        counted = await messages.count_broadcast(call.connection, message.broadcast_id)
    return show_message(message, rows, happenings, counted, is_cut=is_cut)


async def _filters(call: Call) -> Filters | None:
    """Read the filters of the query; None when no message can fit.

    Raises:
        Invalid: one of them is not what it should be.
    """
    stream, state, recipient = (call.query(name) or None for name in ("stream", "state", "recipient"))
    if stream is not None and stream not in list(Stream):
        raise Invalid([("", f"stream: expected {' or '.join(Stream)}")])
    if state is not None and state not in list(DeliveryState):
        raise Invalid([("", f"state: expected one of {', '.join(DeliveryState)}")])
    if recipient is not None:
        try:
            recipient = parse(recipient).wire
        except AddressError as error:
            raise Invalid([("", f"recipient: {error}")]) from error
    message_id = None
    if (broadcast_id := call.query_id(Prefix.BROADCAST, "broadcast")) is not None:
        if state is not None or recipient is not None:
            raise Invalid([("", "broadcast: not together with state or recipient")])
        try:
            found = await broadcasts.get_broadcast(call.connection, broadcast_id)
        except NotFound:
            return None
        if (message_id := found.message_id) is None:
            return None
    return Filters(
        stream, state, recipient, _time(call, "created_from"), _time(call, "created_to"), message_id
    )


def _time(call: Call, name: str) -> datetime | None:
    text = call.query(name)
    if not text:
        return None
    try:
        found = msgspec.convert(text.replace(" ", "+"), datetime)  # a + in a query is a space
        if found.tzinfo is not None and 1970 <= found.year <= 9000:
            return found.astimezone(UTC)
    except msgspec.ValidationError:
        pass
    raise Invalid([("", f"{name}: expected a time as in 2026-11-26T12:00:00Z")])


def _discreet(reason: Reason, lane: Lane | None) -> Reason:
    """Tell of a lane's refusal the class and the codes alone: the words were said to another site's message, perhaps with its recipient."""
    if reason.code is not Code.LANE_SUSPENDED or lane is None:
        return reason
    refusal = refusal_of(lane.suspended_why)
    after = f", after: {refusal.bounce_class} {refusal.codes}".rstrip() if refusal else ""
    return msgspec.structs.replace(
        reason,
        text=f"nothing is sent to {lane.name} for a while{after}",
        reply=refusal.codes or None if refusal else None,
        bounce_class=refusal.bounce_class if refusal else None,
    )
