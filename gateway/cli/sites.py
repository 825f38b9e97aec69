"""`gateway sites create | list`."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cyclopts import App, Parameter

from gateway.app.database import connection
from gateway.cli.common import DEFAULTS, Common, UsageError, check_name, print_json, print_table, say
from gateway.model.ids import Prefix, encode
from gateway.store.sites import Site, create_site, list_sites

_PAGE = 1_000

sites = App(name="sites", help="Sites (the tenants): create, list.\n\nExample: gateway sites create Acme")


@sites.command
async def create(
    name: Annotated[str, Parameter(help="What people call it.")],
    *,
    time_zone: Annotated[str, Parameter(help="An IANA name, such as Europe/Vienna.")] = "UTC",
    campaigns: Annotated[bool, Parameter(help="Whether it may send broadcasts.")] = True,
    common: Common = DEFAULTS,
) -> None:
    """Make a site.

    Example: gateway sites create "Velaro" --time-zone America/New_York
    """
    check_name(name, "the name")
    try:
        ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f'--time-zone: there is no "{time_zone}"; say it as in Europe/Paris') from error
    async with connection(common.load()) as opened:
        site = await create_site(opened, name, time_zone, campaigns=campaigns)
    if common.json:
        print_json(_document(site))
    else:
        say(f"{encode(Prefix.SITE, site.id)}: {site.name}")


@sites.command(name="list")
async def list_(*, common: Common = DEFAULTS) -> None:
    """Show all sites.

    Example: gateway sites list --json
    """
    found: list[Site] = []
    async with connection(common.load()) as opened:
        while page := await list_sites(opened, found[-1].id if found else 0, _PAGE):
            found += page
    if common.json:
        print_json([_document(site) for site in found])
        return
    print_table(
        ["id", "name", "status", "campaigns", "time zone", "on hold"],
        [
            (
                encode(Prefix.SITE, s.id),
                s.name,
                s.status,
                "on" if s.campaigns else "off",
                s.time_zone,
                s.held_why or "",
            )
            for s in found
        ],
    )


def _document(site: Site) -> dict[str, object]:
    return msgspec.to_builtins(site) | {"id": encode(Prefix.SITE, site.id)}
