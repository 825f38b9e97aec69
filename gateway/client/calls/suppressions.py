"""`/v1/suppressions` as calls. Pure."""

from __future__ import annotations

from gateway.client.bodies import NewSuppression, Scope
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of, query_of
from gateway.client.results import Suppression


def add(suppression: NewSuppression, *, idempotency_key: str = "") -> Call[Suppression]:
    """Suppress an address; one that is suppressed already stays as it is."""
    return Call(
        "POST", "/v1/suppressions", Suppression, body=body_of(suppression), idempotency_key=idempotency_key
    )


def find(*, page_size: int = PAGE_SIZE) -> Pages[Suppression]:
    """All suppressions, by address."""
    return Pages("/v1/suppressions", Page[Suppression], page_size=page_size)


def remove(email: str, *, scope: Scope | None = None) -> Call[None]:
    """Let an address be written to again, in one scope or in both."""
    return Call("DELETE", at("/v1/suppressions/{}", email), type(None), query_of(scope=scope))
