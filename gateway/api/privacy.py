"""What a person may ask of a site: `…/export`, `…/sent` and `…/actions/erase` of a contact, and `/v1/erasures`.

An address that is no contact (transactional mail has none) is forgotten by `POST /v1/erasures`. Must not know how a thing is found or
forgotten (`store/privacy`, `store/retention`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.api.contacts import ContactView, show_contact
from gateway.api.endpoint import Call, Routes
from gateway.api.page import Page, page
from gateway.api.suppressions import SuppressionView, show_suppression
from gateway.errors import Invalid
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.store import contacts, privacy, retention, suppressions
from gateway.store.privacy import Erasure, Sent
from gateway.store.suppressions import Filters

routes = Routes("privacy")

_SUPPRESSIONS = 10  # an address has one a scope


class NewErasure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address to forget."""

    email: Annotated[str, Meta(max_length=320)]


class ErasureView(msgspec.Struct, frozen=True):
    """An erasure; whose it is, is forgotten with it. `deliveries`: how many went to that address, as far as it has come."""

    id: str
    state: Literal["running", "completed"]
    deliveries: int
    created_at: datetime
    ended_at: datetime | None


class MembershipView(msgspec.Struct, frozen=True):
    """A list that the contact is on."""

    list: str
    name: str
    added_at: datetime


class Export(msgspec.Struct, frozen=True):
    """All that is kept of a contact; what was sent to it: `…/sent`."""

    contact: ContactView
    lists: list[MembershipView]
    suppressions: list[SuppressionView]


class SentView(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """One delivery to the contact. `subject`: empty once the content is erased."""

    id: str
    message: str
    broadcast: str | None
    stream: str
    sender: str
    subject: str
    state: str
    accepted_at: datetime
    ended_at: datetime | None


@routes.add("GET", "/v1/contacts/{id}/export", answer=Export, scopes={"contacts"}, campaigns=True)
async def export_contact(call: Call) -> Export:
    """Give all that is kept of a contact but what was sent to it."""
    contact = await contacts.get_contact(call.connection, call.id(Prefix.CONTACT))
    lists = await privacy.list_memberships(call.connection, contact.id)
    of_address = await suppressions.list_suppressions(
        call.connection, call.site_id, ("", ""), _SUPPRESSIONS, Filters(email=contact.email)
    )
    return Export(
        show_contact(contact),
        [MembershipView(encode(Prefix.LIST, one.list_id), one.name, one.added_at) for one in lists],
        [show_suppression(one) for one in of_address.suppressions],
    )


@routes.add("GET", "/v1/contacts/{id}/sent", answer=Page[SentView], scopes={"contacts"}, campaigns=True)
async def list_sent(call: Call) -> Page[SentView]:
    """List what was sent to a contact, oldest message first. A page looks at 10,000 deliveries of the site: it may hold few, or none, while `has_more`."""
    limit, after = call.limit(), call.after(Prefix.DELIVERY)
    contact = await contacts.get_contact(call.connection, call.id(Prefix.CONTACT))
    found = await privacy.find_sent(call.connection, call.site_id, contact.email, after, limit)
    following = encode(Prefix.DELIVERY, found.until) if found.more else None
    return Page([_sent(one) for one in found.sent], has_more=found.more, next=following)


@routes.add(
    "POST", "/v1/contacts/{id}/actions/erase", answer=ErasureView, status=202, scopes={"contacts"}, campaigns=True
)  # fmt: skip
async def erase_contact(call: Call) -> ErasureView:
    """Remove a contact, and forget its address in all that was sent to it; suppressions stay."""
    contact = await contacts.get_contact(call.connection, call.id(Prefix.CONTACT))
    return _erasure(await privacy.begin_erasure(call.connection, call.site_id, contact.email))


@routes.add("POST", "/v1/erasures", body=NewErasure, answer=ErasureView, status=202, scopes={"contacts"})
async def erase_address(call: Call, data: NewErasure) -> ErasureView:
    """Forget an address in all that was sent to it, and the contact that has it; suppressions stay."""
    try:
        email = parse(data.email).wire
    except AddressError as error:
        raise Invalid([("/email", str(error))]) from error
    return _erasure(await privacy.begin_erasure(call.connection, call.site_id, email))


@routes.add("GET", "/v1/erasures", answer=Page[ErasureView], scopes={"contacts"})
async def list_erasures(call: Call) -> Page[ErasureView]:
    """List the erasures, oldest first."""
    limit = call.limit()
    rows = await privacy.list_erasures(call.connection, call.site_id, call.after(Prefix.ERASURE), limit + 1)
    return page(rows, limit, _erasure, lambda one: encode(Prefix.ERASURE, one.id))


@routes.add("GET", "/v1/erasures/{id}", answer=ErasureView, scopes={"contacts"})
async def get_erasure(call: Call) -> ErasureView:
    """Show an erasure: how far it is."""
    return _erasure(await privacy.get_erasure(call.connection, call.id(Prefix.ERASURE)))


@routes.add(
    "POST", "/v1/messages/{id}/actions/erase", answer=None, status=204, scopes={"contacts"}, problems={"conflict"}
)  # fmt: skip
async def erase_message(call: Call) -> None:
    """Erase a message that has ended: its content, its recipients and the replies about them; its states stay. No broadcast's."""
    await retention.erase_message(call.connection, call.site_id, call.id(Prefix.MESSAGE))


def _erasure(erasure: Erasure) -> ErasureView:
    return ErasureView(
        encode(Prefix.ERASURE, erasure.id),
        "running" if erasure.ended_at is None else "completed",
        erasure.deliveries,
        erasure.created_at,
        erasure.ended_at,
    )


def _sent(sent: Sent) -> SentView:
    return SentView(
        encode(Prefix.DELIVERY, sent.id),
        encode(Prefix.MESSAGE, sent.message_id),
        None if sent.broadcast_id is None else encode(Prefix.BROADCAST, sent.broadcast_id),
        sent.stream,
        sent.sender,
        sent.subject,
        sent.state,
        sent.accepted_at,
        sent.ended_at,
    )
