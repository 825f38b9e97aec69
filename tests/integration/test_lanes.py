"""Lanes in an operator's hand: how they stand, limits for a time, and a stop that holds at the next claim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.clock import SystemClock
from gateway.config import Config
from gateway.dispatch import limits
from gateway.dispatch.limits import run_limits
from gateway.model.ids import Prefix, encode
from gateway.store import lanes
from gateway.store.tenancy import as_site
from gateway.throttle.retune import Retune
from gateway.throttle.shaping import Rule, Shaping
from tests.support.api import Client, World, open_world
from tests.support.queue import Bench


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def bench(world: World, pool: asyncpg.Pool) -> AsyncIterator[Bench]:
    async with pool.acquire() as connection:
        bench = Bench(connection)
        await bench.sites()
        bench.owner = await bench.incarnation()
        bench.alive = [bench.owner]
        yield bench


@pytest.fixture
def operator(world: World) -> Client:
    return world.operator


async def make_lane(bench: Bench, count: int = 0, **limits: Any) -> str:
    """A lane with so many ready deliveries; its path."""
    [lane] = await bench.lanes(**({"rate": 10.0, "burst": 5.0, "connections": 4} | limits))
    if count:
        await bench.fill(await bench.flow(lane), count)
    return f"/v1/lanes/{encode(Prefix.LANE, lane)}"


async def test_a_lane_shows_limits_tokens_and_backlog(operator: Client, bench: Bench) -> None:
    path = await make_lane(bench, 12)
    shown = await operator.get(path)
    assert shown | {"id": "", "used_at": ""} == {
        "id": "", "name": "d0.example", "source": "", "rate_per_s": 10.0, "burst": 5.0, "max_connections": 4, "tokens": 5.0,
        "ready": 12, "waiting": 0, "leased": 0, "held": [], "limit": None, "used_at": "",
    }  # fmt: skip
    rows = await bench.claim()
    await bench.acknowledge(rows[:2], "deferred", wait_s=60.0)
    shown = await operator.get(path)
    assert shown["tokens"] < 1
    assert (shown["ready"], shown["waiting"]) == (12 - len(rows), 2)
    assert [one["code"] for one in shown["held"]] == ["lane_rate"]


async def test_a_backlog_is_counted_up_to_a_bound(operator: Client, bench: Bench) -> None:
    assert (await operator.get(await make_lane(bench, 1_500)))["ready"] == 1_000


async def test_lanes_are_found_by_domain_and_by_what_holds_them(operator: Client, bench: Bench) -> None:
    await bench.lanes(3)
    first = await operator.get("/v1/lanes?limit=2")
    rest = await operator.get(f"/v1/lanes?limit=2&after={first['next']}")
    assert [one["name"] for one in first["data"] + rest["data"]] == ["d0.example", "d1.example", "d2.example"]
    (found,) = (await operator.get("/v1/lanes?domain=D1.example"))["data"]
    assert found["name"] == "d1.example"
    assert (await operator.get("/v1/lanes?domain=nowhere.example"))["data"] == []
    await operator.post(f"/v1/lanes/{found['id']}/actions/suspend", {"why": "asked to"})
    assert (await operator.get("/v1/lanes?suspended=true"))["data"][0]["id"] == found["id"]
    await bench.hold("fleet", why="restored")
    codes = [one["code"] for one in (await operator.get(f"/v1/lanes/{found['id']}"))["held"]]
    assert codes == ["held_fleet", "lane_suspended"]
    for query in ("suspended=perhaps", "domain=a%20b", "after=msg_0000000000001"):
        await operator.call("GET", f"/v1/lanes?{query}", expect=422)


async def test_a_drained_lane_runs_empty_and_stays_so_whatever_its_receiver_says(
    operator: Client, bench: Bench
) -> None:
    path = await make_lane(bench, 12)
    in_hand = len(await bench.claim())
    assert 0 < in_hand < 12
    shown = await operator.post(f"{path}/actions/drain", {"why": "new address"})
    assert shown["leased"] == in_hand
    await bench.connection.execute(
        "SELECT suspend_lanes(array_agg(lane_id), '{30}', '{421}') FROM lane_state"
    )
    held = {one["code"]: one for one in (await operator.get(path))["held"]}["lane_suspended"]
    assert (held["until"], "drained by an operator: new address" in held["text"]) == (None, True)
    await bench.connection.execute(
        "SELECT end_deliveries(array_agg(id), 'delivered', 1, '{leased}', '') FROM queue WHERE state = 'leased'"
    )
    assert await bench.take() == []
    shown = await operator.get(path)
    assert (shown["leased"], shown["ready"]) == (0, 12 - in_hand)
    shown = await operator.post(f"{path}/actions/resume")
    assert [one["code"] for one in shown["held"]] in ([], ["lane_rate"])


async def test_nothing_is_claimed_from_a_suspended_lane_until_it_is_resumed(
    operator: Client, bench: Bench
) -> None:
    path = await make_lane(bench, 3)
    shown = await operator.post(f"{path}/actions/suspend", {"why": "their postmaster called", "for_s": 3600})
    (held,) = shown["held"]
    assert (held["code"], "their postmaster called" in held["text"]) == ("lane_suspended", True)
    until = datetime.fromisoformat(held["until"])
    assert timedelta(minutes=59) < until - datetime.now(UTC) < timedelta(minutes=61)
    floor = await bench.connection.fetchval("SELECT ready_floor()")
    assert await bench.take() == []
    shown = await operator.post(f"{path}/actions/suspend", {"why": "until further notice"})
    assert shown["held"][0]["until"] is None
    assert await bench.take() == []
    assert (await operator.post(f"{path}/actions/resume"))["held"] == []
    assert len(await bench.take(since=floor)) == 3, "seen by a claim that looks from the floor of before"
    refused = (await operator.call("POST", f"{path}/actions/resume", expect=409)).json()
    assert (refused["type"], refused["allowed"]) == ("invalid_transition", ["suspended"])


async def test_limits_for_a_time_hold_at_once_and_rescale_what_is_owed(
    operator: Client, bench: Bench
) -> None:
    path = await make_lane(bench, 100, rate=1.0, burst=1.0)
    assert len(await bench.take()) <= 2
    shown = (
        await operator.call(
            "PUT",
            f"{path}/limit",
            {"rate_per_s": 1000, "burst": 50, "for_s": 60, "why": "late sale"},
            expect=200,
        )
    ).json()
    assert (shown["rate_per_s"], shown["burst"], shown["max_connections"]) == (1000.0, 50.0, 4)
    limit = shown["limit"]
    assert (limit["rate_per_s"], limit["burst"], limit["max_connections"], limit["why"]) == (
        1000.0,
        50.0,
        None,
        "late sale",
    )
    assert len(await bench.take()) >= 50


@pytest.fixture
def kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NEW_EVERY_S", 0.02)


@pytest.mark.usefixtures("kept_at_once")
async def test_limits_for_a_time_go_before_the_throttles_and_end(
    db: str, operator: Client, bench: Bench, pool: asyncpg.Pool
) -> None:
    path = await make_lane(bench)
    shaping = Shaping(domain={"d0.example": Rule(rate_per_s=20.0, burst=7, max_connections=3)})
    stop, followers = asyncio.Event(), list[Retune]()
    keeping = asyncio.create_task(
        run_limits(Config(), db, shaping=shaping, clock=SystemClock(), stop=stop, follow=followers.append)
    )

    async def becomes(rate: float, burst: float, connections: int) -> None:
        async with asyncio.timeout(10):
            while True:
                lane = await operator.get(path)
                if (lane["rate_per_s"], lane["burst"], lane["max_connections"]) == (rate, burst, connections):
                    return
                await asyncio.sleep(0.01)

    await becomes(20.0, 7.0, 3)
    await operator.call("PUT", f"{path}/limit", {"rate_per_s": 2, "for_s": 600, "why": "x"}, expect=200)
    followers[0](Config(), Shaping(domain={"d0.example": Rule(rate_per_s=30.0, burst=9, max_connections=3)}))
    await becomes(2.0, 9.0, 3)
    # Another one in its place: the rate is the throttles' again, though the time is not over.
    await operator.call("PUT", f"{path}/limit", {"burst": 2, "for_s": 600, "why": "y"}, expect=200)
    await becomes(30.0, 2.0, 3)
    await operator.call("DELETE", f"{path}/limit", expect=204)
    await becomes(30.0, 9.0, 3)
    assert (await operator.get(path))["limit"] is None
    await operator.call("DELETE", f"{path}/limit", expect=404)
    await operator.call("PUT", f"{path}/limit", {"rate_per_s": 3, "for_s": 600, "why": "z"}, expect=200)
    await becomes(3.0, 9.0, 3)
    await pool.execute("UPDATE lane_override SET until_at = clock_timestamp()")
    await becomes(30.0, 9.0, 3)
    async with asyncio.timeout(10):
        while await pool.fetchval("SELECT count(*) FROM lane_override"):
            await asyncio.sleep(0.01)
    stop.set()
    await keeping


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"for_s": 60, "why": "x"}, ""),
        ({"rate_per_s": 0, "for_s": 60, "why": "x"}, "/rate_per_s"),
        ({"rate_per_s": 1, "for_s": 0, "why": "x"}, "/for_s"),
        ({"rate_per_s": 1, "for_s": 10_000_000, "why": "x"}, "/for_s"),
        ({"rate_per_s": 1, "for_s": 60}, "/why"),
        ({"burst": 0.5, "for_s": 60, "why": "x"}, "/burst"),
        ({"max_connections": 0, "for_s": 60, "why": "x"}, "/max_connections"),
    ],
)
async def test_points_at_what_is_wrong_with_a_limit(
    operator: Client, bench: Bench, body: Any, pointer: str
) -> None:
    path = await make_lane(bench)
    refused = (await operator.call("PUT", f"{path}/limit", body, expect=422)).json()
    assert refused["errors"][0]["pointer"] == pointer


async def test_a_lane_that_is_not_there_is_not_found(operator: Client) -> None:
    for method, action, body in (
        ("GET", "", None),
        ("PUT", "/limit", {"rate_per_s": 1, "for_s": 60, "why": "x"}),
        ("DELETE", "/limit", None),
        ("POST", "/actions/suspend", {"why": "x"}),
        ("POST", "/actions/drain", {"why": "x"}),
        ("POST", "/actions/resume", None),
    ):
        await operator.call(method, f"/v1/lanes/lane_0000000000099{action}", body, expect=404)


async def test_the_database_itself_lets_no_site_touch_a_lane(world: World, bench: Bench) -> None:
    await make_lane(bench, 3)
    for doing in (
        lambda c: lanes.limit_lane(
            c, 1, rate_per_s=1.0, burst=None, max_connections=None, for_s=1.0, why="x"
        ),
        lambda c: lanes.unlimit_lane(c, 1),
        lambda c: lanes.suspend_lane(c, 1, None, "x"),
        lambda c: lanes.resume_lane(c, 1),
        lambda c: lanes.get_lane(c, 1, most=1),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with as_site(world.services.pool, 1) as connection:
                await doing(connection)
