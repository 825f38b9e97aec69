"""`/v1/domains`: sending domains and the record that their DKIM key needs. The private key never leaves.

The check of the records in DNS is not here yet; until then an operator vouches with `actions/mark_verified`.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.api.endpoint import Access, Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.mta.keys import generate_rsa_key, public_key_txt, seal
from gateway.store import domains
from gateway.store.domains import Domain

routes = Routes("domains")


class NewDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sending domain to add."""

    name: Annotated[str, Meta(min_length=3, max_length=253)]


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


@routes.add("POST", "/v1/domains", body=NewDomain, answer=DomainView, status=201, scopes={"admin"})
async def create_domain(call: Call, data: NewDomain) -> DomainView:
    """Add a sending domain; makes its DKIM key."""
    try:
        name = parse(f"postmaster@{data.name}").domain
    except AddressError as error:
        raise Invalid([("/name", f"no domain name: {error}")]) from error
    private_key = await asyncio.to_thread(generate_rsa_key)
    # Unique to this domain and never issued twice: a CNAME that is left behind must not come to life for another owner.
    selector = f"gw{secrets.token_hex(5)}"
    domain = await domains.create_domain(
        call.connection,
        call.site_id,
        name,
        selector=selector,
        private_key_sealed=seal(private_key, call.services.master_key, name),
        public_key=public_key_txt(private_key),
    )
    return _view(domain)


@routes.add("GET", "/v1/domains", answer=Page[DomainView], scopes={"read"})
async def list_domains(call: Call) -> Page[DomainView]:
    """List the sending domains."""
    limit = call.limit()
    rows = await domains.list_domains(call.connection, call.site_id, call.after(Prefix.DOMAIN), limit + 1)
    return page(rows, limit, _view, lambda domain: encode(Prefix.DOMAIN, domain.id))


@routes.add("GET", "/v1/domains/{id}", answer=DomainView, access=Access.BOTH, scopes={"read"})
async def get_domain(call: Call) -> DomainView:
    """Show a sending domain and its records."""
    return _view(await domains.get_domain(call.connection, call.id(Prefix.DOMAIN)))


@routes.add("POST", "/v1/domains/{id}/actions/mark_verified", answer=DomainView, access=Access.OPERATOR)
async def mark_verified(call: Call) -> DomainView:
    """Vouch for a domain, in place of the check of its records."""
    return _view(await domains.mark_verified(call.connection, call.id(Prefix.DOMAIN)))


def _view(domain: Domain) -> DomainView:
    dkim = Record("TXT", f"{domain.selector}._domainkey.{domain.name}", domain.public_key)
    return DomainView(
        encode(Prefix.DOMAIN, domain.id),
        domain.name,
        domain.status,
        [dkim],
        domain.created_at,
        domain.verified_at,
    )
