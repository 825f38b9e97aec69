"""A template as somebody would get it: filled in, and sent to one address. What `actions/test` of templates and broadcasts share.

Owns what it is filled with: what a broadcast would say of a contact, and variables of the call, which win. Must not know Liquid
(`campaigns/render`) or a route. A trial goes the way of every message, through `store/intake`, and is one in lists and books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gateway.api.decode import decode
from gateway.api.described import Address, ContactId
from gateway.api.endpoint import Call
from gateway.api.messages import accepted_message, accepted_reply, count, stored_answer
from gateway.api.senders import Mailbox
from gateway.api.serving import Reply, digest, idempotency_key, read_body
from gateway.api.submission import Content, MessageBody, Variables, check, submission
from gateway.campaigns.render import Rendered, compile_template
from gateway.errors import Invalid, NotFound, Problem, TemplateError
from gateway.model.ids import Prefix, encode
from gateway.model.ids import decode as decode_id
from gateway.model.stream import Stream
from gateway.store import contacts
from gateway.store.intake import Once, Submission
from gateway.store.pool import Connection
from gateway.store.templates import Template
from gateway.store.tenancy import as_site

STATUS: Final = 202

T = TypeVar("T")
_ENCODER: Final = msgspec.json.Encoder()


class Trial(msgspec.Struct, frozen=True):
    """What is sent to whom, filled in as whom."""

    template: Template
    sender: str | Mailbox
    to: str
    contact: str | UnsetType = UNSET
    variables: Mapping[str, Any] = {}
    stream: Stream = Stream.MARKETING
    reply_to: str = ""


class TrialBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to send a broadcast's mail, and as whom it is filled in."""

    to: Address
    contact: ContactId | UnsetType = UNSET
    variables: Variables = {}


async def read_trial(call: Call, decoder: msgspec.json.Decoder[T]) -> tuple[T, Once | None]:
    """Read a body and the key that comes with it.

    Raises:
        Invalid: it is not what it should be.
    """
    body = await read_body(call.request, call.services.config.api.body_limit_bytes)
    key = idempotency_key(call.request)
    once = None if key is None else Once(key, digest(call.request, body), STATUS)
    return decode(body, decoder), once


async def send_trial(call: Call, trial: Trial, once: Once | None) -> Reply:
    """Accept a trial as a message; what cannot be rendered is refused now, not quarantined later.

    Raises:
        Invalid: there is no such contact, no such address, or the template cannot be rendered so.
        DomainUnverified: nothing may be sent from this address.
        RateLimited: too much of the site waits.
    """
    try:
        one, now = await _prepare(call, trial)
        await count(call, [one])
    except Problem:
        if once is not None and (stored := await stored_answer(call, once)) is not None:
            return accepted_reply(stored)
        raise

    def answer(numbers: Sequence[int]) -> bytes:
        return _ENCODER.encode(accepted_message(numbers[0], one, now))

    return accepted_reply(await call.services.intake.submit(call.site_id, [one], now, answer, once))


async def _prepare(call: Call, trial: Trial) -> tuple[Submission, datetime]:
    services, template = call.services, trial.template
    async with as_site(services.pool, call.site_id) as connection:
        variables = await variables_of(connection, trial.contact, trial.variables)
    now = services.clock.now()
    item = MessageBody(
        sender=trial.sender,
        to=trial.to,
        template=encode(Prefix.TEMPLATE, template.id),
        variables=dict(variables),
        reply_to=trial.reply_to,
        stream=trial.stream,
    )
    checked = check(item, now, services.config.expiry)
    await render(template, variables)
    content = Content(template.subject, template.html, template.text, f"{template.id}@{template.version}")
    domain_id = await services.senders.domain_id(call.site_id, checked.sender.domain)
    return submission(checked, content, domain_id), now


async def render(template: Template, variables: Mapping[str, Any]) -> Rendered:
    """Render a template, in a thread of its own: the costly ones take half a second.

    Raises:
        Invalid: it cannot be rendered so; names part and line.
    """

    def work() -> Rendered:
        return compile_template(template.subject, template.html, template.text).render(variables)

    try:
        return await asyncio.to_thread(work)
    except TemplateError as error:
        raise Invalid([("", f"the template cannot be rendered so: {error}")]) from error


async def variables_of(
    connection: Connection, contact: str | UnsetType, given: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What a template may say of a contact, and what the call gives.

    Raises:
        Invalid: there is no such contact.
    """
    if contact is UNSET:
        return given
    try:
        known = await contacts.variables_of(connection, decode_id(Prefix.CONTACT, contact, "/contact"))
    except NotFound:
        raise Invalid([("/contact", "there is no such contact")]) from None
    return {**known, **given}
