"""`/v1/keys` as calls, for a key with the scope `admin` or an operator's. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.client.administration import CreatedKey, Key
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of, given, query_of


def create(
    scopes: Sequence[str], *, name: str = "", site: str | None = None, idempotency_key: str = ""
) -> Call[CreatedKey]:
    """Make a key; its text is in this answer and nowhere else. An operator says whose (`site`).

    When the answer was lost and the call was repeated, the text is empty: revoke that key, and make another.
    """
    body = body_of(given({"scopes": list(scopes), "name": name, "site": site}))
    return Call("POST", "/v1/keys", CreatedKey, body=body, idempotency_key=idempotency_key)


def find(*, site: str | None = None, page_size: int = PAGE_SIZE) -> Pages[Key]:
    """All keys of a site, the revoked too."""
    return Pages("/v1/keys", Page[Key], query_of(site=site), page_size)


def rotate(key: str, *, idempotency_key: str = "") -> Call[CreatedKey]:
    """Make a key in the place of another, with its site, name and scopes; the other opens until it is revoked."""
    return Call("POST", at("/v1/keys/{}/actions/rotate", key), CreatedKey, idempotency_key=idempotency_key)


def revoke(key: str, *, idempotency_key: str = "") -> Call[Key]:
    """End a key, within 2 seconds everywhere."""
    return Call("POST", at("/v1/keys/{}/actions/revoke", key), Key, idempotency_key=idempotency_key)
