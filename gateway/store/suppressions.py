"""The suppression list of a site, as its people see it.

Owns listing, adding and removing, by hand or by file. What bounces and complaints add is written where they are taken
(`sql/migrations/0007_acknowledge.sql`, feedback). Functions work in the caller's transaction (`store/tenancy.as_site`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.errors import NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("suppressions")

LOOK: Final = 5_000
"""Suppressions that one page with filters looks at, at most."""

_SUPPRESSIONS = _SQL.suppressions
_OF_ADDRESS = _SQL.of_address
_ADD_SUPPRESSION = _SQL.add_suppression
_ADD_SUPPRESSIONS = _SQL.add_suppressions
_REMOVE_SUPPRESSION = _SQL.remove_suppression


class Filters(msgspec.Struct, frozen=True):
    """What suppressions must be like: all that is given."""

    scope: str | None = None
    reason: str | None = None
    email: str | None = None


class NewSuppression(msgspec.Struct, frozen=True, gc=False):
    """One to add; `email` in wire form."""

    email: str
    scope: str
    reason: str
    evidence: str


class Suppression(msgspec.Struct, frozen=True):
    """Who must not be written to: in `scope` all mail, or marketing alone. `email` is in lower case."""

    email: str
    scope: str
    reason: str
    evidence: str
    delivery_id: int | None
    created_at: datetime


class Found(msgspec.Struct, frozen=True):
    """Suppressions that fit, and up to which (address, scope) was looked; `more`: there may be others behind it."""

    suppressions: list[Suppression]
    until: tuple[str, str]
    more: bool


async def list_suppressions(
    connection: Connection, site_id: int, after: tuple[str, str], limit: int, filters: Filters
) -> Found:
    """Up to `limit` suppressions of a site that fit, after an (address, scope), in that order.

    With a scope or a reason no more than `LOOK` are looked at, so that fewer may be found, or none, though there are `more`: go on after
    `until`.
    """
    if filters.email is not None:  # two at most: no walk past all others
        of_address = [
            Suppression(*row) for row in await connection.fetch(_OF_ADDRESS, site_id, filters.email)
        ]
        fitting = [
            one
            for one in of_address
            if (one.email, one.scope) > after
            and filters.scope in (None, one.scope)
            and filters.reason in (None, one.reason)
        ]
        return _found(fitting, limit, after, more=False)
    look = limit + 1 if filters == Filters() else max(LOOK, limit + 1)
    rows = await connection.fetch(
        _SUPPRESSIONS, site_id, *after, limit + 1, filters.scope, filters.reason, look
    )
    if not rows:
        return Found([], after, more=False)
    found = [Suppression(*tuple(row)[3:]) for row in rows if row["email_key"] is not None]
    until = (rows[0]["until_email"], rows[0]["until_scope"])
    return _found(found, limit, until, more=rows[0]["looked"] == look)


def _found(found: list[Suppression], limit: int, until: tuple[str, str], *, more: bool) -> Found:
    if len(found) > limit:
        last = found[limit - 1]
        return Found(found[:limit], (last.email, last.scope), more=True)
    return Found(found, until, more=more)


async def add_suppression(
    connection: Connection, site_id: int, email: str, scope: str, reason: str, evidence: str
) -> Suppression:
    """Suppress an address; one that is suppressed so already stays as it is, and is returned.

    Raises:
        NotFound: the site was deleted; nothing is written.
    """
    row = await connection.fetchrow(_ADD_SUPPRESSION, site_id, email, scope, reason, evidence)
    if row is None:
        raise NotFound("no such site")
    return Suppression(*row)


async def add_suppressions(connection: Connection, site_id: int, new: Sequence[NewSuppression]) -> int:
    """Suppress addresses; those that are suppressed so already stay as they are. Return how many were not."""
    added: int | None = await connection.fetchval(
        _ADD_SUPPRESSIONS,
        site_id,
        [one.email for one in new],
        [one.scope for one in new],
        [one.reason for one in new],
        [one.evidence for one in new],
    )
    return added or 0


async def remove_suppression(connection: Connection, site_id: int, email: str, scope: str | None) -> None:
    """Let an address be written to again, in one scope or in both.

    Raises:
        NotFound: it is not suppressed so.
    """
    if not await connection.fetchval(_REMOVE_SUPPRESSION, site_id, email, scope):
        raise NotFound("this address is not suppressed")
