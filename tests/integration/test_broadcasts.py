"""Broadcasts as an app steers them: drafts, the estimate, a time to start, and what became of each delivery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.api import broadcasts as broadcasts_api
from gateway.campaigns import launch
from gateway.campaigns import scheduler as scheduler_module
from gateway.campaigns.scheduler import Scheduler
from gateway.store import broadcasts
from gateway.store.books import read_books
from gateway.store.lane_map import LaneMap
from gateway.throttle.shaping import Shaping
from tests.support.api import Client, World, import_list, make_broadcast, open_world
from tests.support.clock import FakeClock

HOUR = timedelta(hours=1)


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def app(world: World) -> Client:
    return await world.site(domain="acme.example")


def make_scheduler(pool: asyncpg.Pool, world: World, *, ahead: timedelta = timedelta()) -> Scheduler:
    """A scheduler whose clock is ahead by so much."""
    clock = FakeClock(start=datetime.now(UTC) + ahead)
    return Scheduler(pool, LaneMap(pool, Shaping().for_domain, clock), world.services.waker, clock)


async def rounds(scheduler: Scheduler) -> None:
    while await scheduler.round():
        pass


async def act(app: Client, broadcast: Any, action: str, status: int, body: Any = None) -> Any:
    path = f"/v1/broadcasts/{broadcast['id']}/actions/{action}"
    return (await app.call("POST", path, body, expect=status)).json()


async def schedule(app: Client, broadcast: Any, after: timedelta = HOUR, status: int = 200) -> Any:
    return await act(app, broadcast, "schedule", status, {"send_at": (datetime.now(UTC) + after).isoformat()})


async def shown(app: Client, broadcast: Any) -> Any:
    return await app.get(f"/v1/broadcasts/{broadcast['id']}")


def people(count: int) -> bytes:
    return b"email\n" + b"".join(b"p%03d@d%d.example\n" % (i, i % 3) for i in range(count))


# A time to start.


async def test_a_scheduled_broadcast_starts_when_its_time_has_come_and_not_before(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example")
    scheduled = await schedule(app, draft)
    assert (scheduled["state"], scheduled["started_at"]) == ("scheduled", None)
    assert datetime.fromisoformat(scheduled["scheduled_at"]) > datetime.now(UTC) + HOUR / 2
    assert set(scheduled["actions"]) == {"send", "schedule", "cancel"}
    await rounds(make_scheduler(pool, world, ahead=HOUR / 2))
    assert (await shown(app, draft))["state"] == "scheduled"
    late = await app.post("/v1/contacts", {"email": "late@one.example"})
    await app.post(f"/v1/lists/{draft['list']}/members", {"contact": late["id"]})
    await rounds(make_scheduler(pool, world, ahead=2 * HOUR))
    started = await shown(app, draft)
    assert (started["state"], started["scheduled_at"]) == ("sending", scheduled["scheduled_at"])
    recipients = {row[0] for row in await pool.fetch("SELECT recipient FROM queue")}
    assert recipients == {"ada@one.example", "bob@two.example", "late@one.example"}, (
        "the audience is that of the start"
    )


async def test_what_came_due_while_no_scheduler_ran_is_started_once(
    world: World, app: Client, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "CHUNK", 10)
    drafts = [await make_broadcast(app, "acme.example", people(25)) for _ in range(3)]
    for minutes, draft in enumerate(drafts, 1):
        await schedule(app, draft, timedelta(minutes=minutes))
    days_later = timedelta(days=2)
    await asyncio.gather(*(rounds(make_scheduler(pool, world, ahead=days_later)) for _ in range(4)))
    await rounds(make_scheduler(pool, world, ahead=days_later))
    assert await pool.fetchval("SELECT count(*) FROM message") == 3
    assert await pool.fetchval("SELECT count(*) FROM queue") == 75
    async with pool.acquire() as connection:
        books = await read_books(connection, deep=True)
    assert books.balanced, books.faults()


@pytest.mark.parametrize("dies_at", ["lock_due", "freeze"])
async def test_a_death_inside_a_start_leaves_it_to_the_next_scheduler(
    world: World, app: Client, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    draft = await make_broadcast(app, "acme.example")
    await schedule(app, draft)
    real = getattr(broadcasts, dies_at)

    async def dies(*args: Any, **options: Any) -> Any:
        await real(*args, **options)
        raise RuntimeError("killed")

    monkeypatch.setattr(broadcasts, dies_at, dies)
    with pytest.raises(RuntimeError, match="killed"):
        await make_scheduler(pool, world, ahead=2 * HOUR).round()
    assert (await shown(app, draft))["state"] == "scheduled"
    assert await pool.fetchval("SELECT count(*) FROM message") == 0
    monkeypatch.setattr(broadcasts, dies_at, real)
    await rounds(make_scheduler(pool, world, ahead=2 * HOUR))
    assert await pool.fetchval("SELECT count(*) FROM queue") == 2


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("UPDATE domain SET status = 'failed'", "acme.example is not verified"),
        ("UPDATE site SET campaigns = false", "campaigns are not switched on"),
        ("UPDATE site SET status = 'suspended'", "the site is suspended"),
    ],
)
async def test_what_must_not_be_sent_any_more_at_its_time_has_failed_and_says_why(
    world: World, app: Client, pool: asyncpg.Pool, change: str, detail: str
) -> None:
    draft = await make_broadcast(app, "acme.example")
    await schedule(app, draft)
    await pool.execute(change)
    await rounds(make_scheduler(pool, world, ahead=2 * HOUR))
    await pool.execute("UPDATE site SET campaigns = true, status = 'active'")
    async with asyncio.timeout(10):
        while True:  # who asks is remembered for two seconds
            response = await app.call("GET", f"/v1/broadcasts/{draft['id']}")
            if response.status_code == 200:
                break
            await asyncio.sleep(0.05)
    failed = response.json()
    assert (failed["state"], failed["actions"], failed["ended_at"] is not None) == ("failed", [], True)
    assert detail in failed["detail"]
    assert await pool.fetchval("SELECT count(*) FROM acceptance") == 0


async def test_one_that_cannot_be_started_does_not_keep_the_others(
    world: World, app: Client, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await make_broadcast(app, "acme.example", people(5))
    good = await make_broadcast(app, "acme.example", people(5))
    await schedule(app, bad, timedelta(minutes=1))
    await schedule(app, good, timedelta(minutes=2))
    first = await pool.fetchval("SELECT min(id) FROM broadcast")
    real = launch.start

    async def fails(connection: Any, broadcast_id: int, message_id: int) -> Any:
        if broadcast_id == first:
            raise RuntimeError("in trouble")
        return await real(connection, broadcast_id, message_id)

    monkeypatch.setattr(launch, "start", fails)
    scheduler = make_scheduler(pool, world, ahead=HOUR)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="in trouble"):
            await scheduler.round()
    assert (await shown(app, bad))["state"] == "scheduled"
    assert (await shown(app, good))["state"] == "sending"


async def test_a_time_can_be_changed_and_called_off(world: World, app: Client, pool: asyncpg.Pool) -> None:
    draft = await make_broadcast(app, "acme.example")
    await schedule(app, draft)
    await schedule(app, draft, 5 * HOUR)
    await rounds(make_scheduler(pool, world, ahead=2 * HOUR))
    assert (await shown(app, draft))["state"] == "scheduled"
    assert (await act(app, draft, "cancel", 200))["ended_at"] is not None
    await rounds(make_scheduler(pool, world, ahead=9 * HOUR))
    assert await pool.fetchval("SELECT count(*) FROM acceptance") == 0
    refused = await schedule(app, draft, status=409)
    assert (refused["type"], refused.get("allowed", [])) == ("invalid_transition", [])


async def test_a_scheduled_one_can_be_sent_at_once_and_is_not_started_again(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example")
    await schedule(app, draft)
    await act(app, draft, "send", 202)
    await rounds(make_scheduler(pool, world, ahead=2 * HOUR))
    assert await pool.fetchval("SELECT count(*) FROM queue") == 2
    refused = await schedule(app, draft, status=409)
    assert (refused["type"], refused["allowed"]) == (
        "invalid_transition",
        ["paused", "completed", "cancelled", "failed"],
    )


@pytest.mark.parametrize(
    "send_at", ["2020-01-01T00:00:00Z", "2199-01-01T00:00:00Z", "2030-01-01T00:00:00", "soon", 5]
)
async def test_a_time_that_is_none_is_refused(app: Client, send_at: Any) -> None:
    draft = await make_broadcast(app, "acme.example")
    refused = await act(app, draft, "schedule", 422, {"send_at": send_at})
    assert refused["errors"][0]["pointer"] == "/send_at"
    assert (await shown(app, draft))["state"] == "draft"


async def test_nothing_is_scheduled_from_a_domain_that_is_not_verified(
    app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example")
    await pool.execute("UPDATE domain SET status = 'failed'")
    assert (await schedule(app, draft, status=403))["type"] == "domain_unverified"


# Drafts.


async def test_a_draft_can_be_changed_in_part_and_is_sent_as_it_was_changed(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example")
    other = await import_list(app, b"email\ncy@three.example\n", "others")
    path = f"/v1/broadcasts/{draft['id']}"
    changes = {
        "list": other["list"],
        "from": "x@acme.example",
        "reply_to": "Me <me@acme.example>",
        "expires_in_s": 60,
    }
    changed = (await app.call("PATCH", path, changes, expect=200)).json()
    assert changed == draft | {
        "list": other["list"], "from": "x@acme.example", "reply_to": "Me <me@acme.example>", "expires_in_s": 60,
    }  # fmt: skip
    assert (await app.call("PATCH", path, {"reply_to": ""}, expect=200)).json()["reply_to"] == ""
    await act(app, draft, "send", 202)
    await rounds(make_scheduler(pool, world))
    row = await pool.fetchrow("SELECT recipient, expires_at - accepted_at AS lasts FROM queue")
    assert tuple(row or ()) == ("cy@three.example", timedelta(seconds=60))
    assert await pool.fetchval("SELECT sender FROM message") == "x@acme.example"


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"list": "lst_0000000000099"}, 422, "/list"),
        ({"template": "tpl_0000000000099"}, 422, "/template"),
        ({"list": "x"}, 422, "/list"),
        ({"from": "nobody"}, 422, "/from"),
        ({"from": "a@other.example"}, 403, None),
        ({"name": ""}, 422, "/name"),
        ({"state": "sending"}, 422, "/state"),
        ({"expires_in_s": 1}, 422, "/expires_in_s"),
    ],
)
async def test_a_wrong_change_points_at_what_is_wrong_and_changes_nothing(
    app: Client, change: dict[str, Any], status: int, pointer: str | None
) -> None:
    draft = await make_broadcast(app, "acme.example")
    response = await app.call("PATCH", f"/v1/broadcasts/{draft['id']}", change, expect=status)
    if pointer is not None:
        assert response.json()["errors"][0]["pointer"] == pointer
    assert await shown(app, draft) == draft


async def test_only_a_draft_is_changed_or_deleted(app: Client, pool: asyncpg.Pool) -> None:
    draft = await make_broadcast(app, "acme.example")
    path = f"/v1/broadcasts/{draft['id']}"
    await schedule(app, draft)
    for method, body in (("PATCH", {"name": "n"}), ("DELETE", None)):
        refused = (await app.call(method, path, body, expect=409)).json()
        assert (refused["type"], refused["allowed"]) == (
            "invalid_transition",
            ["preparing", "scheduled", "cancelled", "failed"],
        )
    await act(app, draft, "send", 202)
    assert (await app.call("DELETE", path, expect=409)).json()["type"] == "invalid_transition"
    other = await make_broadcast(app, "acme.example")
    await app.call("DELETE", f"/v1/broadcasts/{other['id']}", expect=204)
    await app.call("GET", f"/v1/broadcasts/{other['id']}", expect=404)
    assert await pool.fetchval("SELECT count(*) FROM broadcast") == 1


async def test_broadcasts_are_listed_page_by_page(app: Client) -> None:
    made = [(await make_broadcast(app, "acme.example"))["id"] for _ in range(3)]
    first = await app.get("/v1/broadcasts?limit=2")
    assert (first["has_more"], [one["id"] for one in first["data"]]) == (True, made[:2])
    rest = await app.get(f"/v1/broadcasts?limit=2&after={first['next']}")
    assert ([one["id"] for one in rest["data"]], rest["next"]) == (made[2:], None)


# The estimate.


async def test_the_estimate_is_what_the_launch_then_accepts_and_says_who_is_left_out(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example", people(10))
    for place, (scope, reason) in enumerate(
        [("all", "hard_bounce"), ("marketing", "unsubscribe"), ("marketing", "unsubscribe")]
    ):
        email = f"P{place:03}@D{place % 3}.example"
        await app.post("/v1/suppressions", {"email": email, "scope": scope, "reason": reason})
    both = {"email": "p000@d0.example", "scope": "marketing", "reason": "unsubscribe"}
    await app.post("/v1/suppressions", both)
    await app.post("/v1/suppressions", {"email": "stranger@d0.example"})
    found = await act(app, draft, "estimate", 200)
    assert (found["audience"], found["recipients"]) == (10, 7)
    assert found["excluded"] == {"unsubscribe": 2, "hard_bounce": 1}, "each once, for all mail first"
    assert found["ready"] is True
    assert await shown(app, draft) == draft, "nothing has changed"
    await act(app, draft, "send", 202)
    await rounds(make_scheduler(pool, world))
    states = (await app.get(f"/v1/broadcasts/{draft['id']}/stats"))["states"]
    assert (states["queued"], states["suppressed"]) == (7, 3)


async def test_the_estimate_names_all_that_keeps_it_from_being_sent(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example", b"email\nnobody\n")
    broken = {"name": "broken", "subject": "s", "text": "{{ 1 | divided_by: 0 }}"}
    template = await app.post("/v1/templates", broken)
    await app.call("PATCH", f"/v1/broadcasts/{draft['id']}", {"template": template["id"]}, expect=200)
    await pool.execute("UPDATE domain SET status = 'failed'")
    await pool.execute("INSERT INTO hold (kind, ref, why) VALUES ('site', $1, 'unpaid')", app.site_id)
    found = await act(app, draft, "estimate", 200)
    assert found["ready"] is False
    failed = {check["name"]: check["detail"] for check in found["checks"] if not check["passed"]}
    assert set(failed) == {
        "domain_verified",
        "template_renders",
        "recipients",
        "site_sends",
        "links_reachable",
    }
    assert "unpaid" in failed["site_sends"]
    assert "text" in failed["template_renders"]


# What became of each.


async def test_deliveries_are_listed_in_order_and_by_state(
    world: World, app: Client, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "CHUNK", 10)
    monkeypatch.setattr(broadcasts, "LOOK", 2)
    draft = await make_broadcast(app, "acme.example", people(45))
    await app.post("/v1/suppressions", {"email": "p044@d2.example"})
    path = f"/v1/broadcasts/{draft['id']}/deliveries"
    assert await app.get(path) == {"data": [], "has_more": False, "next": None}
    await act(app, draft, "send", 202)
    await rounds(make_scheduler(pool, world))
    await pool.execute(
        "SELECT end_deliveries(array_agg(id), 'bounced', 1, '{queued}', 'no such user') FROM queue "
        "WHERE recipient IN ('p003@d0.example', 'p030@d0.example')"
    )

    async def walk(query: str) -> tuple[list[dict[str, Any]], int]:
        found: list[dict[str, Any]] = []
        pages, after = 0, ""
        while True:
            one = await app.get(f"{path}?limit=7{query}{after}")
            assert len(one["data"]) <= 7
            assert (one["next"] is None) == (not one["has_more"])
            found += one["data"]
            pages += 1
            if not one["has_more"]:
                return found, pages
            after = f"&after={one['next']}"

    everything, _ = await walk("")
    assert [one["to"] for one in everything] == [f"p{i:03}@d{i % 3}.example" for i in range(45)]
    bounced, pages = await walk("&state=bounced")
    assert [(one["to"], one["state"], one["reply"]) for one in bounced] == [
        ("p003@d0.example", "bounced", "no such user"), ("p030@d0.example", "bounced", "no such user"),
    ]  # fmt: skip
    assert pages > 1, "a page looks at a bounded number"
    suppressed, _ = await walk("&state=suppressed")
    assert [one["to"] for one in suppressed] == ["p044@d2.example"]
    assert len((await walk("&state=queued"))[0]) == 42
    await app.call("GET", f"{path}?state=gone", expect=422)
    await app.call("GET", f"{path}?after=msg_0000000000001", expect=422)


async def test_one_sites_deliveries_are_not_among_another_ones(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    other = await world.site("Beta", domain="beta.example")
    mine, theirs = await make_broadcast(app, "acme.example"), await make_broadcast(other, "beta.example")
    await act(app, mine, "send", 202)
    await act(other, theirs, "send", 202)
    await rounds(make_scheduler(pool, world))
    assert len((await app.get(f"/v1/broadcasts/{mine['id']}/deliveries"))["data"]) == 2
    await app.call("GET", f"/v1/broadcasts/{theirs['id']}/deliveries", expect=404)


async def test_the_openapi_document_says_what_may_go_wrong(world: World) -> None:
    paths = (await world.public.get("/openapi.json"))["paths"]
    for path, method in (
        ("/v1/broadcasts/{id}", "patch"),
        ("/v1/broadcasts/{id}", "delete"),
        ("/v1/broadcasts/{id}/actions/schedule", "post"),
        ("/v1/sites/{id}/actions/hold", "post"),
        ("/v1/lanes/{id}/actions/resume", "post"),
    ):
        assert "invalid_transition" in paths[path][method]["responses"]["409"]["description"], path
        assert "rate_limited" in paths[path][method]["responses"]["429"]["description"], path
    stream = paths["/v1/broadcasts/{id}/stream"]["get"]["responses"]["200"]["content"]
    assert set(stream) == {"text/event-stream"}
    given = paths["/v1/suppressions/import"]["post"]["requestBody"]["content"]
    assert set(given) == {"text/csv"}
    assert "text/csv" in paths["/v1/suppressions/export.csv"]["get"]["responses"]["200"]["content"]


async def test_few_broadcasts_are_estimated_at_a_time(
    world: World, app: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = await make_broadcast(app, "acme.example")
    path = f"/v1/broadcasts/{draft['id']}/actions/estimate"
    monkeypatch.setattr(broadcasts_api, "ESTIMATES_MAX", 0)
    refused = await app.call("POST", path, expect=429)
    assert int(refused.headers["retry-after"]) >= 1
    monkeypatch.undo()
    await app.post(path)
    assert world.services.estimating == 0
