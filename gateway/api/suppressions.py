"""`/v1/suppressions`: who must not be written to, by hand or by file; bounces and complaints add theirs by themselves."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import AsyncGenerator, Iterator
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gateway.api.described import ADDRESS, Address, Described
from gateway.api.endpoint import Call, Routes
from gateway.api.imports import RowErrorView
from gateway.api.page import Page
from gateway.api.serving import Reply, Streamed, digest, idempotency_key, read_body
from gateway.campaigns.csv_rows import Refused
from gateway.campaigns.imports import read_lines
from gateway.campaigns.suppression_rows import (
    COLUMNS,
    EVIDENCE_LIMIT,
    REASON_LIMIT,
    SCOPES,
    SuppressionRow,
    read_suppressions,
    write_rows,
)
from gateway.errors import Invalid, NotFound
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.store import idempotency, suppressions
from gateway.store.suppressions import Filters, Found, Suppression
from gateway.store.tenancy import as_site

routes = Routes("suppressions")

Scope = Literal["all", "marketing"]
BATCH: Final = 1_000
_SCOPE: Final = {"type": "string", "enum": list(SCOPES)}
_ERRORS_SHOWN: Final = 100
_ATTACHED: Final = {"content-disposition": 'attachment; filename="suppressions.csv"'}


class NewSuppression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address to suppress."""

    email: Address
    scope: Scope = "all"
    reason: Annotated[str, Meta(min_length=1, max_length=REASON_LIMIT)] = "manual"
    evidence: Annotated[str, Meta(max_length=EVIDENCE_LIMIT)] = ""


class SuppressionView(msgspec.Struct, frozen=True):
    """An address that is suppressed: for all mail, or for marketing."""

    email: str
    scope: str
    reason: str
    evidence: str
    delivery: str | None
    created_at: datetime


class SuppressionImport(msgspec.Struct, frozen=True):
    """What became of a file: its `rows` were added, known already, or refused; `errors` says why, of the first 100."""

    rows: int
    added: int
    known: int
    refused: int
    errors: list[RowErrorView]


@routes.add(
    "GET", "/v1/suppressions", answer=Page[SuppressionView], scopes={"read"},
    query={
        "scope": Described("only those for all mail, or for marketing", _SCOPE),
        "reason": "only those for this reason, such as `hard_bounce`",
        "email": Described("only those of this address", ADDRESS),
    },
)  # fmt: skip
async def list_suppressions(call: Call) -> Page[SuppressionView]:
    """List the suppressions, by address. With filters a page looks at 5,000 at most: it may hold few, or none, while `has_more`."""
    email, _, scope = (call.query("after") or "").rpartition(":")
    found = await suppressions.list_suppressions(
        call.connection, call.site_id, (email, scope), call.limit(), _filters(call)
    )
    following = ":".join(found.until) if found.more else None
    return Page([show_suppression(row) for row in found.suppressions], has_more=found.more, next=following)


@routes.add(
    "POST", "/v1/suppressions", body=NewSuppression, answer=SuppressionView, status=201, scopes={"contacts"}
)  # fmt: skip
async def add_suppression(call: Call, data: NewSuppression) -> SuppressionView:
    """Suppress an address; one that is suppressed already stays as it is."""
    try:
        email = parse(data.email).wire
    except AddressError as error:
        raise Invalid([("/email", str(error))]) from error
    return show_suppression(
        await suppressions.add_suppression(
            call.connection, call.site_id, email, data.scope, data.reason, data.evidence
        )
    )


@routes.add(
    "POST", "/v1/suppressions/import", answer=SuppressionImport, scopes={"contacts"}, consumes="text/csv", own_transaction=True,
    uploads={"text/csv": {"type": "string", "minLength": 1}},
)  # fmt: skip
async def import_suppressions(call: Call) -> Reply:
    """Suppress addresses from CSV: columns `email`, and if wanted `scope` (all), `reason` (import) and `evidence`.

    Batch by batch, each in the order of its addresses and in a transaction of its own: a bounce that suppresses the same address does not
    wait for the whole file, nor deadlock with it. Doing it again adds nothing, so an outage in between is mended by the same call.
    """
    pool, site_id = call.services.pool, call.site_id
    body = await read_body(call.request, call.services.config.api.body_limit_bytes)
    key, hashed = idempotency_key(call.request), digest(call.request, body)
    if key is not None:
        async with as_site(pool, site_id) as connection:
            if (stored := await idempotency.find(connection, site_id, key, hashed)) is not None:
                return Reply(stored.answer)
    answer = msgspec.json.encode(await _load(call, body))
    if key is not None:
        async with as_site(pool, site_id) as connection:
            if (stored := await idempotency.reserve(connection, site_id, key, hashed)) is not None:
                return Reply(stored.answer)  # the same file came twice at once
            await idempotency.store(connection, site_id, key, 200, answer)
    return Reply(answer)


