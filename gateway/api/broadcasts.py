"""`/v1/broadcasts`: one mail to a whole list. What the actions do is in `campaigns/launch`, what follows in the scheduler.

Owns making, changing and launching. How far one has come: `api/broadcast_progress`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api import trial
from gateway.api.described import ListId, TemplateId
from gateway.api.endpoint import Call, Routes
from gateway.api.messages import AcceptedMessage
from gateway.api.page import Page, page
from gateway.api.senders import Mailbox, read_mailbox
from gateway.api.serving import Reply
from gateway.api.trial import Trial, TrialBody
from gateway.campaigns import launch, preflight
from gateway.campaigns.preflight import Check
from gateway.errors import Invalid, NotFound, RateLimited, StoreUnavailable
from gateway.model.broadcast import actions, need_draft
from gateway.model.ids import Prefix, decode, encode
from gateway.store import broadcasts, domains, lists, sites, templates
from gateway.store.broadcasts import Broadcast, NewBroadcast
from gateway.store.tenancy import as_site

routes = Routes("broadcasts")

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Lifetime = Annotated[int, Meta(ge=60, le=2_592_000)]
_OFFERED: Final = frozenset({"send", "schedule", "pause", "resume", "cancel"})
_AHEAD_LIMIT: Final = timedelta(days=366)
ESTIMATES_MAX: Final = 2
"""Broadcasts that one process counts at a time: of 500,000 contacts one takes 1.5 s of Postgres (two cores, 2026-11-26)."""
_TEST: Final = msgspec.json.Decoder(TrialBody)


class BroadcastBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """A broadcast to make."""

    name: Name
    list: ListId
    template: TemplateId
    sender: str | Mailbox
    reply_to: str | Mailbox = ""
    expires_in_s: Lifetime | None = None
    """How long after its acceptance a delivery is given up; by default as the gateway is configured for marketing."""


class BroadcastChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """What is to be changed of a draft; what is left out stays as it is."""

    name: Name | UnsetType = UNSET
    list: ListId | UnsetType = UNSET
    template: TemplateId | UnsetType = UNSET
    sender: str | Mailbox | UnsetType = UNSET
    reply_to: str | Mailbox | UnsetType = UNSET
    expires_in_s: Lifetime | UnsetType = UNSET


class ScheduleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to launch."""

    send_at: Annotated[datetime, Meta(tz=True)]


