"""`/v1/messages`: the door in. One message, or up to 1,000 that are answered item by item.

The hot path: decoded and checked here, accepted by `store/intake` in one round trip. An item that cannot be taken does not stop
the others; what is accepted of one request is one transaction, with the answer under its Idempotency-Key.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, cast

import msgspec

from gateway.api.decode import decode
from gateway.api.endpoint import Call, Routes
from gateway.api.errors import ProblemBody, describe
from gateway.api.page import Page, page
from gateway.api.serving import Reply, digest, idempotency_key, read_body
from gateway.api.submission import (
    INLINE,
    ITEMS_LIMIT,
    REQUEST_RECIPIENTS_LIMIT,
    Checked,
    Content,
    MessageBody,
    check,
    has_variables,
    submission,
)
from gateway.errors import Invalid, NotFound, Problem
from gateway.model.ids import PLACES, Prefix, delivery_ids, encode
from gateway.store import idempotency, messages, templates
from gateway.store.intake import Accepted, Once, Submission
from gateway.store.messages import Delivery, Happening, Message
from gateway.store.tenancy import as_site

routes = Routes("messages")

_ONE: Final = msgspec.json.Decoder(MessageBody)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ENCODER: Final = msgspec.json.Encoder()
_STATUS: Final = 202


class DeliveryRef(msgspec.Struct, frozen=True, gc=False):
    """A delivery that was accepted. A suppressed one will not be sent."""

    id: str
    to: str
    state: Literal["queued", "deferred", "suppressed"]


class AcceptedMessage(msgspec.Struct, frozen=True, gc=False):
    """A message that was accepted."""

    id: str
    deliveries: list[DeliveryRef]


class BatchItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What became of an item: id and deliveries, or an error whose pointers go into the whole body."""

    id: str = ""
    deliveries: list[DeliveryRef] = []
    error: ProblemBody | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """One answer for each item, in order."""

    data: list[BatchItem]


class HappeningView(msgspec.Struct, frozen=True):
    """What happened to a delivery on its way."""

    kind: str
    at: datetime
    attempt: int
    code: int | None
    enhanced: str | None
    reply: str | None
    bounce_class: str | None


class DeliveryView(msgspec.Struct, frozen=True):
    """A delivery as it stands."""

    id: str
    to: str
    state: str
    attempts: int
    code: int | None
    enhanced: str | None
    reply: str | None
    bounce_class: str | None
    next_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    events: list[HappeningView]