@routes.add(
    "GET", "/v1/suppressions/export.csv", answer=str, scopes={"read"}, own_transaction=True, media_type="text/csv",
    gives={"Content-Disposition": "a file name to save it under"},
    query={
        "scope": Described("only those for all mail, or for marketing", _SCOPE),
        "reason": "only those for this reason, such as `hard_bounce`",
        "email": Described("only those of this address", ADDRESS),
    },
)  # fmt: skip
async def export_suppressions(call: Call) -> Streamed:
    """Give the suppressions as CSV, by address; what a spreadsheet would take for a formula has an apostrophe before it."""
    filters = _filters(call)
    return Streamed(_export(call, filters, await _read(call, ("", ""), filters)), headers=_ATTACHED)


@routes.add(
    "DELETE", "/v1/suppressions/{email}", answer=None, status=204, scopes={"contacts"},
    query={"scope": Described("without: both", _SCOPE)},
)  # fmt: skip
async def remove_suppression(call: Call) -> None:
    """Let an address be written to again."""
    scope = _scope(call)
    try:
        email = parse(call.request.path_params["email"]).wire
    except AddressError:
        raise NotFound("this address is not suppressed") from None
    await suppressions.remove_suppression(call.connection, call.site_id, email, scope)


async def _load(call: Call, body: bytes) -> SuppressionImport:
    rows = read_suppressions(read_lines(io.BytesIO(body)))
    read, added, refused = 0, 0, 0
    errors: list[RowErrorView] = []
    while batch := await asyncio.to_thread(_next_batch, rows):
        new: list[suppressions.NewSuppression] = []
        for row in batch:
            if isinstance(row, SuppressionRow):
                new.append(suppressions.NewSuppression(row.email, row.scope, row.reason, row.evidence))
            elif len(errors) < _ERRORS_SHOWN:
                errors.append(RowErrorView(row.line, row.column, row.reason, row.value))
        async with as_site(call.services.pool, call.site_id) as connection:
            added += await suppressions.add_suppressions(connection, call.site_id, new)
        read += len(batch)
        refused += len(batch) - len(new)
    return SuppressionImport(read, added, read - refused - added, refused, errors)


def _next_batch(rows: Iterator[SuppressionRow | Refused]) -> list[SuppressionRow | Refused]:
    return list(itertools.islice(rows, BATCH))


async def _export(call: Call, filters: Filters, first: Found) -> AsyncGenerator[bytes]:
    """The file, page by page; an outage cuts it off, and the client sees that it is not whole."""
    found = first
    yield write_rows([COLUMNS])
    while True:
        if found.suppressions:
            yield write_rows([_cells(row) for row in found.suppressions])
        if not found.more:
            return
        found = await _read(call, found.until, filters)


async def _read(call: Call, after: tuple[str, str], filters: Filters) -> Found:
    """One page in a transaction of its own: a slow client must not keep one open."""
    timeout_s = call.services.config.database.acquire_timeout_s
    async with as_site(call.services.pool, call.site_id, timeout_s=timeout_s) as connection:
        return await suppressions.list_suppressions(connection, call.site_id, after, BATCH, filters)


def _scope(call: Call) -> str | None:
    scope = call.query("scope")
    if scope is not None and scope not in SCOPES:
        raise Invalid([("", "scope: expected all or marketing")])
    return scope


def _filters(call: Call) -> Filters:
    email = call.query("email")
    if email is not None:
        try:
            email = parse(email).wire
        except AddressError as error:
            raise Invalid([("", f"email: {error}")]) from error
    return Filters(_scope(call), call.query("reason"), email)


def _cells(row: Suppression) -> tuple[str, ...]:
    view = show_suppression(row)
    return (
        view.email,
        view.scope,
        view.reason,
        view.evidence,
        view.delivery or "",
        view.created_at.isoformat(),
    )


def show_suppression(row: Suppression) -> SuppressionView:
    """Return a suppression as the API shows it."""
    delivery = None if row.delivery_id is None else encode(Prefix.DELIVERY, row.delivery_id)
    return SuppressionView(row.email, row.scope, row.reason, row.evidence, delivery, row.created_at)
