"""`/v1/contacts` as calls. Pure."""

from __future__ import annotations

from gateway.client.bodies import ContactChange, NewContact
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of, query_of
from gateway.client.results import Contact


def create(contact: NewContact, *, idempotency_key: str = "") -> Call[Contact]:
    """Make a contact."""
    return Call("POST", "/v1/contacts", Contact, body=body_of(contact), idempotency_key=idempotency_key)


def get(contact: str) -> Call[Contact]:
    """Show a contact."""
    return Call("GET", at("/v1/contacts/{}", contact), Contact)


def find(
    *,
    email: str | None = None,
    search: str | None = None,
    tag: str | None = None,
    in_list: str | None = None,
    page_size: int = PAGE_SIZE,
) -> Pages[Contact]:
    """All contacts, the one with an address, or those with a text in address, name or phone, with a tag, on a list."""
    query = query_of(email=email, search=search, tag=tag, list=in_list)
    return Pages("/v1/contacts", Page[Contact], query, page_size)


def change(contact: str, changes: ContactChange) -> Call[Contact]:
    """Change a contact; what was sent to it stays in the books, under the address of then."""
    return Call("PATCH", at("/v1/contacts/{}", contact), Contact, body=body_of(changes))


def delete(contact: str) -> Call[None]:
    """Remove a contact; what was sent to it stays in the books."""
    return Call("DELETE", at("/v1/contacts/{}", contact), type(None))
