"""`/v1/suppressions` as calls. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.client.bodies import NewSuppression, Scope
from gateway.client.call import CSV, PAGE_SIZE, Call, Page, Pages, at, body_of, query_of
from gateway.client.results import Suppression, SuppressionImport

TIMEOUT_S: Final = 600.0
"""For whole files."""


def add(suppression: NewSuppression, *, idempotency_key: str = "") -> Call[Suppression]:
    """Suppress an address; one that is suppressed already stays as it is."""
    return Call(
        "POST", "/v1/suppressions", Suppression, body=body_of(suppression), idempotency_key=idempotency_key
    )


def find(
    *,
    email: str | None = None,
    scope: Scope | None = None,
    reason: str | None = None,
    page_size: int = PAGE_SIZE,
) -> Pages[Suppression]:
    """All suppressions, by address, or those of an address, in a scope, for a reason such as `hard_bounce`."""
    query = query_of(email=email, scope=scope, reason=reason)
    return Pages("/v1/suppressions", Page[Suppression], query, page_size)


def add_file(file: Path | bytes, *, idempotency_key: str = "") -> Call[SuppressionImport]:
    """Suppress the addresses of a CSV file (or its content): `email`, and if wanted `scope`, `reason`, `evidence`.

    Returns when all of it was read; the same file again adds nothing.
    """
    return Call(
        "POST", "/v1/suppressions/import", SuppressionImport, body=file, content_type=CSV, idempotency_key=idempotency_key,
        timeout_s=TIMEOUT_S,
    )  # fmt: skip


def export(
    *, email: str | None = None, scope: Scope | None = None, reason: str | None = None
) -> Call[str]:  # fmt: skip
    """The suppressions as a CSV file that `add_file` reads; whole in memory, where `find` gives one at a time."""
    query = query_of(email=email, scope=scope, reason=reason)
    return Call("GET", "/v1/suppressions/export.csv", str, query, timeout_s=TIMEOUT_S)


def remove(email: str, *, scope: Scope | None = None) -> Call[None]:
    """Let an address be written to again, in one scope or in both."""
    return Call("DELETE", at("/v1/suppressions/{}", email), type(None), query_of(scope=scope))
