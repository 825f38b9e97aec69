"""`/v1/contacts` and `/v1/lists`: people and the lists they are on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.api.endpoint import Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid
from gateway.model.address import Address, AddressError, parse
from gateway.model.ids import Prefix, decode, encode
from gateway.store import contacts
from gateway.store.contacts import Contact, ContactList, NewContact

routes = Routes("contacts")

Name = Annotated[str, Meta(max_length=2_000)]
Tag = Annotated[str, Meta(min_length=1, max_length=100)]
FieldName = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_]{0,62}$")]


class ContactBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A contact to make."""

    email: Annotated[str, Meta(max_length=320)]
    first_name: Name = ""
    last_name: Name = ""
    phone: Annotated[str, Meta(max_length=50)] = ""
    tags: Annotated[list[Tag], Meta(max_length=100)] = []
    fields: Annotated[dict[FieldName, Any], Meta(max_length=200)] = {}


class ContactView(msgspec.Struct, frozen=True):
    """A contact."""

    id: str
    email: str
    first_name: str
    last_name: str
    phone: str
    tags: list[str]
    fields: msgspec.Raw
    source: str
    created_at: datetime
    updated_at: datetime


class NewList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list to make."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]


class ListView(msgspec.Struct, frozen=True):
    """A list and the number of its members."""

    id: str
    name: str
    members: int
    created_at: datetime


class NewMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A contact to put on a list."""

    contact: str


@routes.add(
    "POST", "/v1/contacts", body=ContactBody, answer=ContactView, status=201, scopes={"contacts"}, campaigns=True
)  # fmt: skip
async def create_contact(call: Call, data: ContactBody) -> ContactView:
    """Make a contact."""
    address = _address(data.email, "/email")
    made = await contacts.create_contact(
        call.connection,
        call.site_id,
        NewContact(
            address.wire, address.domain, data.first_name, data.last_name, data.phone, tuple(dict.fromkeys(data.tags)),
            data.fields,
        ),
    )  # fmt: skip
    return _contact(made)


@routes.add(
    "GET", "/v1/contacts", answer=Page[ContactView], scopes={"read", "contacts"}, campaigns=True,
    query={"email": "only the contact with this address"},
)  # fmt: skip
async def list_contacts(call: Call) -> Page[ContactView]:
    """List the contacts."""
    limit = call.limit()
    email = call.query("email")
    email = None if email is None else _address(email, "").wire
    rows = await contacts.list_contacts(
        call.connection, call.site_id, call.after(Prefix.CONTACT), limit + 1, email
    )
    return page(rows, limit, _contact, lambda contact: encode(Prefix.CONTACT, contact.id))


@routes.add("GET", "/v1/contacts/{id}", answer=ContactView, scopes={"read", "contacts"}, campaigns=True)
async def get_contact(call: Call) -> ContactView:
    """Show a contact."""
    return _contact(await contacts.get_contact(call.connection, call.id(Prefix.CONTACT)))


@routes.add("DELETE", "/v1/contacts/{id}", answer=None, status=204, scopes={"contacts"}, campaigns=True)
async def delete_contact(call: Call) -> None:
    """Remove a contact; what was sent to it stays in the books."""
    await contacts.delete_contact(call.connection, call.id(Prefix.CONTACT))


@routes.add(
    "POST", "/v1/lists", body=NewList, answer=ListView, status=201, scopes={"contacts"}, campaigns=True
)  # fmt: skip
async def create_list(call: Call, data: NewList) -> ListView:
    """Make a list."""
    return _list(await contacts.create_list(call.connection, call.site_id, data.name))


@routes.add("GET", "/v1/lists", answer=Page[ListView], scopes={"read", "contacts"}, campaigns=True)
async def list_lists(call: Call) -> Page[ListView]:
    """List the lists."""
    limit = call.limit()
    rows = await contacts.list_lists(call.connection, call.site_id, call.after(Prefix.LIST), limit + 1)
    return page(rows, limit, _list, lambda one: encode(Prefix.LIST, one.id))


@routes.add("GET", "/v1/lists/{id}", answer=ListView, scopes={"read", "contacts"}, campaigns=True)
async def get_list(call: Call) -> ListView:
    """Show a list."""
    return _list(await contacts.get_list(call.connection, call.id(Prefix.LIST)))


@routes.add("DELETE", "/v1/lists/{id}", answer=None, status=204, scopes={"contacts"}, campaigns=True)
async def delete_list(call: Call) -> None:
    """Remove a list that no broadcast uses; its contacts stay."""
    await contacts.delete_list(call.connection, call.id(Prefix.LIST))


@routes.add(
    "POST", "/v1/lists/{id}/members", body=NewMember, answer=None, status=204, scopes={"contacts"}, campaigns=True
)  # fmt: skip
async def add_member(call: Call, data: NewMember) -> None:
    """Put a contact on a list."""
    contact_id = decode(Prefix.CONTACT, data.contact, "/contact")
    await contacts.add_member(call.connection, call.id(Prefix.LIST), contact_id)


@routes.add(
    "DELETE", "/v1/lists/{id}/members/{contact}", answer=None, status=204, scopes={"contacts"}, campaigns=True
)  # fmt: skip
async def remove_member(call: Call) -> None:
    """Take a contact off a list."""
    await contacts.remove_member(call.connection, call.id(Prefix.LIST), call.id(Prefix.CONTACT, "contact"))


def _address(text: str, pointer: str) -> Address:
    try:
        return parse(text)
    except AddressError as error:
        raise Invalid([(pointer, f"email: {error}")]) from error


def _contact(contact: Contact) -> ContactView:
    return ContactView(
        id=encode(Prefix.CONTACT, contact.id),
        email=contact.email,
        first_name=contact.first_name,
        last_name=contact.last_name,
        phone=contact.phone,
        tags=contact.tags,
        fields=msgspec.Raw(contact.fields),
        source=contact.source,
        created_at=contact.created_at,
        updated_at=contact.updated_at,
    )


def _list(one: ContactList) -> ListView:
    return ListView(encode(Prefix.LIST, one.id), one.name, one.members, one.created_at)
