"""`POST /v1/messages`: the door in. One message, or up to 1,000 that are answered item by item. What became of them: `api/status`.

The hot path: decoded and checked here, accepted by `store/intake` in one round trip. An item that cannot be taken does not stop
the others; what is accepted of one request is one transaction, with the answer under its Idempotency-Key.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from msgspec import Meta

from gateway.api.decode import decode
from gateway.api.endpoint import Call, Routes
from gateway.api.errors import ProblemBody, describe
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
from gateway.model.ids import Prefix, delivery_ids, encode
from gateway.store import idempotency, templates
from gateway.store.intake import Accepted, Once, Submission
from gateway.store.tenancy import as_site

routes = Routes("messages")

Items = Annotated[list[MessageBody], Meta(min_length=1, max_length=ITEMS_LIMIT)]
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


@routes.add(
    "POST", "/v1/messages", body=MessageBody | Items, answer=AcceptedMessage | BatchAnswer, status=_STATUS,
    scopes={"send"}, own_transaction=True, problems={"domain_unverified"},
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
        await count(call, [one for _, one in taken])
    except Problem:
        if once is not None and (stored := await stored_answer(call, once)) is not None:
            return accepted_reply(stored)
        raise

    def answer(numbers: Sequence[int]) -> bytes:
        shown = [accepted_message(number, one, now) for number, (_, one) in zip(numbers, taken, strict=True)]
        if not is_batch:
            return _ENCODER.encode(shown[0])
        whole = refused | {
            place: BatchItem(one.id, one.deliveries) for (place, _), one in zip(taken, shown, strict=True)
        }
        return _ENCODER.encode(BatchAnswer([whole[place] for place in range(len(whole))]))

    if not taken:  # nothing to store, so nothing to repeat either
        return Reply(answer([]))
    accepted = await call.services.intake.submit(call.site_id, [one for _, one in taken], now, answer, once)
    return accepted_reply(accepted)


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


async def count(call: Call, submissions: Sequence[Submission]) -> None:
    """Count what is about to be accepted against the site's backlog.

    Raises:
        RateLimited: too much of it waits already.
    """
    await call.services.backlogs.add(call.site_id, submissions, call.services.config.api.backlog_limit)


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


async def stored_answer(call: Call, once: Once) -> Accepted | None:
    """What was answered to a request that would be refused now: its domain may have gone since."""
    async with as_site(call.services.pool, call.site_id) as connection:
        found = await idempotency.find(connection, call.site_id, once.key, once.digest)
    return None if found is None else Accepted(found.status, found.answer, found.suppressed, replayed=True)


def accepted_message(number: int, one: Submission, now: datetime) -> AcceptedMessage:
    """Show a message that was accepted, as if nobody were suppressed."""
    deliveries = one.deliveries
    ids = delivery_ids(number, len(deliveries.recipients))
    state = "deferred" if deliveries.due_at > now else "queued"
    return AcceptedMessage(
        encode(Prefix.MESSAGE, number),
        [DeliveryRef(id_, to, state) for id_, to in zip(ids, deliveries.recipients, strict=True)],
    )


def accepted_reply(accepted: Accepted) -> Reply:
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
