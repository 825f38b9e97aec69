"""Whole suppression lists: many addresses at once, as an import brings them.

Owns the batch. One address at a time, and reading: `store/suppressions`. Functions work in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("suppression_lists")


class NewSuppression(msgspec.Struct, frozen=True, gc=False):
    """An address to suppress, in wire form: in `scope` all mail, or marketing alone."""

    email: str
    scope: str
    reason: str
    evidence: str = ""


async def add_suppressions(connection: Connection, site_id: int, rows: Sequence[NewSuppression]) -> int:
    """Suppress addresses; those that are suppressed so already stay as they are. Returns how many are new."""
    with outages_named("adding suppressions"):
        return int(
            await connection.fetchval(
                _SQL.add_suppressions,
                site_id,
                [row.email for row in rows],
                [row.scope for row in rows],
                [row.reason for row in rows],
                [row.evidence for row in rows],
            )
            or 0
        )


async def count_suppressions(connection: Connection, site_id: int) -> int:
    """How many suppressions a site has."""
    with outages_named("counting suppressions"):
        return int(await connection.fetchval(_SQL.count_suppressions, site_id) or 0)
