"""`/v1/templates/{id}/actions`: see a template as a contact would, and send it to an address. How: `api/trial`."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from gateway.api import trial
from gateway.api.described import Address, ContactId
from gateway.api.endpoint import Call, Routes
from gateway.api.messages import AcceptedMessage
from gateway.api.senders import Mailbox
from gateway.api.serving import Reply
from gateway.api.submission import Variables
from gateway.api.trial import Trial
from gateway.campaigns.render import Rendered
from gateway.model.ids import Prefix
from gateway.model.stream import Stream
from gateway.store import templates
from gateway.store.tenancy import as_site

routes = Routes("templates")


class RenderBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to render for; variables win over what is known of the contact."""

    contact: ContactId | UnsetType = UNSET
    variables: Variables = {}


class TemplateTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """Where to send a template, and as whom it is filled in. By default it goes as marketing mail, as a broadcast would."""

    sender: str | Mailbox
    to: Address
    contact: ContactId | UnsetType = UNSET
    variables: Variables = {}
    stream: Stream = Stream.MARKETING


_TEST: Final = msgspec.json.Decoder(TemplateTest)


@routes.add(
    "POST", "/v1/templates/{id}/actions/render", body=RenderBody, answer=Rendered, scopes={"read", "campaigns"}
)  # fmt: skip
async def render_template(call: Call, data: RenderBody) -> Rendered:
    """Render a template as a contact would get it, less tracking; sends nothing."""
    template = await templates.get_template(call.connection, call.id(Prefix.TEMPLATE))
    return await trial.render(
        template, await trial.variables_of(call.connection, data.contact, data.variables)
    )


@routes.add(
    "POST", "/v1/templates/{id}/actions/test", body=TemplateTest, answer=AcceptedMessage, status=trial.STATUS,
    scopes={"campaigns"}, own_transaction=True, problems={"domain_unverified"},
)  # fmt: skip
async def test_template(call: Call) -> Reply:
    """Send a template to an address."""
    template_id = call.id(Prefix.TEMPLATE)
    data, once = await trial.read_trial(call, _TEST)
    async with as_site(call.services.pool, call.site_id) as connection:
        template = await templates.get_template(connection, template_id)
    one = Trial(template, data.sender, data.to, data.contact, data.variables, data.stream)
    return await trial.send_trial(call, one, once)
