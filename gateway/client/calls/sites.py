"""`/v1/sites` as calls, for an operator's key; a site's own may `get` itself. Pure."""

from __future__ import annotations

from gateway.client.administration import Site
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of, given


def create(
    name: str, *, time_zone: str = "UTC", campaigns: bool = True, idempotency_key: str = ""
) -> Call[Site]:
    """Make a site; `campaigns`: whether it may use contacts, lists, imports and broadcasts."""
    body = body_of({"name": name, "time_zone": time_zone, "campaigns": campaigns})
    return Call("POST", "/v1/sites", Site, body=body, idempotency_key=idempotency_key)


def get(site: str) -> Call[Site]:
    """Show a site."""
    return Call("GET", at("/v1/sites/{}", site), Site)


def find(*, page_size: int = PAGE_SIZE) -> Pages[Site]:
    """All sites."""
    return Pages("/v1/sites", Page[Site], page_size=page_size)


def change(
    site: str, *, name: str | None = None, time_zone: str | None = None, campaigns: bool | None = None
) -> Call[Site]:
    """Change a site; what is not said stays. Without campaigns nothing more of them is begun."""
    body = body_of(given({"name": name, "time_zone": time_zone, "campaigns": campaigns}))
    return Call("PATCH", at("/v1/sites/{}", site), Site, body=body)


def hold(site: str, why: str, *, idempotency_key: str = "") -> Call[Site]:
    """Stop all sending of a site; what it submits is accepted and waits."""
    path = at("/v1/sites/{}/actions/hold", site)
    return Call("POST", path, Site, body=body_of({"why": why}), idempotency_key=idempotency_key)


def release(site: str, *, idempotency_key: str = "") -> Call[Site]:
    """Let a site send again."""
    return Call("POST", at("/v1/sites/{}/actions/release", site), Site, idempotency_key=idempotency_key)
