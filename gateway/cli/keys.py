"""`gateway keys create | list | revoke`: the first key has to come from here."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from gateway.api.endpoint import SCOPES
from gateway.app.database import connection
from gateway.cli.common import (
    DEFAULTS,
    Common,
    UsageError,
    check_name,
    number_of,
    print_json,
    print_table,
    say,
)
from gateway.model.ids import Prefix, encode
from gateway.store.sites import Key, get_site, issue_key, list_keys, revoke_key

_PAGE = 1_000

keys = App(
    name="keys",
    help="API keys: create, list, revoke.\n\nExample: gateway keys create --site 7 --scopes send,read",
)


@keys.command
async def create(
    *,
    site: Annotated[
        str | None, Parameter(help="The site that the key speaks for (site_…, or its number).")
    ] = None,
    operator: Annotated[
        bool, Parameter(negative=(), help="An operator's key: it manages all sites.")
    ] = False,
    scopes: Annotated[str, Parameter(help="What it may do, separated by commas.")] = ",".join(SCOPES),
    name: Annotated[str, Parameter(help="What people call it.")] = "",
    common: Common = DEFAULTS,
) -> None:
    """Make a key and show it, this once.

    Example: gateway keys create --operator --name ops

    Example: gateway keys create --site 7 --scopes send,read --json
    """
    site_id = _site_of(site, operator)
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if wrong := [scope for scope in wanted if scope not in SCOPES] or ([] if wanted else [""]):
        raise UsageError(f'--scopes: no scope "{wrong[0]}"; there are {", ".join(SCOPES)}')
    if name:
        check_name(name, "--name")
    async with connection(common.load()) as opened:
        if site_id is not None:
            await get_site(opened, site_id)
        key, secret = await issue_key(opened, site_id, name, wanted)
    if common.json:
        print_json(_document(key) | {"key": secret})
    else:
        say(f"{secret}\n(shown this once; {encode(Prefix.KEY, key.id)} names it)")


@keys.command(name="list")
async def list_(
    *,
    site: Annotated[
        str | None, Parameter(help="The site whose keys to show (site_…, or its number).")
    ] = None,
    operator: Annotated[bool, Parameter(negative=(), help="Show the operators' keys.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Show a site's keys, or the operators', the revoked ones too; never their text.

    Example: gateway keys list --site 7
    """
    site_id = _site_of(site, operator)
    found: list[Key] = []
    async with connection(common.load()) as opened:
        if site_id is not None:
            await get_site(opened, site_id)
        while page := await list_keys(opened, site_id, found[-1].id if found else 0, _PAGE):
            found += page
    if common.json:
        print_json([_document(key) for key in found])
        return
    print_table(
        ["id", "name", "begins with", "scopes", "last used", "state"],
        [
            (
                encode(Prefix.KEY, key.id), key.name, f"gw_{key.prefix}", ",".join(key.scopes),
                f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never",
                "revoked" if key.revoked_at else "valid",
            )
            for key in found
        ],
    )  # fmt: skip


@keys.command
async def revoke(
    key: Annotated[str, Parameter(help="The key's id (key_…, or its number), not its secret.")],
    *,
    common: Common = DEFAULTS,
) -> None:
    """End a key at once; again does nothing.

    Example: gateway keys revoke key_0000000000004
    """
    number = number_of(Prefix.KEY, key, "the key")
    async with connection(common.load()) as opened:
        ended = await revoke_key(opened, number)
    if common.json:
        print_json(_document(ended))
    else:
        say(f"{encode(Prefix.KEY, ended.id)} is revoked")


def _site_of(site: str | None, operator: bool) -> int | None:
    if (site is None) != operator:
        raise UsageError("name a site with --site, or say --operator")
    return None if site is None else number_of(Prefix.SITE, site, "--site")


def _document(key: Key) -> dict[str, object]:
    site = None if key.site_id is None else encode(Prefix.SITE, key.site_id)
    document: dict[str, object] = msgspec.to_builtins(key)
    del document["site_id"]
    return document | {"id": encode(Prefix.KEY, key.id), "site": site}
