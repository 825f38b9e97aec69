"""`/v1/lists`: lists of contacts and who is on them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api.contacts import ContactView, show_contact
from gateway.api.described import ContactId
from gateway.api.endpoint import Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid
from gateway.model.ids import Prefix, decode, encode
from gateway.store import lists
from gateway.store.lists import ContactList

routes = Routes("lists")


class NewList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list to make, or another name for one."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]


class ListView(msgspec.Struct, frozen=True):
    """A list and the number of its members."""

    id: str
    name: str
    members: int
    created_at: datetime


class NewMembers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A contact to put on a list, or up to 1,000 of them."""

    contact: ContactId | UnsetType = UNSET
    contacts: Annotated[list[ContactId], Meta(min_length=1, max_length=1_000)] | UnsetType = UNSET


@routes.add(
    "POST", "/v1/lists", body=NewList, answer=ListView, status=201, scopes={"contacts"}, campaigns=True,
    problems={"conflict"},
)  # fmt: skip
async def create_list(call: Call, data: NewList) -> ListView:
    """Make a list."""
    return _view(await lists.create_list(call.connection, call.site_id, data.name))


@routes.add("GET", "/v1/lists", answer=Page[ListView], scopes={"read", "contacts"}, campaigns=True)
async def list_lists(call: Call) -> Page[ListView]:
    """List the lists."""
    limit = call.limit()
    rows = await lists.list_lists(call.connection, call.site_id, call.after(Prefix.LIST), limit + 1)
    return page(rows, limit, _view, lambda one: encode(Prefix.LIST, one.id))


@routes.add("GET", "/v1/lists/{id}", answer=ListView, scopes={"read", "contacts"}, campaigns=True)
async def get_list(call: Call) -> ListView:
    """Show a list."""
    return _view(await lists.get_list(call.connection, call.id(Prefix.LIST)))


@routes.add(
    "PATCH", "/v1/lists/{id}", body=NewList, answer=ListView, scopes={"contacts"}, campaigns=True,
    problems={"conflict"},
)  # fmt: skip
async def change_list(call: Call, data: NewList) -> ListView:
    """Give a list another name."""
    return _view(await lists.change_list(call.connection, call.id(Prefix.LIST), data.name))


@routes.add(
    "DELETE", "/v1/lists/{id}", answer=None, status=204, scopes={"contacts"}, campaigns=True, problems={"conflict"}
)  # fmt: skip
async def delete_list(call: Call) -> None:
    """Remove a list that no broadcast uses; its contacts stay."""
    await lists.delete_list(call.connection, call.id(Prefix.LIST))


@routes.add(
    "GET", "/v1/lists/{id}/members", answer=Page[ContactView], scopes={"read", "contacts"}, campaigns=True
)
async def list_members(call: Call) -> Page[ContactView]:
    """List who is on a list."""
    limit, after = call.limit(), call.after(Prefix.CONTACT)
    one = await lists.get_list(call.connection, call.id(Prefix.LIST))
    rows = await lists.list_members(call.connection, one.id, after, limit + 1)
    return page(rows, limit, show_contact, lambda contact: encode(Prefix.CONTACT, contact.id))


@routes.add(
    "POST", "/v1/lists/{id}/members", body=NewMembers, answer=None, status=204, scopes={"contacts"}, campaigns=True,
    rules={"oneOf": [{"required": ["contact"]}, {"required": ["contacts"]}]},
)  # fmt: skip
async def add_members(call: Call, data: NewMembers) -> None:
    """Put a contact on a list, or many, all or none of them; who is on it already stays on it."""
    list_id = call.id(Prefix.LIST)
    if (data.contact is UNSET) == (data.contacts is UNSET):
        raise Invalid([("", "expected either contact or contacts")])
    if data.contact is not UNSET:
        await lists.add_member(call.connection, list_id, decode(Prefix.CONTACT, data.contact, "/contact"))
        return
    given = [] if data.contacts is UNSET else data.contacts
    ids = [decode(Prefix.CONTACT, text, f"/contacts/{place}") for place, text in enumerate(given)]
    await lists.get_list(call.connection, list_id)
    there = await lists.add_members(call.connection, list_id, sorted(set(ids)))
    missing = [
        (f"/contacts/{place}", "there is no such contact")
        for place, id_ in enumerate(ids)
        if id_ not in there
    ]
    if missing:
        raise Invalid(missing)  # the transaction is rolled back: nobody was put on the list


@routes.add(
    "DELETE", "/v1/lists/{id}/members/{contact}", answer=None, status=204, scopes={"contacts"}, campaigns=True
)  # fmt: skip
async def remove_member(call: Call) -> None:
    """Take a contact off a list."""
    await lists.remove_member(call.connection, call.id(Prefix.LIST), call.id(Prefix.CONTACT, "contact"))


def _view(one: ContactList) -> ListView:
    return ListView(encode(Prefix.LIST, one.id), one.name, one.members, one.created_at)
