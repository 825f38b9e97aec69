"""What is kept of a person, and its end, as calls: exports and erasures. Pure."""

from __future__ import annotations

from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of
from gateway.client.results import ContactExport, Erasure, Sent


def export_contact(contact: str) -> Call[ContactExport]:
    """Give all that is kept of a contact but what was sent to it (`sent`)."""
    return Call("GET", at("/v1/contacts/{}/export", contact), ContactExport)


def sent(contact: str, *, page_size: int = PAGE_SIZE) -> Pages[Sent]:
    """All that was sent to a contact, the oldest first."""
    return Pages(at("/v1/contacts/{}/sent", contact), Page[Sent], {}, page_size)


def erase_contact(contact: str, *, idempotency_key: str = "") -> Call[Erasure]:
    """Remove a contact, and forget its address in all that was sent to it."""
    path = at("/v1/contacts/{}/actions/erase", contact)
    return Call("POST", path, Erasure, idempotency_key=idempotency_key)


def erase_address(email: str, *, idempotency_key: str = "") -> Call[Erasure]:
    """Forget an address in all that was sent to it, and the contact that has it."""
    return Call(
        "POST", "/v1/erasures", Erasure, body=body_of({"email": email}), idempotency_key=idempotency_key
    )


def erase_message(message: str, *, idempotency_key: str = "") -> Call[None]:
    """Erase a message that has ended: its content, its recipients and the replies about them."""
    return Call("POST", at("/v1/messages/{}/actions/erase", message), type(None), idempotency_key=idempotency_key)  # fmt: skip


def get(erasure: str) -> Call[Erasure]:
    """Show an erasure: how far it is."""
    return Call("GET", at("/v1/erasures/{}", erasure), Erasure)


def find(*, page_size: int = PAGE_SIZE) -> Pages[Erasure]:
    """All erasures, the oldest first."""
    return Pages("/v1/erasures", Page[Erasure], {}, page_size)
