"""`/v1/suppressions`: who must not be written to, by hand; bounces and complaints add theirs by themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.api.endpoint import Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid, NotFound
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.store import suppressions
from gateway.store.suppressions import Suppression

routes = Routes("suppressions")

Scope = Literal["all", "marketing"]


class NewSuppression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address to suppress."""

    email: Annotated[str, Meta(max_length=320)]
    scope: Scope = "all"
    reason: Annotated[str, Meta(min_length=1, max_length=100)] = "manual"
    evidence: Annotated[str, Meta(max_length=1_000)] = ""


class SuppressionView(msgspec.Struct, frozen=True):
    """An address that is suppressed: for all mail, or for marketing."""

    email: str
    scope: str
    reason: str
    evidence: str
    delivery: str | None
    created_at: datetime


@routes.add("GET", "/v1/suppressions", answer=Page[SuppressionView], scopes={"read"})
async def list_suppressions(call: Call) -> Page[SuppressionView]:
    """List the suppressions, by address."""
    limit = call.limit()
    email, _, scope = (call.query("after") or "").rpartition(":")
    if "\0" in email or "\0" in scope:
        raise Invalid([("", "after: expected the `next` of a page")])
    rows = await suppressions.list_suppressions(call.connection, call.site_id, (email, scope), limit + 1)
    return page(rows, limit, _view, lambda row: f"{row.email}:{row.scope}")


@routes.add(
    "POST", "/v1/suppressions", body=NewSuppression, answer=SuppressionView, status=201, scopes={"contacts"}
)  # fmt: skip
async def add_suppression(call: Call, data: NewSuppression) -> SuppressionView:
    """Suppress an address; one that is suppressed already stays as it is."""
    try:
        email = parse(data.email).wire
    except AddressError as error:
        raise Invalid([("/email", str(error))]) from error
    return _view(
        await suppressions.add_suppression(
            call.connection, call.site_id, email, data.scope, data.reason, data.evidence
        )
    )


@routes.add(
    "DELETE", "/v1/suppressions/{email}", answer=None, status=204, scopes={"contacts"},
    query={"scope": "`all` or `marketing`; without, both"},
)  # fmt: skip
async def remove_suppression(call: Call) -> None:
    """Let an address be written to again."""
    scope = call.query("scope")
    if scope not in (None, "all", "marketing"):
        raise Invalid([("", "scope: expected all or marketing")])
    try:
        email = parse(call.request.path_params["email"]).wire
    except AddressError:
        raise NotFound("this address is not suppressed") from None
    await suppressions.remove_suppression(call.connection, call.site_id, email, scope)


def _view(row: Suppression) -> SuppressionView:
    delivery = None if row.delivery_id is None else encode(Prefix.DELIVERY, row.delivery_id)
    return SuppressionView(row.email, row.scope, row.reason, row.evidence, delivery, row.created_at)
