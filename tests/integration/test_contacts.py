"""Contacts and lists over HTTP: found, changed, put on lists and taken off them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.store import contacts
from tests.support.api import Client, World, make_broadcast, open_world


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def app(world: World) -> Client:
    return await world.site(domain="acme.example")


async def make(app: Client, email: str, **more: Any) -> str:
    return (await app.post("/v1/contacts", {"email": email} | more))["id"]


async def found(app: Client, query: str) -> list[str]:
    """Addresses on all pages of a search, in order."""
    addresses: list[str] = []
    after = ""
    while True:
        page = await app.get(f"/v1/contacts?{query}{after}")
        addresses += [one["email"] for one in page["data"]]
        if not page["has_more"]:
            assert page["next"] is None
            return addresses
        after = f"&after={page['next']}"


# Contacts.


async def test_a_change_touches_what_is_given_and_nothing_else(app: Client) -> None:
    before = await app.post(
        "/v1/contacts",
        {
            "email": "ada@a.example",
            "first_name": "Ada",
            "tags": ["x"],
            "fields": {"company": "Engines", "size": 3, "old": {"a": None}},
        },
    )
    path = f"/v1/contacts/{before['id']}"
    changed = (
        await app.call("PATCH", path, {"last_name": "L", "fields": {"size": None, "new": [None]}}, expect=200)
    ).json()
    assert changed | {"updated_at": ""} == before | {
        "last_name": "L", "fields": {"company": "Engines", "old": {"a": None}, "new": [None]}, "updated_at": "",
    }  # fmt: skip
    cleared = (await app.call("PATCH", path, {"first_name": "", "tags": []}, expect=200)).json()
    assert (cleared["first_name"], cleared["tags"], cleared["last_name"]) == ("", [], "L")
    moved = (await app.call("PATCH", path, {"email": "Countess@B.example"}, expect=200)).json()
    assert moved["email"] == "Countess@b.example"
    assert (await app.call("PATCH", path, {}, expect=200)).json()["email"] == "Countess@b.example"


async def test_a_broadcast_goes_to_the_changed_address(world: World, app: Client, pool: asyncpg.Pool) -> None:
    draft = await make_broadcast(app, "acme.example")
    (ada,) = (await app.get("/v1/contacts?email=ada@one.example"))["data"]
    await app.call("PATCH", f"/v1/contacts/{ada['id']}", {"email": "ada@new.example"}, expect=200)
    row = await pool.fetchrow("SELECT email, domain FROM contact WHERE email_key = 'ada@new.example'")
    assert tuple(row or ()) == ("ada@new.example", "new.example")
    assert (await app.post(f"/v1/broadcasts/{draft['id']}/actions/estimate"))["audience"] == 2


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"email": "nobody"}, 422, "/email"),
        ({"email": "bob@a.example"}, 409, None),
        ({"email": "BOB@a.example"}, 409, None),
        ({"source": "x"}, 422, "/source"),
        ({"tags": [""]}, 422, "/tags/0"),
        ({"fields": {"Not A Name": 1}}, 422, "/fields"),
        ({"first_name": "\0"}, 422, "/first_name"),
    ],
)
async def test_a_wrong_change_says_what_is_wrong(
    app: Client, change: Any, status: int, pointer: str | None
) -> None:
    await make(app, "bob@a.example")
    ada = await make(app, "ada@a.example")
    response = await app.call("PATCH", f"/v1/contacts/{ada}", change, expect=status)
    if pointer is not None:
        assert response.json()["errors"][0]["pointer"].startswith(pointer)
    assert (await app.get(f"/v1/contacts/{ada}"))["email"] == "ada@a.example"


async def test_contacts_are_found_by_part_of_name_or_address_by_tag_and_by_list(app: Client) -> None:
    ada = await make(app, "ada@a.example", first_name="Ada", last_name="Lovelace", tags=["math"])
    bob = await make(app, "bob@b.example", first_name="Bob", phone="+44 20", tags=["math", "x"])
    await make(app, "100%_sure@c.example")
    made = await app.post("/v1/lists", {"name": "l"})
    await app.post(f"/v1/lists/{made['id']}/members", {"contacts": [ada, bob]})
    assert await found(app, "search=LOVE") == ["ada@a.example"]
    assert await found(app, "search=ada+lovelace") == ["ada@a.example"]
    assert await found(app, "search=B.EXAMPLE") == ["bob@b.example"]
    assert await found(app, "search=%2B44") == ["bob@b.example"]
    assert await found(app, "search=%25_") == ["100%_sure@c.example"], "no pattern, but these letters"
    assert await found(app, "tag=math") == ["ada@a.example", "bob@b.example"]
    assert await found(app, "tag=math&search=bob") == ["bob@b.example"]
    assert await found(app, f"list={made['id']}&search=ada") == ["ada@a.example"]
    assert await found(app, "tag=nothing") == []
    for query in ("search=" + "x" * 201, "list=x", "search=x&email=a@b.example", "tag=%00"):
        await app.call("GET", f"/v1/contacts?{query}", expect=422)


async def test_a_search_looks_at_a_bounded_number_and_goes_on(
    app: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "LOOK", 10)
    content = b"email\n" + b"".join(b"p%02d@a.example\n" % i for i in range(45)) + b"zneedle@a.example\n"
    await app.call("POST", "/v1/imports", content, headers={"content-type": "text/csv"}, expect=202)
    first = await app.get("/v1/contacts?limit=5&search=needle")
    assert (first["data"], first["has_more"]) == ([], True)
    assert await found(app, "limit=5&search=needle") == ["zneedle@a.example"]
    assert len(await found(app, "limit=5&search=p")) == 46


async def test_a_search_finds_nobody_of_another_site(world: World, app: Client) -> None:
    other = await world.site("Beta")
    await make(app, "ada@a.example")
    await make(other, "ada@a.example", first_name="theirs")
    theirs = await other.post("/v1/lists", {"name": "l"})
    assert [one["first_name"] for one in (await app.get("/v1/contacts?search=ada"))["data"]] == [""]
    assert await found(app, f"list={theirs['id']}") == []


# Lists.


async def test_many_contacts_are_put_on_a_list_at_once_or_none(app: Client) -> None:
    ids = [await make(app, f"p{i}@a.example") for i in range(5)]
    path = f"/v1/lists/{(await app.post('/v1/lists', {'name': 'l'}))['id']}"
    refused = await app.call(
        "POST", f"{path}/members", {"contacts": [ids[0], "con_0000000000999", ids[1], "con_0000000000998"]}, expect=422
    )  # fmt: skip
    assert [one["pointer"] for one in refused.json()["errors"]] == ["/contacts/1", "/contacts/3"]
    assert (await app.get(path))["members"] == 0
    for _ in range(2):
        await app.call("POST", f"{path}/members", {"contacts": [*ids, ids[0]]}, expect=204)
    assert (await app.get(path))["members"] == 5
    first = await app.get(f"{path}/members?limit=3")
    rest = await app.get(f"{path}/members?limit=3&after={first['next']}")
    assert [one["id"] for one in first["data"] + rest["data"]] == ids
    await app.call("DELETE", f"{path}/members/{ids[0]}", expect=204)
    await app.call("DELETE", f"{path}/members/{ids[0]}", expect=404)
    assert (await app.get(path))["members"] == 4


@pytest.mark.parametrize(
    "body", [{}, {"contact": "con_0000000000001", "contacts": ["con_0000000000001"]}, {"contacts": []}, {"contacts": ["x"]}]
)  # fmt: skip
async def test_who_is_put_on_a_list_is_said_in_one_way(app: Client, body: Any) -> None:
    made = await app.post("/v1/lists", {"name": "l"})
    await app.call("POST", f"/v1/lists/{made['id']}/members", body, expect=422)


async def test_a_list_gets_another_name_but_no_other_ones(app: Client) -> None:
    one = await app.post("/v1/lists", {"name": "one"})
    await app.post("/v1/lists", {"name": "two"})
    path = f"/v1/lists/{one['id']}"
    assert (await app.call("PATCH", path, {"name": "three"}, expect=200)).json() == one | {"name": "three"}
    assert (await app.call("PATCH", path, {"name": "two"}, expect=409)).json()["type"] == "conflict"
    assert (await app.get(path))["name"] == "three"


async def test_a_list_that_a_broadcast_uses_stays(app: Client) -> None:
    draft = await make_broadcast(app, "acme.example")
    assert (await app.call("DELETE", f"/v1/lists/{draft['list']}", expect=409)).json()["type"] == "conflict"
    await app.call("DELETE", f"/v1/broadcasts/{draft['id']}", expect=204)
    await app.call("DELETE", f"/v1/lists/{draft['list']}", expect=204)
    assert len((await app.get("/v1/contacts"))["data"]) == 2, "its contacts stay"
