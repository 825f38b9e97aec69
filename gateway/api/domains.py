"""`/v1/domains`: sending domains and the record that their DKIM key needs. The private key never leaves.

How a domain gets its keys is `submission/domains`'. The check of the records in DNS is on the command line (`gateway domains verify`); here an
operator vouches with `actions/mark_verified`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.api.endpoint import Access, Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.store import domains
from gateway.store.domains import Domain, DomainKey
from gateway.submission.domains import add_domain, records_of

routes = Routes("domains")


class NewDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sending domain to add."""

    name: Annotated[str, Meta(min_length=3, max_length=253)]
    ed25519: bool = False
    """Sign with an Ed25519 key as well (RFC 8463); some receivers count an algorithm that they do not know as a failure."""


class Record(msgspec.Struct, frozen=True):
    """A DNS record to publish."""

    type: str
    name: str
    value: str


class DomainView(msgspec.Struct, frozen=True):
    """A sending domain."""

    id: str
    name: str
    status: str
    records: list[Record]
    created_at: datetime
    verified_at: datetime | None


@routes.add(
    "POST",
    "/v1/domains",
    body=NewDomain,
    answer=DomainView,
    status=201,
    scopes={"admin"},
    problems={"conflict"},
)
async def create_domain(call: Call, data: NewDomain) -> DomainView:
    """Add a sending domain; makes its DKIM key."""
    try:
        name = parse(f"postmaster@{data.name}").domain
    except AddressError as error:
        raise Invalid([("/name", f"no domain name: {error}")]) from error
    domain = await add_domain(
        call.connection, call.site_id, name, call.services.master_key, ed25519=data.ed25519
    )
    return await _shown(call, domain)


@routes.add("GET", "/v1/domains", answer=Page[DomainView], scopes={"read"})
async def list_domains(call: Call) -> Page[DomainView]:
    """List the sending domains."""
    limit = call.limit()
    rows = await domains.list_domains(call.connection, call.site_id, call.after(Prefix.DOMAIN), limit + 1)
    keys = await domains.keys_of(call.connection, [domain.id for domain in rows])
    return page(
        rows,
        limit,
        lambda domain: _view(domain, keys[domain.id]),
        lambda domain: encode(Prefix.DOMAIN, domain.id),
    )


@routes.add("GET", "/v1/domains/{id}", answer=DomainView, access=Access.BOTH, scopes={"read"})
async def get_domain(call: Call) -> DomainView:
    """Show a sending domain and its records."""
    return await _shown(call, await domains.get_domain(call.connection, call.id(Prefix.DOMAIN)))


@routes.add(
    "POST",
    "/v1/domains/{id}/actions/rotate",
    answer=DomainView,
    access=Access.BOTH,
    scopes={"admin"},
    problems={"conflict"},
)
async def rotate_key(call: Call) -> DomainView:
    """Sign with the spare DKIM key from now on; the other one stays published, for mail that is under way."""
    return await _shown(call, await domains.rotate(call.connection, call.id(Prefix.DOMAIN)))


@routes.add("POST", "/v1/domains/{id}/actions/mark_verified", answer=DomainView, access=Access.OPERATOR)
async def mark_verified(call: Call) -> DomainView:
    """Vouch for a domain, in place of the check of its records."""
    return await _shown(call, await domains.mark_verified(call.connection, call.id(Prefix.DOMAIN)))


async def _shown(call: Call, domain: Domain) -> DomainView:
    return _view(domain, (await domains.keys_of(call.connection, [domain.id]))[domain.id])


def _view(domain: Domain, keys: Sequence[DomainKey]) -> DomainView:
    return DomainView(
        encode(Prefix.DOMAIN, domain.id),
        domain.name,
        domain.status,
        [Record("TXT", record.name, record.value) for record in records_of(domain, keys)],
        domain.created_at,
        domain.verified_at,
    )
