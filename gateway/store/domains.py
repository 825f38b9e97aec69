"""Sending domains of sites and their sealed DKIM keys.

Owns the rows. Must not know how a key is made or sealed (`mta/keys`), nor DNS. What leaves here towards the API never holds
the private key. Functions work in the caller's transaction (`store/tenancy.as_site`).
"""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from gateway.errors import Conflict, NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("domains")
_CREATE_DOMAIN = _SQL.create_domain
_DOMAINS = _SQL.domains
_DOMAIN = _SQL.domain
_MARK_VERIFIED = _SQL.mark_verified
_VERIFIED_DOMAIN = _SQL.verified_domain


class Domain(msgspec.Struct, frozen=True):
    """A sending domain. `public_key` is the value of its DKIM record."""

    id: int
    site_id: int
    name: str
    status: str
    selector: str
    public_key: str
    created_at: datetime
    verified_at: datetime | None


async def create_domain(
    connection: Connection,
    site_id: int,
    name: str,
    *,
    selector: str,
    private_key_sealed: bytes,
    public_key: str,
) -> Domain:
    """Add a domain (lower case, A-labels) with its key.

    Raises:
        Conflict: this site or another has it already: a domain has one owner.
    """
    try:
        row = await connection.fetchrow(
            _CREATE_DOMAIN, site_id, name, selector, private_key_sealed, public_key
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict(f"{name} is a sending domain already; a domain has one owner") from error
    assert row is not None
    return Domain(*row)


async def list_domains(connection: Connection, site_id: int, after: int, limit: int) -> list[Domain]:
    """Up to `limit` domains of a site with ids above `after`."""
    return [Domain(*row) for row in await connection.fetch(_DOMAINS, site_id, after, limit)]


async def get_domain(connection: Connection, domain_id: int) -> Domain:
    """One domain.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_DOMAIN, domain_id)
    if row is None:
        raise NotFound("no such domain")
    return Domain(*row)


async def mark_verified(connection: Connection, domain_id: int) -> Domain:
    """Take a domain for verified; again does nothing.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_MARK_VERIFIED, domain_id)
    if row is None:
        raise NotFound("no such domain")
    return Domain(*row)


async def find_verified(connection: Connection, site_id: int, name: str) -> int | None:
    """Return the id of a verified domain of this site, or None."""
    return await connection.fetchval(_VERIFIED_DOMAIN, site_id, name)
