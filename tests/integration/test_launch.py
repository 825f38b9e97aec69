"""Broadcasts from launch to end: nobody twice, nobody left out, whatever is pressed or dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.campaigns import scheduler as scheduler_module
from gateway.campaigns.scheduler import Scheduler, run_scheduler
from gateway.clock import SystemClock
from gateway.model.ids import Prefix, decode
from gateway.store import broadcasts
from gateway.store.books import read_books
from gateway.store.lane_map import LaneMap
from gateway.throttle.shaping import Shaping
from tests.support.api import Client, World, make_broadcast, open_world


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def app(world: World) -> Client:
    return await world.site(domain="acme.example")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "CHUNK", 10)
    monkeypatch.setattr(scheduler_module, "_CANCEL_ROWS", 10)


def make_scheduler(pool: asyncpg.Pool, world: World) -> Scheduler:
    clock = SystemClock()
    return Scheduler(pool, LaneMap(pool, Shaping().for_domain, clock), world.services.waker, clock)


def people(count: int) -> bytes:
    return b"email,first_name,company\n" + b"".join(
        b"p%03d@d%d.example,P%d,C\n" % (i, i % 3, i) for i in range(count)
    )


async def act(app: Client, draft: Any, action: str, status: int | None = None) -> Any:
    response = await app.call("POST", f"/v1/broadcasts/{draft['id']}/actions/{action}", expect=status)
    return response.json()


async def stats(app: Client, draft: Any) -> Any:
    return await app.get(f"/v1/broadcasts/{draft['id']}/stats")


async def expand(scheduler: Scheduler) -> None:
    while await scheduler.round():
        pass


async def end_all(pool: asyncpg.Pool) -> None:
    await pool.execute("SELECT end_deliveries(array_agg(id), 'delivered', 1, '{queued}', 'test') FROM queue")


async def check_whole(pool: asyncpg.Pool, count: int) -> None:
    rows = await pool.fetch("SELECT recipient FROM queue UNION ALL SELECT recipient FROM ended")
    assert len(rows) == len({row[0] for row in rows}) == count
    async with pool.acquire() as connection:
        books = await read_books(connection, deep=True)
    assert books.balanced, books.faults()


async def test_everybody_on_the_list_at_launch_gets_it_once(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example", people(25))
    launched = await act(app, draft, "send", 202)
    late = await app.post("/v1/contacts", {"email": "late@d1.example"})
    await app.post(f"/v1/lists/{draft['list']}/members", {"contact": late["id"]})
    scheduler = make_scheduler(pool, world)
    await expand(scheduler)
    await check_whole(pool, 25)
    assert (
        await pool.fetchval(
            "SELECT count(*) FROM acceptance WHERE message_id = $1",
            decode(Prefix.MESSAGE, launched["message"]),
        )
        == 3
    )
    row = await pool.fetchrow(
        "SELECT variables::jsonb->>'first_name' AS n, priority FROM queue WHERE recipient = 'p007@d1.example'"
    )
    assert tuple(row or ()) == ("P7", 1)
    assert (await stats(app, draft))["state"] == "sending"
    await scheduler.round()
    assert (await stats(app, draft))["state"] == "sending", "not before every delivery has ended"
    await end_all(pool)
    await scheduler.round()
    assert await stats(app, draft) == {
        "accepted": 25, "expanded": True, "state": "completed", "states": {"delivered": 25, "queued": 0, "leased": 0, "held": 0},
    }  # fmt: skip
    assert (await act(app, draft, "cancel", 409))["type"] == "invalid_transition"


async def test_content_is_pinned_and_an_empty_list_completes(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example", b"email\nnobody\n")
    await act(app, draft, "send", 202)
    template = {"name": "changed", "subject": "changed", "text": "changed"}
    await app.call("PUT", f"/v1/templates/{draft['template']}", template, expect=200)
    scheduler = make_scheduler(pool, world)
    await expand(scheduler)
    await scheduler.round()
    assert (await app.get(f"/v1/broadcasts/{draft['id']}"))["state"] == "completed"
    assert await pool.fetchval("SELECT subject FROM message") == "Hello {{ first_name }}"


@pytest.mark.parametrize("dies_at", ["lock_to_expand", "audience", "accept_broadcast", "advance"])
async def test_a_death_inside_a_chunk_leaves_nothing_twice_and_nothing_out(
    world: World, app: Client, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    draft = await make_broadcast(app, "acme.example", people(35))
    await act(app, draft, "send", 202)
    home = scheduler_module if dies_at == "accept_broadcast" else broadcasts
    real, calls = getattr(home, dies_at), 0

    async def dies(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = await real(*args, **options)
        if calls % 2:
            raise RuntimeError("killed")
        return result

    monkeypatch.setattr(home, dies_at, dies)
    deaths = 0
    for _ in range(20):
        try:
            if not await make_scheduler(pool, world).round():
                break
        except RuntimeError:
            deaths += 1
    assert deaths >= 4
    await check_whole(pool, 35)


async def test_two_schedulers_at_once_have_one_effect(world: World, app: Client, pool: asyncpg.Pool) -> None:
    drafts = [await make_broadcast(app, "acme.example", people(95))]
    await act(app, drafts[0], "send", 202)
    await asyncio.gather(*(expand(make_scheduler(pool, world)) for _ in range(4)))
    await expand(make_scheduler(pool, world))
    await check_whole(pool, 95)
    await end_all(pool)
    done = await asyncio.gather(*(make_scheduler(pool, world).round() for _ in range(4)))
    assert done == [False] * 4
    assert (await stats(app, drafts[0]))["state"] == "completed"


async def test_a_pause_stops_expansion_and_holds_what_waits_until_resumed(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example", people(30))
    await act(app, draft, "send", 202)
    scheduler = make_scheduler(pool, world)
    await scheduler.round()
    paused = await act(app, draft, "pause", 200)
    assert (paused["state"], paused["paused_by"]) == ("paused", "user")
    await expand(scheduler)
    assert (await stats(app, draft))["accepted"] == 10
    assert await pool.fetchval("SELECT why FROM hold") == "paused"
    assert (await act(app, draft, "pause", 409))["allowed"] == ["sending", "cancelled", "failed"]
    await pool.execute("UPDATE flow SET active = false")
    await pool.execute("UPDATE lane_state SET next_due = 'infinity'")
    await act(app, draft, "resume", 200)
    assert await pool.fetchval("SELECT count(*) FROM hold") == 0
    assert await pool.fetchval("SELECT count(*) FROM flow WHERE active") == 3, "woken, not left to the sweep"
    await expand(scheduler)
    await check_whole(pool, 30)


async def test_a_cancel_ends_what_waits_and_only_then_the_broadcast(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example", people(60))
    await act(app, draft, "send", 202)
    scheduler = make_scheduler(pool, world)
    for _ in range(4):
        await scheduler.round()
    await pool.execute(
        "UPDATE queue SET state = 'leased', owner_id = 1 WHERE id IN (SELECT id FROM queue ORDER BY id LIMIT 2)"
    )
    await pool.execute(
        "UPDATE queue SET state = 'deferred' WHERE id IN (SELECT id FROM queue ORDER BY id DESC LIMIT 5)"
    )
    await act(app, draft, "cancel", 200)
    await expand(scheduler)
    assert (await app.get(f"/v1/broadcasts/{draft['id']}"))["ended_at"] is None, (
        "two are still with a dispatcher"
    )
    assert (await stats(app, draft))["states"] == {"cancelled": 38, "leased": 2, "held": 0, "queued": 0}
    await pool.execute("UPDATE queue SET state = 'queued', owner_id = null")
    await expand(scheduler)
    view = await app.get(f"/v1/broadcasts/{draft['id']}")
    assert (view["state"], view["ended_at"] is not None, view["actions"]) == ("cancelled", True, [])
    assert (await stats(app, draft))["accepted"] == 40, "what was not expanded was never accepted"
    async with pool.acquire() as connection:
        assert (await read_books(connection, deep=True)).balanced


async def test_nothing_is_launched_from_a_domain_that_is_not_verified_any_more(
    app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example")
    await pool.execute("UPDATE domain SET status = 'failed'")
    assert (await act(app, draft, "send", 403))["type"] == "domain_unverified"
    assert (await app.get(f"/v1/broadcasts/{draft['id']}"))["state"] == "draft"


async def test_a_draft_can_be_cancelled_and_a_send_is_sent_once(app: Client, pool: asyncpg.Pool) -> None:
    draft = await make_broadcast(app, "acme.example")
    answers = await asyncio.gather(*(act(app, draft, "send") for _ in range(5)))
    assert sorted(one.get("state", one.get("type")) for one in answers) == ["invalid_transition"] * 4 + [
        "preparing"
    ]
    assert await pool.fetchval("SELECT count(*) FROM message") == 1
    other = await make_broadcast(app, "acme.example")
    assert (await act(app, other, "cancel", 200))["ended_at"] is not None


async def test_the_scheduler_runs_until_it_is_told_to_stop(
    db: str, world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example", people(25))
    stop = asyncio.Event()
    running = asyncio.create_task(
        run_scheduler(world.services.config, db, shaping=Shaping(), clock=SystemClock(), stop=stop)
    )
    await act(app, draft, "send", 202)
    async with asyncio.timeout(20):
        while (await stats(app, draft))["accepted"] < 25 or await pool.fetchval(
            "SELECT count(*) FROM flow WHERE active"
        ) < 3:
            await asyncio.sleep(0.02)
        stop.set()
        await running
    await check_whole(pool, 25)


async def test_one_broadcast_in_trouble_does_not_stop_the_others(
    world: World, app: Client, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await make_broadcast(app, "acme.example", people(15))
    good = await make_broadcast(app, "acme.example", people(15))
    real = broadcasts.audience

    async def fails(connection: Any, broadcast: broadcasts.Broadcast, limit: int) -> Any:
        if broadcast.id == decode(Prefix.BROADCAST, bad["id"]):
            raise RuntimeError("in trouble")
        return await real(connection, broadcast, limit)

    monkeypatch.setattr(broadcasts, "audience", fails)
    for draft in (bad, good):
        await act(app, draft, "send", 202)
    scheduler = make_scheduler(pool, world)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="in trouble"):
            await scheduler.round()
    assert (await stats(app, bad))["accepted"] == 0
    assert (await stats(app, good))["accepted"] == 15
