"""Ids and places at the far end of what an id may say: nothing is there, and no number is too large for its column."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.api.endpoint import Access, Endpoint
from gateway.api.server import endpoints
from gateway.model.ids import SMALL, Prefix, encode
from tests.support.api import World, open_world

PREFIXES = {
    "sites": Prefix.SITE, "keys": Prefix.KEY, "domains": Prefix.DOMAIN, "contacts": Prefix.CONTACT, "lists": Prefix.LIST,
    "imports": Prefix.IMPORT, "templates": Prefix.TEMPLATE, "broadcasts": Prefix.BROADCAST, "messages": Prefix.MESSAGE,
    "lanes": Prefix.LANE,
}  # fmt: skip


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


def far(prefix: Prefix) -> str:
    """The highest id of a kind."""
    return encode(prefix, 2**31 - 1 if prefix in SMALL else 2**63 - 1)


def kind(endpoint: Endpoint) -> str:
    return endpoint.path.removeprefix("/v1/").partition("/")[0]


def named(endpoint: Endpoint) -> bool:
    return endpoint.method in ("GET", "DELETE") and kind(endpoint) in PREFIXES


async def test_an_id_that_no_row_can_have_is_not_found_and_no_error(world: World) -> None:
    app = await world.site()
    asked = 0
    for endpoint in filter(named, endpoints()):
        client = world.operator if endpoint.access is Access.OPERATOR else app
        prefix = PREFIXES[kind(endpoint)]
        path = endpoint.path.replace("{contact}", far(Prefix.CONTACT))
        path, count = re.subn(r"\{id\}", far(prefix), path)
        if count:
            asked += 1
            response = await client.call(endpoint.method, path)
            assert response.status_code == 404, f"{endpoint.method} {path}: {response.text}"
    assert asked > 15


async def test_a_page_after_the_last_place_is_empty(world: World) -> None:
    app = await world.site()
    for name, prefix in PREFIXES.items():
        client = world.operator if prefix in (Prefix.SITE, Prefix.LANE) else app
        shown = await client.get(f"/v1/{name}?after={far(prefix)}")
        assert shown["data"] == [], name
    shown = await app.get(f"/v1/contacts?list={far(Prefix.LIST)}")
    assert shown["data"] == []
