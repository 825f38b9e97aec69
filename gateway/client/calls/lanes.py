"""`/v1/lanes` as calls, for an operator's key. Pure."""

from __future__ import annotations

from gateway.client.administration import Lane
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of, given, query_of


def find(
    *, domain: str | None = None, suspended: bool = False, page_size: int = PAGE_SIZE
) -> Pages[Lane]:  # fmt: skip
    """All lanes, that of a recipient domain, or those that are suspended."""
    query = query_of(domain=domain, suspended="true" if suspended else None)
    return Pages("/v1/lanes", Page[Lane], query, page_size)


def get(lane: str) -> Call[Lane]:
    """Show a lane: its limits, its backlog, and what holds it."""
    return Call("GET", at("/v1/lanes/{}", lane), Lane)


def limit(
    lane: str,
    *,
    for_s: float,
    why: str,
    rate_per_s: float | None = None,
    burst: int | None = None,
    max_connections: int | None = None,
) -> Call[Lane]:
    """Give a lane limits for a time, at once; what is not said stays as the throttles have it."""
    said = {
        "for_s": for_s,
        "why": why,
        "rate_per_s": rate_per_s,
        "burst": burst,
        "max_connections": max_connections,
    }
    return Call("PUT", at("/v1/lanes/{}/limit", lane), Lane, body=body_of(given(said)))


def unlimit(lane: str) -> Call[None]:
    """End the limits that an operator gave."""
    return Call("DELETE", at("/v1/lanes/{}/limit", lane), type(None))


def suspend(lane: str, why: str, *, for_s: float | None = None, idempotency_key: str = "") -> Call[Lane]:
    """Let nothing more leave through a lane, for a time or until it is resumed."""
    body = body_of(given({"why": why, "for_s": for_s}))
    path = at("/v1/lanes/{}/actions/suspend", lane)
    return Call("POST", path, Lane, body=body, idempotency_key=idempotency_key)


def drain(lane: str, why: str, *, idempotency_key: str = "") -> Call[Lane]:
    """Claim nothing more from a lane until it is resumed, and let what is in hand finish: it is drained when `leased` is 0."""
    path = at("/v1/lanes/{}/actions/drain", lane)
    return Call("POST", path, Lane, body=body_of({"why": why}), idempotency_key=idempotency_key)


def resume(lane: str, *, idempotency_key: str = "") -> Call[Lane]:
    """Let a suspended lane go on at once, whoever suspended it."""
    return Call("POST", at("/v1/lanes/{}/actions/resume", lane), Lane, idempotency_key=idempotency_key)
