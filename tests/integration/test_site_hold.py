"""The operator's kill switch: nothing of a site is claimed while it is held, all else is, and then it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from gateway.model.ids import Prefix, encode
from tests.support.api import Client, World, open_world
from tests.support.queue import Bench


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def dispatcher(pool: asyncpg.Pool, world: World) -> AsyncIterator[Bench]:
    async with pool.acquire() as connection:
        bench = Bench(connection)
        bench.owner = await bench.incarnation()
        bench.alive = [bench.owner]
        yield bench


def path_of(app: Client) -> str:
    return f"/v1/sites/{encode(Prefix.SITE, app.site_id)}"


async def submit(world: World, app: Client, domain: str) -> None:
    people = [f"u{i}@same.example" for i in range(3)]
    await app.post("/v1/messages", {"from": f"a@{domain}", "to": people, "subject": "s", "text": "t"})
    await world.services.waker.flush()


async def test_a_held_site_sends_nothing_and_others_go_on_in_the_same_lane(
    world: World, dispatcher: Bench
) -> None:
    held, other = (
        await world.site("Held", domain="held.example"),
        await world.site("Other", domain="other.example"),
    )
    path = path_of(held)
    shown = await world.operator.post(f"{path}/actions/hold", {"why": "unpaid"})
    assert shown["hold"]["why"] == "unpaid"
    assert (await held.get(path))["hold"] == shown["hold"], "the site sees why"
    await submit(world, held, "held.example")
    await submit(world, other, "other.example")
    rows = await dispatcher.claim()
    assert {row.site_id for row in rows} == {other.site_id}
    assert len(rows) == 3
    assert await dispatcher.take() == []
    (message,) = (await held.get("/v1/messages"))["data"]
    reasons = (await held.get(f"/v1/messages/{message['id']}/why"))["data"][0]["reasons"]
    assert reasons[0]["code"] == "held_site"
    assert (await world.operator.post(f"{path}/actions/release"))["hold"] is None
    # At once, without the sweep: what a claim had put to sleep was woken.
    assert len(await dispatcher.take()) == 3


async def test_each_way_once_and_else_it_names_what_is_possible(world: World) -> None:
    app = await world.site()
    path = path_of(app)
    refused = (await world.operator.call("POST", f"{path}/actions/release", expect=409)).json()
    assert (refused["type"], refused["allowed"]) == ("invalid_transition", ["held"])
    await world.operator.post(f"{path}/actions/hold", {"why": "one"})
    refused = (await world.operator.call("POST", f"{path}/actions/hold", {"why": "two"}, expect=409)).json()
    assert (refused["type"], refused["allowed"]) == ("invalid_transition", ["sending"])
    assert (await world.operator.get(path))["hold"]["why"] == "one"
    for action, body in (("hold", {"why": "x"}), ("release", None)):
        await world.operator.call("POST", f"/v1/sites/site_0000000000099/actions/{action}", body, expect=404)
    (listed,) = (await world.operator.get("/v1/sites"))["data"]
    assert listed["hold"]["why"] == "one"


async def test_a_hold_whose_time_is_over_is_none(world: World, pool: asyncpg.Pool) -> None:
    app = await world.site()
    await pool.execute(
        "INSERT INTO hold (kind, ref, why, until_at) VALUES ('site', $1, 'old', now())", app.site_id
    )
    assert (await world.operator.get(path_of(app)))["hold"] is None
    shown = await world.operator.post(f"{path_of(app)}/actions/hold", {"why": "new"})
    assert shown["hold"]["why"] == "new"
    assert await pool.fetchval("SELECT until_at FROM hold") is None


async def test_a_site_is_changed_by_operators_and_its_keys_follow_at_once(world: World) -> None:
    app = await world.site()
    path = path_of(app)
    await app.get("/v1/contacts")
    changed = await world.operator.call(
        "PATCH", path, {"name": "Acme & Co", "time_zone": "Europe/Paris", "campaigns": False}, expect=200
    )
    shown = await app.get(path)
    assert shown == changed.json()
    assert (shown["name"], shown["time_zone"], shown["campaigns"]) == ("Acme & Co", "Europe/Paris", False)
    assert (await app.call("GET", "/v1/contacts", expect=403)).json()["type"] == "campaigns_disabled"
    await world.operator.call("PATCH", path, {"campaigns": True}, expect=200)
    await app.get("/v1/contacts")
    assert (await app.get(path))["name"] == "Acme & Co"
    refused = await world.operator.call("PATCH", path, {"time_zone": "Mars/Olympus"}, expect=422)
    assert refused.json()["errors"][0]["pointer"] == "/time_zone"
    await world.operator.call("PATCH", path, {"status": "x"}, expect=422)
    await world.operator.call("PATCH", "/v1/sites/site_0000000000099", {"name": "x"}, expect=404)