class MessageSummary(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A message without its deliveries."""

    id: str
    stream: str
    sender: str
    subject: str
    template: str
    created_at: datetime


class MessageView(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A message and its first 1,000 deliveries; `has_more` says that there are more (a broadcast's message)."""

    id: str
    stream: str
    sender: str
    subject: str
    template: str
    created_at: datetime
    deliveries: list[DeliveryView]
    has_more: bool


@routes.add(
    "POST", "/v1/messages", body=MessageBody | list[MessageBody], answer=AcceptedMessage | BatchAnswer, status=_STATUS,
    scopes={"send"}, own_transaction=True,
)  # fmt: skip
async def submit(call: Call) -> Reply:
    """Send one message, or an array of up to 1,000; each to up to 1,000 recipients."""
    config = call.services.config
    body = await read_body(call.request, config.api.body_limit_bytes)
    key = idempotency_key(call.request)
    once = None if key is None else Once(key, digest(call.request, body), _STATUS)
    is_batch = body.lstrip()[:1] == b"["
    now = call.services.clock.now()
    try:
        if is_batch:
            taken, refused = await _check_batch(call, body, now)
        else:
            taken, refused = [(0, await _prepare(call, decode(body, _ONE), now))], {}
    except Problem:
        if once is not None and (stored := await _stored(call, once)) is not None:
            return _reply(stored)
        raise

    def answer(numbers: Sequence[int]) -> bytes:
        shown = [_accepted(number, one, now) for number, (_, one) in zip(numbers, taken, strict=True)]
        if not is_batch:
            return _ENCODER.encode(shown[0])
        whole = refused | {
            place: BatchItem(one.id, one.deliveries) for (place, _), one in zip(taken, shown, strict=True)
        }
        return _ENCODER.encode(BatchAnswer([whole[place] for place in range(len(whole))]))

    if not taken:  # nothing to store, so nothing to repeat either
        return Reply(answer([]))
    accepted = await call.services.intake.submit(call.site_id, [one for _, one in taken], now, answer, once)
    return _reply(accepted)


@routes.add("GET", "/v1/messages", answer=Page[MessageSummary], scopes={"read", "send"})
async def list_messages(call: Call) -> Page[MessageSummary]:
    """List the messages, oldest first."""
    limit = call.limit()
    rows = await messages.list_messages(call.connection, call.site_id, call.after(Prefix.MESSAGE), limit + 1)
    return page(rows, limit, _summary, lambda one: encode(Prefix.MESSAGE, one.id))


@routes.add("GET", "/v1/messages/{id}", answer=MessageView, scopes={"read", "send"})
async def get_message(call: Call) -> MessageView:
    """Show a message, its deliveries and what happened to them."""
    message = await messages.get_message(call.connection, call.id(Prefix.MESSAGE))
    rows = await messages.list_deliveries(call.connection, message.id, 0, PLACES + 1)
    shown = rows[:PLACES]
    happenings: dict[int, list[Happening]] = {}
    for one in await messages.list_happenings(call.connection, [row.id for row in shown]):
        happenings.setdefault(one.delivery_id, []).append(one)
    summary = _summary(message)
    return MessageView(
        summary.id,
        summary.stream,
        summary.sender,
        summary.subject,
        summary.template,
        summary.created_at,
        [_delivery(row, happenings.get(row.id, ())) for row in shown],
        len(rows) > PLACES,
    )


async def _check_batch(
    call: Call, body: bytes, now: datetime
) -> tuple[list[tuple[int, Submission]], dict[int, BatchItem]]:
    """Check items one by one; return those that can be taken and the errors of the others, by place."""
    items = decode(body, _ITEMS)
    if not 1 <= len(items) <= ITEMS_LIMIT:
        raise Invalid([("", f"{len(items)} items; expected 1 to {ITEMS_LIMIT}")])
    taken: list[tuple[int, Submission]] = []
    refused: dict[int, BatchItem] = {}
    recipients = 0
    for place, raw in enumerate(items):
        try:
            one = await _prepare(call, decode(raw, _ONE), now)
        except Problem as error:
            refused[place] = BatchItem(error=describe(error, base=f"/{place}"))
            continue
        recipients += len(one.deliveries.recipients)
        if recipients > REQUEST_RECIPIENTS_LIMIT:
            raise Invalid([("", f"more than {REQUEST_RECIPIENTS_LIMIT} recipients in one request")])
        taken.append((place, one))
    return taken, refused


async def _prepare(call: Call, item: MessageBody, now: datetime) -> Submission:
    services = call.services
    checked = check(item, now, services.config.expiry)
    content = await _content(call, checked)
    domain_id = await services.senders.domain_id(call.site_id, checked.sender.domain)
    return submission(checked, content, domain_id)


async def _content(call: Call, checked: Checked) -> Content:
    item = checked.item
    if checked.template_id is None:
        return Content(item.subject or "", item.html, item.text, INLINE if has_variables(item) else "")
    async with as_site(call.services.pool, call.site_id) as connection:
        try:
            template = await templates.get_template(connection, checked.template_id)
        except NotFound:
            raise Invalid([("/template", "there is no such template")]) from None
    return Content(template.subject, template.html, template.text, f"{template.id}@{template.version}")


async def _stored(call: Call, once: Once) -> Accepted | None:
    """What was answered to a request that would be refused now: its domain may have gone since."""
    async with as_site(call.services.pool, call.site_id) as connection:
        found = await idempotency.find(connection, call.site_id, once.key, once.digest)
    return None if found is None else Accepted(found.status, found.answer, found.suppressed, replayed=True)


def _accepted(number: int, one: Submission, now: datetime) -> AcceptedMessage:
    deliveries = one.deliveries
    ids = delivery_ids(number, len(deliveries.recipients))
    state = "deferred" if deliveries.due_at > now else "queued"
    return AcceptedMessage(
        encode(Prefix.MESSAGE, number),
        [DeliveryRef(id_, to, state) for id_, to in zip(ids, deliveries.recipients, strict=True)],
    )


def _reply(accepted: Accepted) -> Reply:
    """Make the answer, now or when it is asked for again: the suppressed are put right, which few answers need."""
    if not accepted.suppressed:
        return Reply(accepted.answer)
    ids = {encode(Prefix.DELIVERY, id_) for id_ in accepted.suppressed}
    answer: dict[str, Any] = msgspec.json.decode(accepted.answer)
    for message in cast(list[dict[str, Any]], answer.get("data", [answer])):
        for delivery in message.get("deliveries", ()):
            if delivery["id"] in ids:
                delivery["state"] = "suppressed"
    return Reply(_ENCODER.encode(answer))


def _summary(message: Message) -> MessageSummary:
    number, at, version = message.template.partition("@")
    template = f"{encode(Prefix.TEMPLATE, int(number))}@{version}" if at else message.template
    return MessageSummary(
        encode(Prefix.MESSAGE, message.id),
        message.stream,
        message.sender,
        message.subject,
        template,
        message.created_at,
    )


def _delivery(row: Delivery, happenings: Sequence[Happening]) -> DeliveryView:
    return DeliveryView(
        id=encode(Prefix.DELIVERY, row.id),
        to=row.recipient,
        state=row.state,
        attempts=row.attempts,
        code=row.code,
        enhanced=row.enhanced,
        reply=row.reply,
        bounce_class=row.bounce_class,
        next_at=row.next_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        events=[
            HappeningView(one.kind, one.at, one.attempt, one.code, one.enhanced, one.reply, one.bounce_class)
            for one in happenings
        ],
    )
