"""`/v1/sites`: the tenants, managed by operators; a site may look at itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from gateway.api.endpoint import Access, Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid
from gateway.model.ids import Prefix, encode
from gateway.store import sites
from gateway.store.sites import Site

routes = Routes("sites")

Name = Annotated[str, Meta(min_length=1, max_length=200)]


class NewSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site to make."""

    name: Name
    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    campaigns: bool = True
    """Whether it may use contacts, lists, imports and broadcasts."""


class SiteView(msgspec.Struct, frozen=True):
    """A site."""

    id: str
    name: str
    time_zone: str
    status: str
    campaigns: bool
    created_at: datetime


@routes.add("POST", "/v1/sites", body=NewSite, answer=SiteView, status=201, access=Access.OPERATOR)
async def create_site(call: Call, data: NewSite) -> SiteView:
    """Make a site."""
    try:
        ZoneInfo(data.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid([("/time_zone", "expected the name of a time zone, such as Europe/Paris")]) from None
    site = await sites.create_site(call.connection, data.name, data.time_zone, campaigns=data.campaigns)
    return _view(site)


@routes.add("GET", "/v1/sites", answer=Page[SiteView], access=Access.OPERATOR)
async def list_sites(call: Call) -> Page[SiteView]:
    """List the sites."""
    limit = call.limit()
    rows = await sites.list_sites(call.connection, call.after(Prefix.SITE), limit + 1)
    return page(rows, limit, _view, lambda site: encode(Prefix.SITE, site.id))


@routes.add("GET", "/v1/sites/{id}", answer=SiteView, access=Access.BOTH, scopes={"read"})
async def get_site(call: Call) -> SiteView:
    """Show a site; its own key may too."""
    return _view(await sites.get_site(call.connection, call.id(Prefix.SITE)))


def _view(site: Site) -> SiteView:
    return SiteView(
        encode(Prefix.SITE, site.id), site.name, site.time_zone, site.status, site.campaigns, site.created_at
    )
