"""`/v1/contacts`: people. The lists that they are on: `api/lists`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api.described import ADDRESS, Described, id_schema
from gateway.api.described import Address as EmailAddress
from gateway.api.endpoint import Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid
from gateway.model.address import Address, AddressError, parse
from gateway.model.ids import Prefix, decode, encode
from gateway.store import contacts
from gateway.store.contacts import Change, Contact, Filters, NewContact

routes = Routes("contacts")

Name = Annotated[str, Meta(max_length=2_000)]
Phone = Annotated[str, Meta(max_length=50)]
Tag = Annotated[str, Meta(min_length=1, max_length=100)]
Tags = Annotated[list[Tag], Meta(max_length=100)]
FieldName = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_]{0,62}$")]
Fields = Annotated[dict[FieldName, Any], Meta(max_length=200)]
_SEARCH_LIMIT: Final = 200


class ContactBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A contact to make."""

    email: EmailAddress
    first_name: Name = ""
    last_name: Name = ""
    phone: Phone = ""
    tags: Tags = []
    fields: Fields = {}


class ContactChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed of a contact; what is left out stays. Of `fields` those that are given; one that is null goes (RFC 7396)."""

    email: EmailAddress | UnsetType = UNSET
    first_name: Name | UnsetType = UNSET
    last_name: Name | UnsetType = UNSET
    phone: Phone | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    fields: Fields = {}


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


@routes.add(
    "POST", "/v1/contacts", body=ContactBody, answer=ContactView, status=201, scopes={"contacts"}, campaigns=True,
    problems={"conflict"},
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
    return show_contact(made)


@routes.add(
    "GET", "/v1/contacts", answer=Page[ContactView], scopes={"read", "contacts"}, campaigns=True,
    query={
        "email": Described("only the contact with this address", ADDRESS),
        "search": Described(
            "with this in address, name or phone, in any case of letters", {"type": "string", "maxLength": _SEARCH_LIMIT}
        ),
        "tag": "with this tag",
        "list": Described("on this list", id_schema(Prefix.LIST, empty=True)),
    },
)  # fmt: skip
async def list_contacts(call: Call) -> Page[ContactView]:
    """List the contacts. With filters a page looks at 5,000 at most: it may hold few, or none, while `has_more`."""
    limit, after = call.limit(), call.after(Prefix.CONTACT)
    filters = _filters(call)
    email = call.query("email")
    if filters == Filters():
        email = None if email is None else _address(email, "").wire
        rows = await contacts.list_contacts(call.connection, call.site_id, after, limit + 1, email)
        return page(rows, limit, show_contact, lambda contact: encode(Prefix.CONTACT, contact.id))
    if email is not None:
        raise Invalid([("", "email: not together with search, tag or list")])
    found = await contacts.find_contacts(call.connection, call.site_id, filters, after, limit)
    following = encode(Prefix.CONTACT, found.until) if found.more else None
    return Page([show_contact(one) for one in found.contacts], has_more=found.more, next=following)


@routes.add("GET", "/v1/contacts/{id}", answer=ContactView, scopes={"read", "contacts"}, campaigns=True)
async def get_contact(call: Call) -> ContactView:
    """Show a contact."""
    return show_contact(await contacts.get_contact(call.connection, call.id(Prefix.CONTACT)))


@routes.add(
    "PATCH", "/v1/contacts/{id}", body=ContactChange, answer=ContactView, scopes={"contacts"}, campaigns=True,
    problems={"conflict"},
)  # fmt: skip
async def change_contact(call: Call, data: ContactChange) -> ContactView:
    """Change a contact; what was sent to it stays in the books, under the address of then."""
    contact_id = call.id(Prefix.CONTACT)
    address = None if data.email is UNSET else _address(data.email, "/email")
    change = Change(
        email=address and address.wire,
        domain=address and address.domain,
        first_name=None if data.first_name is UNSET else data.first_name,
        last_name=None if data.last_name is UNSET else data.last_name,
        phone=None if data.phone is UNSET else data.phone,
        tags=None if data.tags is UNSET else tuple(dict.fromkeys(data.tags)),
        fields=data.fields,
    )
    return show_contact(await contacts.change_contact(call.connection, contact_id, change))


@routes.add("DELETE", "/v1/contacts/{id}", answer=None, status=204, scopes={"contacts"}, campaigns=True)
async def delete_contact(call: Call) -> None:
    """Remove a contact; what was sent to it stays in the books."""
    await contacts.delete_contact(call.connection, call.id(Prefix.CONTACT))


def show_contact(contact: Contact) -> ContactView:
    """Show a contact."""
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


def _filters(call: Call) -> Filters:
    search, tag, on = (call.query(name) or None for name in ("search", "tag", "list"))
    if search is not None and len(search) > _SEARCH_LIMIT:
        raise Invalid([("", f"search: {len(search)} characters; at most {_SEARCH_LIMIT}")])
    return Filters(search, tag, None if on is None else decode(Prefix.LIST, on))


def _address(text: str, pointer: str) -> Address:
    try:
        return parse(text)
    except AddressError as error:
        raise Invalid([(pointer, f"email: {error}")]) from error
