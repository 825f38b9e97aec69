"""`/v1/lists` as calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of
from gateway.client.results import Contact, ContactList


def create(name: str, *, idempotency_key: str = "") -> Call[ContactList]:
    """Make a list."""
    return Call(
        "POST", "/v1/lists", ContactList, body=body_of({"name": name}), idempotency_key=idempotency_key
    )


def get(list_id: str) -> Call[ContactList]:
    """Show a list."""
    return Call("GET", at("/v1/lists/{}", list_id), ContactList)


def find(*, page_size: int = PAGE_SIZE) -> Pages[ContactList]:
    """All lists."""
    return Pages("/v1/lists", Page[ContactList], page_size=page_size)


def delete(list_id: str) -> Call[None]:
    """Remove a list that no broadcast uses; its contacts stay."""
    return Call("DELETE", at("/v1/lists/{}", list_id), type(None))


def rename(list_id: str, name: str) -> Call[ContactList]:
    """Give a list another name."""
    return Call("PATCH", at("/v1/lists/{}", list_id), ContactList, body=body_of({"name": name}))


def members(list_id: str, *, page_size: int = PAGE_SIZE) -> Pages[Contact]:
    """Who is on a list."""
    return Pages(at("/v1/lists/{}/members", list_id), Page[Contact], page_size=page_size)


def add_many(list_id: str, contacts: Sequence[str], *, idempotency_key: str = "") -> Call[None]:
    """Put up to 1,000 contacts on a list, all or none; who is on it stays on it."""
    body = body_of({"contacts": list(contacts)})
    path = at("/v1/lists/{}/members", list_id)
    return Call("POST", path, type(None), body=body, idempotency_key=idempotency_key)


def add(list_id: str, contact: str, *, idempotency_key: str = "") -> Call[None]:
    """Put a contact on a list; again does nothing."""
    return Call(
        "POST",
        at("/v1/lists/{}/members", list_id),
        type(None),
        body=body_of({"contact": contact}),
        idempotency_key=idempotency_key,
    )


def remove(list_id: str, contact: str) -> Call[None]:
    """Take a contact off a list."""
    return Call("DELETE", at("/v1/lists/{}/members/{}", list_id, contact), type(None))
