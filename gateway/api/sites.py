"""`/v1/sites`: the tenants, managed by operators; a site may look at itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api.endpoint import Access, Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid, InvalidTransition, StoreUnavailable
from gateway.model.ids import Prefix, encode
from gateway.store import sites
from gateway.store.sites import Site
from gateway.store.tenancy import OPERATOR, as_site

routes = Routes("sites")

Name = Annotated[str, Meta(min_length=1, max_length=200)]


class NewSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site to make."""

    name: Name
    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    campaigns: bool = True
    """Whether it may use contacts, lists, imports and broadcasts."""


class SiteChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed of a site; what is left out stays."""

    name: Name | UnsetType = UNSET
    time_zone: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    campaigns: bool | UnsetType = UNSET


class HoldBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why nothing is to be sent."""

    why: Annotated[str, Meta(min_length=1, max_length=200)]


class HoldView(msgspec.Struct, frozen=True):
    """Why nothing is sent, and since when."""

    why: str
    since: datetime | None


class SiteView(msgspec.Struct, frozen=True):
    """A site. `hold`: all its sending is stopped; what it submits is accepted and waits."""

    id: str
    name: str
    time_zone: str
    status: str
    campaigns: bool
    created_at: datetime
    hold: HoldView | None


@routes.add("POST", "/v1/sites", body=NewSite, answer=SiteView, status=201, access=Access.OPERATOR)
async def create_site(call: Call, data: NewSite) -> SiteView:
    """Make a site."""
    _check_zone(data.time_zone)
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


async def _forget(call: Call, _: SiteView) -> None:
    call.services.auth.forget()  # what a key may do goes by its site; other processes learn it within 2 s


@routes.add(
    "PATCH", "/v1/sites/{id}", body=SiteChange, answer=SiteView, access=Access.OPERATOR, then=_forget
)  # fmt: skip
async def change_site(call: Call, data: SiteChange) -> SiteView:
    """Change a site. Without campaigns nothing more of them is begun; what is being sent goes on."""
    if data.time_zone is not UNSET:
        _check_zone(data.time_zone)
    site = await sites.change_site(
        call.connection,
        call.id(Prefix.SITE),
        name=None if data.name is UNSET else data.name,
        time_zone=None if data.time_zone is UNSET else data.time_zone,
        campaigns=None if data.campaigns is UNSET else data.campaigns,
    )
    return _view(site)


@routes.add(
    "POST", "/v1/sites/{id}/actions/hold", body=HoldBody, answer=SiteView, access=Access.OPERATOR,
    problems={"invalid_transition"},
)  # fmt: skip
async def hold_site(call: Call, data: HoldBody) -> SiteView:
    """Stop all sending of a site, within a second on the wire; what is just being sent is finished."""
    site_id = call.id(Prefix.SITE)
    if not await sites.hold_site(call.connection, site_id, data.why):
        await sites.get_site(call.connection, site_id)
        raise InvalidTransition("held", "held", ["sending"])
    return _view(await sites.get_site(call.connection, site_id))


async def _wake(call: Call, _: SiteView) -> None:
    try:
        async with as_site(call.services.pool, OPERATOR) as connection:
            await sites.wake_site(connection, call.id(Prefix.SITE))
    except StoreUnavailable:
        pass  # it is released; the sweep will find what sleeps


@routes.add(
    "POST", "/v1/sites/{id}/actions/release", answer=SiteView, access=Access.OPERATOR, then=_wake,
    problems={"invalid_transition"},
)  # fmt: skip
async def release_site(call: Call) -> SiteView:
    """Let a site send again."""
    site_id = call.id(Prefix.SITE)
    if not await sites.release_site(call.connection, site_id):
        await sites.get_site(call.connection, site_id)
        raise InvalidTransition("sending", "sending", ["held"])
    return _view(await sites.get_site(call.connection, site_id))


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid([("/time_zone", "expected the name of a time zone, such as Europe/Paris")]) from None


def _view(site: Site) -> SiteView:
    hold = None if site.held_why is None else HoldView(site.held_why, site.held_at)
    return SiteView(
        encode(Prefix.SITE, site.id),
        site.name,
        site.time_zone,
        site.status,
        site.campaigns,
        site.created_at,
        hold,
    )
