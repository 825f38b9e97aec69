"""Sending domains of sites and their sealed DKIM keys.

Owns the rows. Must not know how a key is made or sealed (`mta/keys`), nor DNS. What leaves here towards the API never holds
the private key. Functions work in the caller's transaction (`store/tenancy.as_site`).
"""

from __future__ import annotations

from collections.abc import Sequence
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
_ADD_KEY = _SQL.add_key
_KEYS = _SQL.keys
_ROTATE = _SQL.rotate
_NAMED = _SQL.domain_named


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


class DomainKey(msgspec.Struct, frozen=True):
    """A key beside the one that always signs. `signs`: it signs too, else it is a spare whose record is published already."""

    domain_id: int
    selector: str
    algorithm: str
    public_key: str
    signs: bool


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


async def add_key(
    connection: Connection,
    domain: Domain,
    *,
    selector: str,
    algorithm: str,
    private_key_sealed: bytes,
    public_key: str,
    signs: bool,
) -> None:
    """Add a key to a domain."""
    await connection.execute(
        _ADD_KEY, domain.id, domain.site_id, selector, algorithm, private_key_sealed, public_key, signs
    )


async def keys_of(connection: Connection, domain_ids: Sequence[int]) -> dict[int, list[DomainKey]]:
    """The further keys of some domains, by domain."""
    found: dict[int, list[DomainKey]] = {domain_id: [] for domain_id in domain_ids}
    for row in await connection.fetch(_KEYS, list(domain_ids)):
        found[row["domain_id"]].append(DomainKey(*row))
    return found


async def rotate(connection: Connection, domain_id: int) -> Domain:
    """Let the spare key sign; the one that signed becomes the spare.

    Raises:
        NotFound: there is no such domain that the transaction may see.
        Conflict: it has no spare key.
    """
    row = await connection.fetchrow(_ROTATE, domain_id)
    if row is None:
        await get_domain(connection, domain_id)
        raise Conflict("this domain has no spare key to rotate to")
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


async def domain_named(connection: Connection, name: str) -> Domain:
    """The domain with this name (lower case, A-labels), which has one owner over all sites.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_NAMED, name)
    if row is None:
        raise NotFound(
            f"{name} is no sending domain of any site; add it: gateway domains add {name} --site …"
        )
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