class BroadcastView(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A broadcast. `actions` are the ones that its state allows; `detail` says why it failed."""

    id: str
    name: str
    state: str
    paused_by: str
    list: str
    template: str
    sender: str
    reply_to: str
    expires_in_s: int
    message: str | None
    actions: tuple[str, ...]
    detail: str
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


class Estimate(msgspec.Struct, frozen=True):
    """Whom a broadcast would reach if it were sent now, and whether it can be.

    `audience` is the list's members, less `excluded` (by why nothing is sent to them) the `recipients`. `ready`: every check that is
    required has passed.
    """

    audience: int
    recipients: int
    excluded: Mapping[str, int]
    ready: bool
    checks: list[Check]


@routes.add(
    "POST", "/v1/broadcasts", body=BroadcastBody, answer=BroadcastView, status=201, scopes={"campaigns"}, campaigns=True,
    problems={"domain_unverified"},
)  # fmt: skip
async def create_broadcast(call: Call, data: BroadcastBody) -> BroadcastView:
    """Make a draft; nothing is sent before `actions/send` or the time of `actions/schedule`."""
    sender = read_mailbox(data.sender, "/from")
    new = NewBroadcast(
        name=data.name,
        list_id=await _list_id(call, data.list),
        template_id=await _template_id(call, data.template),
        domain_id=await call.services.senders.domain_id(call.site_id, sender.domain),
        sender=sender.mailbox,
        reply_to=_reply_to(data.reply_to),
        expires_in_s=max(1, data.expires_in_s or int(call.services.config.expiry.marketing_s)),
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


@routes.add(
    "PATCH", "/v1/broadcasts/{id}", body=BroadcastChange, answer=BroadcastView, scopes={"campaigns"}, campaigns=True,
    problems={"domain_unverified", "invalid_transition"},
)  # fmt: skip
async def change_broadcast(call: Call, data: BroadcastChange) -> BroadcastView:
    """Change a draft."""
    before = await broadcasts.get_broadcast(call.connection, call.id(Prefix.BROADCAST), lock=True)
    need_draft(before.state, "a changed draft")
    domain_id, mailbox = before.domain_id, before.sender
    if data.sender is not UNSET:
        sender = read_mailbox(data.sender, "/from")
        mailbox = sender.mailbox
        domain_id = await call.services.senders.domain_id(call.site_id, sender.domain)
    new = NewBroadcast(
        name=before.name if data.name is UNSET else data.name,
        list_id=before.list_id if data.list is UNSET else await _list_id(call, data.list),
        template_id=before.template_id if data.template is UNSET else await _template_id(call, data.template),
        domain_id=domain_id,
        sender=mailbox,
        reply_to=before.reply_to if data.reply_to is UNSET else _reply_to(data.reply_to),
        expires_in_s=before.expires_in_s if data.expires_in_s is UNSET else data.expires_in_s,
    )
    return _view(await broadcasts.change_broadcast(call.connection, before.id, new))


@routes.add(
    "DELETE", "/v1/broadcasts/{id}", answer=None, status=204, scopes={"campaigns"}, campaigns=True,
    problems={"invalid_transition"},
)  # fmt: skip
async def delete_broadcast(call: Call) -> None:
    """Remove a draft; what was launched stays in the books."""
    broadcast = await broadcasts.get_broadcast(call.connection, call.id(Prefix.BROADCAST), lock=True)
    need_draft(broadcast.state, "a deleted draft")
    await broadcasts.delete_broadcast(call.connection, broadcast.id)


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/estimate", answer=Estimate, scopes={"read", "campaigns"}, campaigns=True
)  # fmt: skip
async def estimate(call: Call) -> Estimate:
    """Count whom a broadcast would reach, and check whether it can be sent; changes nothing."""
    broadcast = await broadcasts.get_broadcast(call.connection, call.id(Prefix.BROADCAST))
    if call.services.estimating >= ESTIMATES_MAX:
        raise RateLimited(2.0, f"{ESTIMATES_MAX} broadcasts are just being estimated")
    call.services.estimating += 1
    try:
        reach = await broadcasts.reach(call.connection, broadcast)
    finally:
        call.services.estimating -= 1
    first = await broadcasts.sample(call.connection, broadcast)
    template = await templates.get_template(call.connection, broadcast.template_id)
    domain = await domains.get_domain(call.connection, broadcast.domain_id)
    site = await sites.get_site(call.connection, call.site_id)
    found = await asyncio.to_thread(
        preflight.checks,  # in a thread: a costly template takes half a second
        preflight.Facts(
            domain=domain.name,
            domain_verified=domain.status == "verified",
            recipients=reach.recipients,
            subject=template.subject,
            html=template.html,
            text=template.text,
            variables=first.variables if first is not None else None,
            held_why=site.held_why,
            public_url=call.services.config.api.public_url,
        ),
    )
    return Estimate(reach.audience, reach.recipients, reach.excluded, preflight.is_ready(found), found)


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/test", body=TrialBody, answer=AcceptedMessage, status=trial.STATUS,
    scopes={"campaigns"}, campaigns=True, own_transaction=True,
    problems={"domain_unverified"},
)  # fmt: skip
async def test_broadcast(call: Call) -> Reply:
    """Send a broadcast's mail, as its template is now, to one address; it is no delivery of the broadcast."""
    broadcast_id = call.id(Prefix.BROADCAST)
    data, once = await trial.read_trial(call, _TEST)
    async with as_site(call.services.pool, call.site_id) as connection:
        broadcast = await broadcasts.get_broadcast(connection, broadcast_id)
        template = await templates.get_template(connection, broadcast.template_id)
    one = Trial(
        template, broadcast.sender, data.to, data.contact, data.variables, reply_to=broadcast.reply_to
    )
    return await trial.send_trial(call, one, once)


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/send", answer=BroadcastView, status=202, scopes={"campaigns"}, campaigns=True,
    problems={"domain_unverified", "invalid_transition"},
)  # fmt: skip
async def send(call: Call) -> BroadcastView:
    """Freeze audience and content, and send."""
    (message_id,) = await call.services.numbers.take(1)
    return _view(await launch.send(call.connection, call.id(Prefix.BROADCAST), message_id))


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/schedule", body=ScheduleBody, answer=BroadcastView, scopes={"campaigns"}, campaigns=True,
    problems={"domain_unverified", "invalid_transition"},
)  # fmt: skip
async def schedule(call: Call, data: ScheduleBody) -> BroadcastView:
    """Send at a time, with the audience and content of then; a scheduled one: at another time."""
    broadcast_id = call.id(Prefix.BROADCAST)
    now = call.services.clock.now()
    if data.send_at <= now:
        raise Invalid([("/send_at", "expected a time to come; actions/send sends at once")])
    if data.send_at > now + _AHEAD_LIMIT:
        raise Invalid([("/send_at", f"more than {_AHEAD_LIMIT.days} days ahead")])
    return _view(await launch.schedule(call.connection, broadcast_id, data.send_at.astimezone(UTC)))


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/pause", answer=BroadcastView, scopes={"campaigns"}, campaigns=True,
    problems={"invalid_transition"},
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
    "POST", "/v1/broadcasts/{id}/actions/resume", answer=BroadcastView, scopes={"campaigns"}, campaigns=True, then=_wake,
    problems={"invalid_transition"},
)  # fmt: skip
async def resume(call: Call) -> BroadcastView:
    """Let a paused broadcast go on."""
    return _view(await launch.resume(call.connection, call.id(Prefix.BROADCAST)))


