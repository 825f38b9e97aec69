"""`/v1/broadcasts`: one mail to a whole list. What the actions do is in `campaigns/launch`, what follows in the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.api.endpoint import Call, Routes
from gateway.api.page import Page, page
from gateway.api.senders import Mailbox, read_mailbox
from gateway.campaigns import launch
from gateway.errors import Invalid, NotFound, StoreUnavailable
from gateway.model.broadcast import actions
from gateway.model.ids import Prefix, decode, encode
from gateway.store import broadcasts, contacts, templates
from gateway.store.broadcasts import Broadcast, NewBroadcast
from gateway.store.tenancy import as_site

routes = Routes("broadcasts")


class BroadcastBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """A broadcast to make."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    list: str
    template: str
    sender: str | Mailbox
    reply_to: str | Mailbox = ""
    expires_in_s: Annotated[int, Meta(ge=60, le=2_592_000)] | None = None
    """How long after its acceptance a delivery is given up; by default as the gateway is configured for marketing."""


class BroadcastView(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A broadcast. `actions` are the ones that its state allows."""

    id: str
    name: str
    state: str
    paused_by: str
    list: str
    template: str
    sender: str
    reply_to: str
    message: str | None
    actions: tuple[str, ...]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Stats(msgspec.Struct, frozen=True):
    """The books of a broadcast: `accepted` is the sum of `states`, and grows until it is `expanded`."""

    accepted: int
    expanded: bool
    state: str
    states: Mapping[str, int]


@routes.add(
    "POST", "/v1/broadcasts", body=BroadcastBody, answer=BroadcastView, status=201, scopes={"campaigns"}, campaigns=True
)  # fmt: skip
async def create_broadcast(call: Call, data: BroadcastBody) -> BroadcastView:
    """Make a draft; nothing is sent before `actions/send`."""
    list_id = decode(Prefix.LIST, data.list, "/list")
    template_id = decode(Prefix.TEMPLATE, data.template, "/template")
    sender = read_mailbox(data.sender, "/from")
    reply_to = read_mailbox(data.reply_to, "/reply_to").mailbox if data.reply_to else ""
    try:
        await contacts.get_list(call.connection, list_id)
    except NotFound:
        raise Invalid([("/list", "there is no such list")]) from None
    try:
        await templates.get_template(call.connection, template_id)
    except NotFound:
        raise Invalid([("/template", "there is no such template")]) from None
    domain_id = await call.services.senders.domain_id(call.site_id, sender.domain)
    expires_in_s = data.expires_in_s or int(call.services.config.expiry.marketing_s)
    new = NewBroadcast(
        data.name, list_id, template_id, domain_id, sender.mailbox, reply_to, max(1, expires_in_s)
    )
    return _view(await broadcasts.create_broadcast(call.connection, call.site_id, new))


@routes.add("GET", "/v1/broadcasts", answer=Page[BroadcastView], scopes={"read", "campaigns"}, campaigns=True)
async def list_broadcasts(call: Call) -> Page[BroadcastView]:
    """List the broadcasts."""
    limit = call.limit()
    rows = await broadcasts.list_broadcasts(
        call.connection, call.site_id, call.after(Prefix.BROADCAST), limit + 1
    )
    return page(rows, limit, _view, lambda one: encode(Prefix.BROADCAST, one.id))


@routes.add("GET", "/v1/broadcasts/{id}", answer=BroadcastView, scopes={"read", "campaigns"}, campaigns=True)
async def get_broadcast(call: Call) -> BroadcastView:
    """Show a broadcast."""
    return _view(await broadcasts.get_broadcast(call.connection, call.id(Prefix.BROADCAST)))


@routes.add("GET", "/v1/broadcasts/{id}/stats", answer=Stats, scopes={"read", "campaigns"}, campaigns=True)
async def get_stats(call: Call) -> Stats:
    """Count a broadcast's deliveries by state."""
    broadcast = await broadcasts.get_broadcast(call.connection, call.id(Prefix.BROADCAST))
    counts = await broadcasts.counts(call.connection, broadcast.id)
    return Stats(counts.accepted, broadcast.expanded, broadcast.state, counts.states)


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/send", answer=BroadcastView, status=202, scopes={"campaigns"}, campaigns=True
)  # fmt: skip
async def send(call: Call) -> BroadcastView:
    """Freeze audience and content, and send."""
    (message_id,) = await call.services.numbers.take(1)
    return _view(await launch.send(call.connection, call.id(Prefix.BROADCAST), message_id))


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/pause", answer=BroadcastView, scopes={"campaigns"}, campaigns=True
)  # fmt: skip
async def pause(call: Call) -> BroadcastView:
    """Hold back what has not left."""
    return _view(await launch.pause(call.connection, call.id(Prefix.BROADCAST)))


async def _wake(call: Call, _: BroadcastView) -> None:
    try:
        async with as_site(call.services.pool, call.site_id) as connection:
            await broadcasts.wake(connection, call.id(Prefix.BROADCAST))
    except StoreUnavailable:
        pass  # it is resumed; the dispatchers' sweep will find what sleeps


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/resume", answer=BroadcastView, scopes={"campaigns"}, campaigns=True, then=_wake
)  # fmt: skip
async def resume(call: Call) -> BroadcastView:
    """Let a paused broadcast go on."""
    return _view(await launch.resume(call.connection, call.id(Prefix.BROADCAST)))


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/cancel", answer=BroadcastView, scopes={"campaigns"}, campaigns=True
)  # fmt: skip
async def cancel(call: Call) -> BroadcastView:
    """End a broadcast; what waits is cancelled."""
    return _view(await launch.cancel(call.connection, call.id(Prefix.BROADCAST)))


def _view(broadcast: Broadcast) -> BroadcastView:
    offered = {"send", "pause", "resume", "cancel"}
    return BroadcastView(
        id=encode(Prefix.BROADCAST, broadcast.id),
        name=broadcast.name,
        state=broadcast.state,
        paused_by=broadcast.paused_by,
        list=encode(Prefix.LIST, broadcast.list_id),
        template=encode(Prefix.TEMPLATE, broadcast.template_id),
        sender=broadcast.sender,
        reply_to=broadcast.reply_to,
        message=None if broadcast.message_id is None else encode(Prefix.MESSAGE, broadcast.message_id),
        actions=tuple(action for action in actions(broadcast.state) if action in offered),
        created_at=broadcast.created_at,
        started_at=broadcast.started_at,
        ended_at=broadcast.ended_at,
    )
