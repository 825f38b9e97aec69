"""`/v1/domains` as calls, for a key with the scope `admin`. Pure."""

from __future__ import annotations

from gateway.client.administration import Domain
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of


def create(name: str, *, ed25519: bool = False, idempotency_key: str = "") -> Call[Domain]:
    """Add a sending domain and make its DKIM keys; `records` are to be published. With `ed25519` it is signed so as well."""
    body = body_of({"name": name, "ed25519": ed25519})
    return Call("POST", "/v1/domains", Domain, body=body, idempotency_key=idempotency_key)


def get(domain: str) -> Call[Domain]:
    """Show a sending domain and its records."""
    return Call("GET", at("/v1/domains/{}", domain), Domain)


def find(*, page_size: int = PAGE_SIZE) -> Pages[Domain]:
    """All sending domains."""
    return Pages("/v1/domains", Page[Domain], page_size=page_size)


def rotate(domain: str, *, idempotency_key: str = "") -> Call[Domain]:
    """Sign with the spare DKIM key from now on; the other one stays published."""
    return Call("POST", at("/v1/domains/{}/actions/rotate", domain), Domain, idempotency_key=idempotency_key)


def mark_verified(domain: str, *, idempotency_key: str = "") -> Call[Domain]:
    """Vouch for a domain, in place of the check of its records. For an operator's key."""
    path = at("/v1/domains/{}/actions/mark_verified", domain)
    return Call("POST", path, Domain, idempotency_key=idempotency_key)