@routes.add(
    "POST", "/v1/broadcasts/{id}/actions/cancel", answer=BroadcastView, scopes={"campaigns"}, campaigns=True,
    problems={"invalid_transition"},
)  # fmt: skip
async def cancel(call: Call) -> BroadcastView:
    """End a broadcast; what waits is cancelled."""
    return _view(await launch.cancel(call.connection, call.id(Prefix.BROADCAST)))


async def _list_id(call: Call, text: str) -> int:
    list_id = decode(Prefix.LIST, text, "/list")
    try:
        await lists.get_list(call.connection, list_id)
    except NotFound:
        raise Invalid([("/list", "there is no such list")]) from None
    return list_id


async def _template_id(call: Call, text: str) -> int:
    template_id = decode(Prefix.TEMPLATE, text, "/template")
    try:
        await templates.get_template(call.connection, template_id)
    except NotFound:
        raise Invalid([("/template", "there is no such template")]) from None
    return template_id


def _reply_to(given: str | Mailbox) -> str:
    return read_mailbox(given, "/reply_to").mailbox if given else ""


def _view(broadcast: Broadcast) -> BroadcastView:
    return BroadcastView(
        id=encode(Prefix.BROADCAST, broadcast.id),
        name=broadcast.name,
        state=broadcast.state,
        paused_by=broadcast.paused_by,
        list=encode(Prefix.LIST, broadcast.list_id),
        template=encode(Prefix.TEMPLATE, broadcast.template_id),
        sender=broadcast.sender,
        reply_to=broadcast.reply_to,
        expires_in_s=broadcast.expires_in_s,
        message=None if broadcast.message_id is None else encode(Prefix.MESSAGE, broadcast.message_id),
        actions=tuple(action for action in actions(broadcast.state) if action in _OFFERED),
        detail=broadcast.detail,
        created_at=broadcast.created_at,
        scheduled_at=broadcast.scheduled_at,
        started_at=broadcast.started_at,
        ended_at=broadcast.ended_at,
    )
