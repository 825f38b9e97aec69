"""`/v1/templates/{id}/actions`: see a template as a contact would, and send it to an address.

Owns what a template is filled with here: what a broadcast would say of the contact, and variables of the call, which win. Must not know
Liquid (`campaigns/render`). A test goes the way of every message, through `store/intake`, and is one in lists and books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api.decode import decode
from gateway.api.endpoint import Call, Routes
from gateway.api.messages import AcceptedMessage, accepted_message, accepted_reply, count
from gateway.api.senders import Mailbox
from gateway.api.serving import Reply, digest, idempotency_key, read_body
from gateway.api.submission import Content, MessageBody, Variables, check, submission
from gateway.campaigns.render import Rendered, compile_template
from gateway.errors import Invalid, NotFound, TemplateError
from gateway.model.ids import Prefix, encode
from gateway.model.ids import decode as decode_id
from gateway.model.stream import Stream
from gateway.store import contacts, templates
from gateway.store.intake import Once
from gateway.store.pool import Connection
from gateway.store.tenancy import as_site

routes = Routes("templates")

_STATUS: Final = 202


class RenderBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to render for; variables win over what is known of the contact."""

    contact: str | UnsetType = UNSET
    variables: Variables = {}


class TestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """Where to send it, and as whom it is filled in. By default it goes as marketing mail, as a broadcast would."""

    sender: str | Mailbox
    to: Annotated[str, Meta(max_length=320)]
    contact: str | UnsetType = UNSET
    variables: Variables = {}
    stream: Stream = Stream.MARKETING


_TEST: Final = msgspec.json.Decoder(TestBody)
_ENCODER: Final = msgspec.json.Encoder()


@routes.add(
    "POST", "/v1/templates/{id}/actions/render", body=RenderBody, answer=Rendered, scopes={"read", "campaigns"}
)  # fmt: skip
async def render_template(call: Call, data: RenderBody) -> Rendered:
    """Render a template as a contact would get it, less tracking; sends nothing."""
    template = await templates.get_template(call.connection, call.id(Prefix.TEMPLATE))
    variables = await _variables(call.connection, data.contact, data.variables)
    return await asyncio.to_thread(_render, template, variables)


@routes.add(
    "POST", "/v1/templates/{id}/actions/test", body=TestBody, answer=AcceptedMessage, status=_STATUS,
    scopes={"campaigns"}, own_transaction=True,
)  # fmt: skip
async def send_test(call: Call) -> Reply:
    """Send a template to an address."""
    services = call.services
    template_id = call.id(Prefix.TEMPLATE)
    body = await read_body(call.request, services.config.api.body_limit_bytes)
    key = idempotency_key(call.request)
    once = None if key is None else Once(key, digest(call.request, body), _STATUS)
    data = decode(body, _TEST)
    async with as_site(services.pool, call.site_id) as connection:
        template = await templates.get_template(connection, template_id)
        variables = await _variables(connection, data.contact, data.variables)
    now = services.clock.now()
    item = MessageBody(
        sender=data.sender,
        to=data.to,
        template=encode(Prefix.TEMPLATE, template.id),
        variables=dict(variables),
        stream=data.stream,
    )
    checked = check(item, now, services.config.expiry)
    await asyncio.to_thread(_render, template, variables)  # what cannot be rendered is refused now, not quarantined
    content = Content(template.subject, template.html, template.text, f"{template.id}@{template.version}")
    domain_id = await services.senders.domain_id(call.site_id, checked.sender.domain)
    one = submission(checked, content, domain_id)
    await count(call, [one])

    def answer(numbers: Sequence[int]) -> bytes:
        return _ENCODER.encode(accepted_message(numbers[0], one, now))

    return accepted_reply(await services.intake.submit(call.site_id, [one], now, answer, once))


def _render(template: templates.Template, variables: Mapping[str, Any]) -> Rendered:
    try:
        return compile_template(template.subject, template.html, template.text).render(variables)
    except TemplateError as error:
        raise Invalid([("", f"the template cannot be rendered so: {error}")]) from error


async def _variables(
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
