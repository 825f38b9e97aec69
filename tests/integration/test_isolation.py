"""Every route with another site's id: 404, and nothing changed. A route that is not in the matrix fails the test."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.api.endpoint import Access, Endpoint
from gateway.api.server import endpoints
from gateway.store import contacts
from gateway.store.tenancy import as_site
from tests.support.api import Client, World, make_broadcast, open_world

TEMPLATE = {"name": "x", "subject": "s", "text": "t"}
LATER = (datetime.now(UTC) + timedelta(days=30)).isoformat()

# Routes with ids in their path: what is asked with one site's key and the other's ids.
BY_PATH: dict[str, Any] = {
    "GET /v1/sites/{id}": None,
    "PATCH /v1/sites/{id}": {"name": "x"},
    "POST /v1/sites/{id}/actions/hold": {"why": "x"},
    "POST /v1/sites/{id}/actions/release": None,
    "POST /v1/keys/{id}/actions/revoke": None,
    "POST /v1/keys/{id}/actions/rotate": None,
    "GET /v1/domains/{id}": None,
    "POST /v1/domains/{id}/actions/mark_verified": None,
    "POST /v1/domains/{id}/actions/rotate": None,
    "GET /v1/contacts/{id}": None,
    "PATCH /v1/contacts/{id}": {"first_name": "x"},
    "DELETE /v1/contacts/{id}": None,
    "GET /v1/contacts/{id}/export": None,
    "GET /v1/contacts/{id}/sent": None,
    "POST /v1/contacts/{id}/actions/erase": None,
    "GET /v1/erasures/{id}": None,
    "POST /v1/messages/{id}/actions/erase": None,
    "GET /v1/lists/{id}": None,
    "PATCH /v1/lists/{id}": {"name": "x"},
    "DELETE /v1/lists/{id}": None,
    "GET /v1/lists/{id}/members": None,
    "POST /v1/lists/{id}/members": {"contact": "{contact}"},
    "DELETE /v1/lists/{id}/members/{contact}": None,
    "GET /v1/imports/{id}": None,
    "GET /v1/imports/{id}/errors": None,
    "GET /v1/templates/{id}": None,
    "PUT /v1/templates/{id}": TEMPLATE,
    "POST /v1/templates/{id}/actions/render": {},
    "POST /v1/templates/{id}/actions/test": {"from": "a@beta.example", "to": "b@c.example"},
    "GET /v1/messages/{id}": None,
    "GET /v1/messages/{id}/why": None,
    "POST /v1/messages/{id}/actions/cancel": None,
    "POST /v1/messages/{id}/actions/hold": None,
    "POST /v1/messages/{id}/actions/release": None,
    "GET /v1/broadcasts/{id}": None,
    "PATCH /v1/broadcasts/{id}": {"name": "x"},
    "DELETE /v1/broadcasts/{id}": None,
    "GET /v1/broadcasts/{id}/stats": None,
    "GET /v1/broadcasts/{id}/deliveries": None,
    "GET /v1/broadcasts/{id}/stream": None,
    "POST /v1/broadcasts/{id}/actions/estimate": None,
    "POST /v1/broadcasts/{id}/actions/schedule": {"send_at": LATER},
    "POST /v1/broadcasts/{id}/actions/test": {"to": "b@c.example"},
    "POST /v1/broadcasts/{id}/actions/send": None,
    "POST /v1/broadcasts/{id}/actions/pause": None,
    "POST /v1/broadcasts/{id}/actions/resume": None,
    "POST /v1/broadcasts/{id}/actions/cancel": None,
    "DELETE /v1/suppressions/{email}": None,
    "GET /v1/lanes/{id}": None,
    "PUT /v1/lanes/{id}/limit": {"for_s": 60, "why": "x", "rate_per_s": 1},
    "DELETE /v1/lanes/{id}/limit": None,
    "POST /v1/lanes/{id}/actions/suspend": {"why": "x"},
    "POST /v1/lanes/{id}/actions/drain": {"why": "x"},
    "POST /v1/lanes/{id}/actions/resume": None,
}
# Routes that list: the other site's things must not be on the page.
LISTS = {
    "GET /v1/keys", "GET /v1/domains", "GET /v1/contacts", "GET /v1/lists", "GET /v1/imports", "GET /v1/templates",
    "GET /v1/messages", "GET /v1/broadcasts", "GET /v1/suppressions", "GET /v1/erasures",
}  # fmt: skip
# Routes that take ids in their body: another site's are no ids.
BY_BODY: dict[str, list[Any]] = {
    "POST /v1/keys": [{"site": "{site}", "scopes": ["read"]}],
    "POST /v1/messages": [
        {"from": "a@beta.example", "to": "b@c.example", "template": "{template}"},
        {"from": "a@alpha.example", "to": "b@c.example", "subject": "s", "text": "t"},
    ],
    "POST /v1/broadcasts": [
        {"name": "x", "list": "{list}", "template": "{own_template}", "from": "a@beta.example"},
        {"name": "x", "list": "{own_list}", "template": "{template}", "from": "a@beta.example"},
        {"name": "x", "list": "{own_list}", "template": "{own_template}", "from": "a@alpha.example"},
    ],
    "POST /v1/domains": [{"name": "alpha.example"}],
}
# Routes that take or show nothing of a site, or only make what is new.
NOTHING = {
    "GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.json", "GET /docs", "GET /v1/imports/template.csv", "POST /v1/contacts",
    "POST /v1/lists", "POST /v1/templates", "POST /v1/suppressions", "POST /v1/erasures", "POST /v1/suppressions/import",
    "GET /u/{token}", "POST /u/{token}", "GET /c/{token}", "GET /o/{token}",
}  # fmt: skip
# Routes that give a file: the other site's things must not be in it.
EXPORTS = {"GET /v1/suppressions/export.csv"}
# Operators' own: a site's key is refused.
OPERATORS = {"POST /v1/sites", "GET /v1/sites", "GET /v1/lanes"}
# Given a list by query.
IMPORT = "POST /v1/imports"

KIND = {
    "sites": "site", "keys": "key", "domains": "domain", "contacts": "contact", "lists": "list", "imports": "import",
    "templates": "template", "messages": "message", "broadcasts": "broadcast", "erasures": "erasure", "lanes": "lane",
}  # fmt: skip


def name_of(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


async def furnish(world: World, client: Client, domain: str) -> dict[str, str]:
    """One of everything in a site: kind → id."""
    broadcast = await make_broadcast(client, domain)
    message = await client.post(
        "/v1/messages", {"from": f"a@{domain}", "to": "b@c.example", "subject": "s", "text": "t"}
    )
    key = await client.post("/v1/keys", {"scopes": ["read"]})
    await client.post("/v1/suppressions", {"email": f"gone@{domain}"})
    erasure = await client.post("/v1/erasures", {"email": f"forgotten@{domain}"})
    (domain_view,) = (await client.get("/v1/domains"))["data"]
    async with as_site(world.services.pool, client.site_id) as connection:
        rows = await contacts.list_contacts(connection, client.site_id, 0, 1, None)
    assert rows
    return {
        "site": key["site"],
        "key": key["id"],
        "domain": domain_view["id"],
        "contact": (await client.get("/v1/contacts"))["data"][0]["id"],
        "list": broadcast["list"],
        "import": (await client.get("/v1/imports"))["data"][0]["id"],
        "template": broadcast["template"],
        "message": message["id"],
        "broadcast": broadcast["id"],
        "erasure": erasure["id"],
        "email": f"gone@{domain}",
        "lane": "lane_0000000000001",
    }


def filled(value: Any, ids: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], value)
    if isinstance(value, dict):
        return {key: filled(inner, ids) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value


async def everything(pool: asyncpg.Pool, site_id: int) -> list[str]:
    """All rows of a site, as text."""
    tables = ["api_key", "domain", "contact", "list", "list_member", "import", "import_error", "suppression", "template", "message",
              "broadcast", "queue", "acceptance", "ended", "erasure"]  # fmt: skip
    rows: list[str] = []
    for table in tables:
        for row in await pool.fetch(f"SELECT t::text FROM {table} t WHERE site_id = $1 ORDER BY 1", site_id):
            rows.append(f"{table} {row[0]}")
    shared = ("SELECT * FROM hold", "SELECT lane_id, suspended_until, rate_per_s FROM lane_state ORDER BY 1")
    return rows + [str(row) for query in shared for row in await pool.fetch(query)]


def test_every_route_is_in_the_matrix() -> None:
    known = set(BY_PATH) | LISTS | set(BY_BODY) | NOTHING | EXPORTS | OPERATORS | {IMPORT}
    there = {name_of(endpoint) for endpoint in endpoints()}
    assert there - known == set(), "new routes: say in the matrix what another site's ids may do there"
    assert known - there == set(), "routes that are gone"


async def test_another_sites_ids_are_not_found_and_nothing_changes(world: World, pool: asyncpg.Pool) -> None:
    alpha = await world.site("Alpha", domain="alpha.example")
    beta = await world.site("Beta", domain="beta.example")
    theirs = await furnish(world, alpha, "alpha.example")
    own = await furnish(world, beta, "beta.example")
    before = await everything(pool, alpha.site_id)
    ids = theirs | {f"own_{kind}": id_ for kind, id_ in own.items()}
    for endpoint in endpoints():
        name = name_of(endpoint)
        kind = KIND.get(endpoint.path.split("/")[2] if endpoint.path.startswith("/v1/") else "", "")
        if name in BY_PATH:
            path = filled(endpoint.path.replace("{id}", f"{{{kind}}}"), ids)
            response = await beta.call(endpoint.method, path, filled(BY_PATH[name], ids))
            expected = 403 if endpoint.access is Access.OPERATOR else 404
            assert response.status_code == expected, f"{name}: {response.status_code} {response.text}"
        elif name in LISTS:
            page = (await beta.get(endpoint.path))["data"]
            assert page, f"{name}: its own thing is missing"
            shown = {one.get("id", one.get("email")) for one in page}
            assert shown & set(theirs.values()) == set(), name
        elif name in EXPORTS:
            text = (await beta.call("GET", endpoint.path, expect=200)).text
            assert own["email"] in text, f"{name}: its own thing is missing"
            assert theirs["email"] not in text, name
        elif name in BY_BODY:
            for body in BY_BODY[name]:
                response = await beta.call(endpoint.method, endpoint.path, filled(body, ids))
                assert response.status_code in (403, 409, 422), (
                    f"{name}: {response.status_code} {response.text}"
                )
        elif name in OPERATORS:
            response = await beta.call(
                endpoint.method, endpoint.path, {"name": "x"} if endpoint.method == "POST" else None
            )
            assert response.status_code == 403, name
        elif name == IMPORT:
            response = await beta.call(
                "POST",
                f"/v1/imports?list={theirs['list']}",
                b"email\na@b.example\n",
                headers={"content-type": "text/csv"},
            )
            assert response.status_code == 422
    assert await everything(pool, alpha.site_id) == before


async def test_another_sites_ids_are_none_in_the_body_of_a_call_on_ones_own(world: World) -> None:
    alpha = await world.site("Alpha", domain="alpha.example")
    beta = await world.site("Beta", domain="beta.example")
    theirs = await furnish(world, alpha, "alpha.example")
    own = await furnish(world, beta, "beta.example")
    for method, path, body in (
        ("PATCH", f"/v1/broadcasts/{own['broadcast']}", {"list": theirs["list"]}),
        ("PATCH", f"/v1/broadcasts/{own['broadcast']}", {"template": theirs["template"]}),
        ("POST", f"/v1/lists/{own['list']}/members", {"contacts": [own["contact"], theirs["contact"]]}),
        ("POST", f"/v1/templates/{own['template']}/actions/render", {"contact": theirs["contact"]}),
        (
            "POST",
            f"/v1/templates/{own['template']}/actions/test",
            {"contact": theirs["contact"], "from": "a@beta.example", "to": "b@c.example"},
        ),
    ):
        response = await beta.call(method, path, body)
        assert response.status_code == 422, f"{method} {path}: {response.status_code} {response.text}"


async def test_no_id_at_all_is_not_found_too(world: World) -> None:
    app = await world.site(domain="acme.example")
    for endpoint in endpoints():
        if "{" not in endpoint.path or endpoint.access is Access.OPERATOR:
            continue
        for nonsense in (
            "x",
            "dom_",
            "msg_zzzzzzzzzzzzz",
            "%00",
            "site_0000000000000",
            "con_7zzzzzzzzzzzz",
            "lst_7zzzzzzzzzzzz",
            "tpl_0000001zzzzzz",
            "site_7zzzzzzzzzzzz",
            "'--",
        ):
            path = re.sub(r"\{\w+\}", nonsense, endpoint.path)
            body = filled(BY_PATH.get(name_of(endpoint)), {"contact": "con_0000000000001"})
            response = await app.call(endpoint.method, path, body)
            assert response.status_code == 404, (
                f"{name_of(endpoint)} with {nonsense}: {response.status_code} {response.text}"
            )


async def test_every_route_wants_a_key_with_its_scope(world: World) -> None:
    nobody = await world.site("Nobody", scopes=())
    for endpoint in endpoints():
        path = re.sub(r"\{\w+\}", "x", endpoint.path)
        response = await world.public.call(endpoint.method, path)
        if endpoint.access is Access.PUBLIC:
            assert response.status_code == (404 if "{token}" in endpoint.path else 200), path
            continue
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"
        if endpoint.scopes or endpoint.access is Access.OPERATOR:
            assert (await nobody.call(endpoint.method, path)).status_code == 403, path
        if endpoint.access is Access.SITE:
            assert (await world.operator.call(endpoint.method, path)).status_code == 403, path


async def test_without_campaigns_their_resources_say_so(world: World) -> None:
    plain = await world.site("Plain", campaigns=False, domain="plain.example")
    for endpoint in endpoints():
        if endpoint.campaigns:
            response = await plain.call(endpoint.method, re.sub(r"\{\w+\}", "x", endpoint.path))
            assert (response.status_code, response.json()["type"]) == (403, "campaigns_disabled"), (
                endpoint.path
            )
    await plain.post(
        "/v1/messages", {"from": "a@plain.example", "to": "b@c.example", "subject": "s", "text": "t"}
    )


async def test_the_database_itself_keeps_sites_apart(world: World, pool: asyncpg.Pool) -> None:
    alpha = await world.site("Alpha", domain="alpha.example")
    beta = await world.site("Beta", domain="beta.example")
    await furnish(world, alpha, "alpha.example")
    tables = await pool.fetch(
        "SELECT c.relname, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'site_id') AS by_site "
        "FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid WHERE p.polname = 'by_site'"
    )
    assert len(tables) >= 17
    async with as_site(world.services.pool, beta.site_id) as connection:
        for table, by_site in tables:
            column = "site_id" if by_site else "id"
            seen = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {column} = {alpha.site_id}")
            assert seen == 0, table
    async with world.services.pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM contact") == 0, "no site at all: nothing"
