"""`/v1/lists` as calls. Pure."""

from __future__ import annotations

from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of
from gateway.client.results import ContactList


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
