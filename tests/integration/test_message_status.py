"""`/v1/messages/{id}`, `why`, the list and the actions over HTTP, on a real queue: each state as its sender sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.api.openapi import document
from gateway.api.server import endpoints
from gateway.campaigns.scheduler import Scheduler
from gateway.clock import SystemClock
from gateway.model.ids import Prefix, encode
from gateway.store import messages
from gateway.store.books import read_books
from gateway.store.messages import LOOK
from tests.support.api import Client, World, make_broadcast, open_world, scheduler_parts
from tests.support.queue import Bench


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def app(world: World) -> Client:
    return await world.site(domain="acme.example")


@pytest.fixture
async def dispatcher(pool: asyncpg.Pool, world: World) -> AsyncIterator[Bench]:
    """A dispatcher's hand on the queue, alive in the fleet's eyes."""
    async with pool.acquire() as connection:
        bench = Bench(connection, 1)
        bench.owner = await bench.incarnation()
        bench.alive = [bench.owner]
        yield bench


def mail(**changes: Any) -> dict[str, Any]:
    return {"from": "a@acme.example", "to": "b@c.example", "subject": "s", "text": "t"} | changes


async def send(world: World, app: Client, **changes: Any) -> str:
    """Submit a message and have its lanes woken; its id."""
    sent = await app.post("/v1/messages", mail(**changes))
    await world.services.waker.flush()
    return sent["id"]


async def why(app: Client, message: str) -> list[dict[str, Any]]:
    return (await app.get(f"/v1/messages/{message}/why"))["data"]


async def reason(app: Client, message: str) -> dict[str, Any]:
    """The first reason of a message with one recipient."""
    (delivery,) = await why(app, message)
    return delivery["reasons"][0]


async def balanced(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        assert (await read_books(connection, deep=True)).faults() == []


# What became of it.


async def test_a_message_shows_its_attempts_with_replies_and_its_events_in_order(
    world: World, app: Client, dispatcher: Bench
) -> None:
    message = await send(world, app)
    await dispatcher.acknowledge(await dispatcher.claim(), "deferred", code=450, reply="4.2.0 try later")
    waiting = await app.get(f"/v1/messages/{message}")
    assert (waiting["state"], waiting["states"]) == ("deferred", {"deferred": 1})
    assert waiting["deliveries"][0]["next_at"] is not None
    await dispatcher.connection.execute("SELECT promote(10, 0)")
    await dispatcher.acknowledge(await dispatcher.claim(), reply="ok: queued as 1")
    shown = await app.get(f"/v1/messages/{message}")
    (delivery,) = shown["deliveries"]
    assert (shown["state"], delivery["to"], delivery["state"]) == ("delivered", "b@c.example", "delivered")
    assert [(one["number"], one["outcome"], one["code"], one["reply"]) for one in delivery["attempts"]] == [
        (1, "deferred", 450, "4.2.0 try later"), (2, "delivered", 250, "ok: queued as 1"),
    ]  # fmt: skip
    assert [one["kind"] for one in delivery["events"]] == ["queued", "deferred", "delivered"]
    times = [datetime.fromisoformat(one["at"]) for one in delivery["events"]]
    assert times == sorted(times)


async def test_recipients_in_different_states_are_counted(
    world: World, app: Client, dispatcher: Bench
) -> None:
    message = await send(world, app, to=["a@c.example", "b@c.example", "c@d.example"])
    rows = await dispatcher.claim()
    await dispatcher.acknowledge(rows[:1])
    shown = await app.get(f"/v1/messages/{message}")
    assert (shown["state"], shown["states"]) == ("mixed", {"delivered": 1, "leased": 2})
    assert shown["has_more"] is False


async def test_a_broadcasts_message_counts_what_is_open_and_what_has_ended(
    world: World, app: Client, pool: asyncpg.Pool, dispatcher: Bench
) -> None:
    broadcast, message = await launch(world, app, pool)
    rows = await dispatcher.claim()
    await dispatcher.acknowledge(rows[:1])
    shown = await app.get(f"/v1/messages/{message}")
    assert (shown["broadcast"], shown["states"]) == (broadcast, {"delivered": 1, "open": 1})
    assert [one["broadcast"] for one in (await app.get("/v1/messages"))["data"]] == [broadcast]
    found = await app.get(f"/v1/messages?broadcast={broadcast}")
    assert [one["id"] for one in found["data"]] == [message]


async def launch(world: World, app: Client, pool: asyncpg.Pool) -> tuple[str, str]:
    """A broadcast to two people, expanded and awake; its id and its message's."""
    draft = await make_broadcast(app, "acme.example")
    launched = await app.post(f"/v1/broadcasts/{draft['id']}/actions/send", {})
    await Scheduler(pool, *scheduler_parts(world.services), SystemClock()).round()
    await world.services.waker.flush()
    return launched["id"], launched["message"]


async def test_of_very_many_events_the_latest_are_shown_and_that_there_are_more_is_said(
    world: World, app: Client, dispatcher: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "HAPPENINGS", 3)
    message = await send(world, app)
    for number in range(5):
        await dispatcher.acknowledge(
            await dispatcher.claim(), "deferred", code=450, reply=f"4.2.0 no {number}"
        )
        shown = await app.get(f"/v1/messages/{message}")
        assert shown["has_more_events"] == (number >= 3)
        await dispatcher.connection.execute("SELECT promote(10, 0)")
    (delivery,) = shown["deliveries"]
    assert [one["reply"] for one in delivery["attempts"]] == ["4.2.0 no 2", "4.2.0 no 3", "4.2.0 no 4"]
    assert [one["kind"] for one in delivery["events"]] == ["queued", "deferred", "deferred", "deferred"]


# Why it is where it is.


async def test_what_waits_for_its_lanes_tokens_says_rate_place_and_time(
    world: World, app: Client, pool: asyncpg.Pool, dispatcher: Bench
) -> None:
    messages = [await send(world, app) for _ in range(30)]
    await pool.execute("UPDATE lane_state SET rate_per_s = 0.5, burst = 1")
    last = await reason(app, messages[-1])
    assert (last["code"], last["ahead"], last["rate_per_s"]) == ("lane_rate", 29, 0.5)
    assert 55 < last["eta_s"] < 65
    assert last["release"] == f"by itself, in about {round(last['eta_s'])} seconds"
    assert (await reason(app, messages[0]))["code"] == "next"


async def test_a_fleet_without_dispatchers_is_the_reason(world: World, app: Client) -> None:
    assert (await reason(app, await send(world, app)))["code"] == "no_dispatcher"


@pytest.mark.parametrize(
    ("why", "after", "told", "bounce_class"),
    [
        ("rate 450 4.7.1: <someone@c.example>: too much mail from you", ", after: rate 450 4.7.1", "450 4.7.1", "rate"),
        ("policy 550: someone (at) c.example is not wanted", ", after: policy 550", "550", "policy"),
        ("connection: refused for someone", ", after: connection", None, "connection"),
        ("450 4.7.1 someone%c.example", "", None, None),
    ],
)  # fmt: skip
async def test_a_suspended_lane_tells_class_and_codes_but_nothing_of_what_was_said_to_another_site(
    world: World,
    app: Client,
    pool: asyncpg.Pool,
    dispatcher: Bench,
    why: str,
    after: str,
    told: str | None,
    bounce_class: str | None,
) -> None:
    message = await send(world, app)
    await pool.execute("SELECT suspend_lanes(array_agg(lane_id), '{600}', ARRAY[$1]) FROM lane_state", why)
    found = await reason(app, message)
    assert (found["code"], found["text"]) == (
        "lane_suspended",
        f"nothing is sent to c.example for a while{after}",
    )
    assert (found.get("reply"), found.get("bounce_class")) == (told, bounce_class)
    assert "someone" not in json.dumps(found)
    assert datetime.fromisoformat(found["until"]) > datetime.now(UTC) + timedelta(seconds=500)


async def test_what_was_deferred_tells_its_last_reply_and_its_next_attempt(
    world: World, app: Client, dispatcher: Bench
) -> None:
    message = await send(world, app)
    await dispatcher.acknowledge(
        await dispatcher.claim(), "deferred", wait_s=900.0, code=450, reply="try later"
    )
    found = await reason(app, message)
    assert (found["code"], found["reply"]) == ("deferred", "450 try later")
    assert datetime.fromisoformat(found["until"]) > datetime.now(UTC) + timedelta(seconds=800)


async def test_what_is_sent_for_later_is_scheduled(world: World, app: Client) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    found = await reason(app, await send(world, app, send_at=later.isoformat()))
    assert (found["code"], datetime.fromisoformat(found["until"])) == ("scheduled", later)


async def test_a_paused_broadcast_a_held_site_and_a_held_fleet_are_named_together(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    broadcast, message = await launch(world, app, pool)
    await app.post(f"/v1/broadcasts/{broadcast}/actions/pause")
    await pool.execute(
        "INSERT INTO hold (kind, ref, why) VALUES ('site', $1, 'unpaid'), ('fleet', 0, 'restored')",
        app.site_id,
    )
    await pool.execute(
        "INSERT INTO hold (kind, ref, why) VALUES ('site', 999, 'another'), ('broadcast', 999, 'paused')"
    )
    for delivery in await why(app, message):
        assert [one["code"] for one in delivery["reasons"]] == [
            "held_fleet", "held_site", "broadcast_paused", "no_dispatcher",
        ]  # fmt: skip


async def test_a_suppressed_one_names_the_suppression_and_its_age(world: World, app: Client) -> None:
    entry = await app.post("/v1/suppressions", {"email": "B@c.example", "reason": "asked for it"})
    message = await send(world, app)
    found = await reason(app, message)
    assert (found["code"], found["since"]) == ("suppressed", entry["created_at"])
    assert found["text"] == "its address is suppressed for all mail: asked for it"
    await app.call("DELETE", "/v1/suppressions/b@c.example", expect=204)
    assert "not any more" in (await reason(app, message))["text"]


@pytest.mark.parametrize(
    ("state", "code"),
    [("in_doubt", None), ("delivered", 250), ("bounced", 550), ("quarantined", None), ("unresolved", None)],
)
async def test_every_outcome_is_a_code_of_its_own(
    world: World, app: Client, dispatcher: Bench, state: str, code: int | None
) -> None:
    message = await send(world, app)
    rows = await dispatcher.claim()
    assert (await reason(app, message))["code"] == "sending"
    await dispatcher.acknowledge(rows, state, code=code, reply="as it was said", wait_s=60.0)
    found = await reason(app, message)
    assert found["code"] == state
    assert found["reply"].endswith("as it was said")


async def test_a_dead_dispatchers_delivery_says_so(world: World, app: Client, dispatcher: Bench) -> None:
    message = await send(world, app)
    await dispatcher.claim()
    await dispatcher.connection.execute("UPDATE incarnation SET status = 'dead'")
    assert (await reason(app, message))["code"] == "dispatcher_lost"


async def test_an_expired_one_tells_what_was_said_last(
    world: World, app: Client, dispatcher: Bench, pool: asyncpg.Pool
) -> None:
    message = await send(world, app)
    await dispatcher.acknowledge(await dispatcher.claim(), "deferred", code=450, reply="mailbox full")
    await pool.execute("UPDATE queue SET expires_at = now(), due_at = now()")
    await pool.execute("SELECT promote(10, 0)")
    found = await reason(app, message)
    assert found["code"] == "expired"
    assert found["text"] == "nobody took it in time, after 1 attempt: 450 mailbox full"


async def test_reasons_come_in_pages_of_a_hundred(world: World, app: Client) -> None:
    message = await send(world, app, to=[f"u{i}@d{i % 7}.example" for i in range(150)])
    first = await app.get(f"/v1/messages/{message}/why?limit=1000")
    assert (len(first["data"]), first["has_more"]) == (100, True)
    rest = await app.get(f"/v1/messages/{message}/why?after={first['next']}")
    assert (len(rest["data"]), rest["has_more"], rest["next"]) == (50, False, None)
    assert len({one["id"] for one in first["data"] + rest["data"]}) == 150
    last = encode(Prefix.DELIVERY, (1 << 63) - 1)
    assert (await app.get(f"/v1/messages/{message}/why?after={last}"))["data"] == []


# The list.


async def ids(app: Client, query: str) -> list[str]:
    return [one["id"] for one in (await app.get(f"/v1/messages?{query}"))["data"]]


async def test_the_list_shows_the_first_recipient_and_finds_by_each_filter(
    world: World, app: Client, dispatcher: Bench
) -> None:
    await app.post("/v1/suppressions", {"email": "gone@c.example"})
    first = await send(world, app, to=["Ann@c.example", "bob@c.example"])
    await dispatcher.acknowledge(await dispatcher.claim())
    second = await send(world, app, to="gone@c.example", stream="marketing")
    third = await send(world, app, stream="marketing")
    shown = (await app.get("/v1/messages"))["data"]
    assert [(one["to"], one["recipients"], one["state"]) for one in shown] == [
        ("Ann@c.example", 2, "delivered"), ("gone@c.example", 1, "suppressed"), ("b@c.example", 1, "queued"),
    ]  # fmt: skip
    assert await ids(app, "state=suppressed") == [second]
    assert await ids(app, "state=queued") == [third]
    assert await ids(app, "stream=marketing") == [second, third]
    assert await ids(app, "stream=marketing&state=queued&recipient=B@C.example") == [third]
    assert await ids(app, "recipient=ann@c.EXAMPLE") == [first]
    assert await ids(app, "recipient=bob@c.example&state=queued") == []
    assert await ids(app, "broadcast=brd_0000000000001") == []


async def test_the_list_finds_by_time_to_the_second_wherever_the_ids_stand(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    sent = [await send(world, app) for _ in range(40)]
    now = datetime.now(UTC).replace(microsecond=0)
    # Minutes apart, but for some that are seconds out of order, as the clocks of several hosts would have it.
    for i in range(40):
        at = now - timedelta(minutes=40 - i) + timedelta(seconds=8 if i % 2 else -4)
        await pool.execute(
            "UPDATE message SET created_at = $1 WHERE id = (SELECT id FROM message ORDER BY id OFFSET $2 LIMIT 1)",
            at,
            i,
        )

    def stamp(minutes: int) -> str:
        return (now - timedelta(minutes=40 - minutes)).isoformat().replace("+00:00", "Z")

    assert await ids(app, f"created_from={stamp(10)}&created_to={stamp(13)}") == sent[11:13]
    assert await ids(app, f"created_from={stamp(38)}") == sent[39:]
    assert await ids(app, f"created_to={stamp(2)}") == sent[:3]
    assert await ids(app, f"created_from={stamp(50)}") == []
    assert await ids(app, f"created_to={stamp(-9)}") == []
    page = await app.get(f"/v1/messages?created_from={stamp(10)}&limit=2")
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (sent[11:13], True)
    assert await ids(app, f"created_from={stamp(10)}&limit=2&after={page['next']}") == sent[13:15]


async def test_a_filter_that_fits_little_gives_short_pages_that_lead_on(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    await send(world, app)
    domain, site = await pool.fetchrow("SELECT id, site_id FROM domain WHERE site_id = $1", app.site_id)
    await pool.execute(
        "INSERT INTO message (id, site_id, domain_id, stream, sender, subject) SELECT 1000 + i, $1, $2, 'transactional', 's', 's' "
        "FROM generate_series(1, 5000) i", site, domain,
    )  # fmt: skip
    await pool.execute("UPDATE message SET stream = 'marketing' WHERE id IN (1500, 4500)")
    found: list[str] = []
    pages, after = 0, ""
    while True:
        page = await app.get(f"/v1/messages?stream=marketing&after={after}")
        found += [one["id"] for one in page["data"]]
        pages += 1
        if not page["has_more"]:
            assert page["next"] is None
            break
        after = page["next"]
    assert (found, pages) == ([encode(Prefix.MESSAGE, 1500), encode(Prefix.MESSAGE, 4500)], 5_000 // LOOK + 1)


@pytest.mark.parametrize(
    "query",
    ["state=sent", "stream=bulk", "recipient=nobody", "broadcast=7", "broadcast=brd_0000000000001&state=queued", "created_from=yesterday",
     "created_from=2026-11-26T12:00:00", "created_to=0001-01-01T00:00:00Z", "state=%00",
     "after=dlv_0000000000001", "after=7"],
)  # fmt: skip
async def test_a_filter_that_means_nothing_is_refused_by_name(app: Client, query: str) -> None:
    response = await app.call("GET", f"/v1/messages?{query}", expect=422)
    assert response.json()["errors"][0]["detail"].startswith(query.split("=")[0])


# What its sender may do.


async def test_cancel_ends_what_waits_and_leaves_what_was_begun(
    world: World, app: Client, dispatcher: Bench, pool: asyncpg.Pool
) -> None:
    message = await send(world, app, to=[f"{name}@c.example" for name in "abcde"])
    rows = await dispatcher.claim(per_lane=4)
    assert len(rows) == 4
    await dispatcher.acknowledge(rows[:1])
    await dispatcher.acknowledge(rows[1:2], "deferred", wait_s=60.0)
    await dispatcher.acknowledge(rows[2:3], "in_doubt", wait_s=60.0)
    shown = await app.post(f"/v1/messages/{message}/actions/cancel")
    assert [one["state"] for one in shown["deliveries"]] == [
        "delivered", "cancelled", "in_doubt", "leased", "cancelled",
    ]  # fmt: skip
    await balanced(pool)
    assert await dispatcher.acknowledge(rows[3:]) == 1, "what was leased is still its dispatcher's"
    await balanced(pool)
    assert {row["reasons"][0]["text"] for row in await why(app, message) if row["state"] == "cancelled"} == {
        "its sender cancelled it"
    }


async def test_what_cannot_be_cancelled_is_a_409_that_names_where_it_may_go(
    world: World, app: Client, dispatcher: Bench
) -> None:
    message = await send(world, app)
    rows = await dispatcher.claim()
    leased = await app.call("POST", f"/v1/messages/{message}/actions/cancel", expect=409)
    problem = leased.json()
    assert (problem["type"], problem["detail"][:36]) == (
        "invalid_transition",
        "cannot go from leased to cancelled; ",
    )
    assert {"delivered", "bounced", "deferred"} < set(problem["allowed"])
    await dispatcher.acknowledge(rows)
    ended = (await app.call("POST", f"/v1/messages/{message}/actions/cancel", expect=409)).json()
    assert ended["allowed"] == ["bounced"]


async def test_a_cancel_with_a_key_is_answered_again_the_same(world: World, app: Client) -> None:
    message = await send(world, app)
    path = f"/v1/messages/{message}/actions/cancel"
    first = await app.call("POST", path, key="once", expect=200)
    again = await app.call("POST", path, key="once", expect=200)
    assert again.content == first.content
    assert (await app.call("POST", path)).status_code == 409


async def test_a_broadcasts_message_is_left_to_its_broadcast(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    broadcast, message = await launch(world, app, pool)
    for action in ("cancel", "hold", "release"):
        refused = await app.call("POST", f"/v1/messages/{message}/actions/{action}", expect=409)
        assert (refused.json()["type"], broadcast in refused.text) == ("conflict", True)
    assert await pool.fetchval("SELECT count(*) FROM queue WHERE state = 'queued'") == 2


async def test_what_is_held_is_not_claimed_and_goes_on_where_it_stood(
    world: World, app: Client, dispatcher: Bench, pool: asyncpg.Pool
) -> None:
    held = await send(world, app)
    after = await send(world, app)
    shown = await app.post(f"/v1/messages/{held}/actions/hold")
    assert (shown["state"], [one["kind"] for one in shown["deliveries"][0]["events"]]) == (
        "held",
        ["queued", "held"],
    )
    found = await reason(app, held)
    assert (found["code"], found["since"]) == ("held", shown["deliveries"][0]["events"][1]["at"])
    await dispatcher.acknowledge(await dispatcher.claim())
    assert (await app.get(f"/v1/messages/{after}"))["state"] == "delivered"
    assert await dispatcher.take() == []
    await balanced(pool)
    assert (await app.post(f"/v1/messages/{held}/actions/release"))["state"] == "queued"
    await balanced(pool)
    await dispatcher.acknowledge(await dispatcher.claim())
    assert (await app.get(f"/v1/messages/{held}"))["state"] == "delivered"
    await balanced(pool)


async def test_what_was_held_before_its_time_waits_for_it_again(
    world: World, app: Client, dispatcher: Bench, pool: asyncpg.Pool
) -> None:
    message = await send(world, app, send_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await app.post(f"/v1/messages/{message}/actions/hold")
    await dispatcher.pass_time(3_000)
    await pool.execute("SELECT promote(10, 0)")
    assert (await app.post(f"/v1/messages/{message}/actions/release"))["state"] == "deferred"
    await app.post(f"/v1/messages/{message}/actions/hold")
    await dispatcher.pass_time(3_000)
    await pool.execute("SELECT promote(10, 0)")
    assert (await app.get(f"/v1/messages/{message}"))["state"] == "held"
    assert (await app.post(f"/v1/messages/{message}/actions/release"))["state"] == "queued"
    assert len(await dispatcher.take()) == 1
    await balanced(pool)


async def test_what_is_held_can_be_cancelled_and_expires(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    first, second = await send(world, app), await send(world, app)
    for message in (first, second):
        await app.post(f"/v1/messages/{message}/actions/hold")
        refused = (await app.call("POST", f"/v1/messages/{message}/actions/hold", expect=409)).json()
        assert refused["allowed"] == ["queued", "deferred", "expired", "cancelled"]
    assert (await app.post(f"/v1/messages/{first}/actions/cancel"))["state"] == "cancelled"
    await pool.execute("UPDATE queue SET expires_at = now()")
    await pool.execute("SELECT expire_ready(10, 0)")
    assert (await app.get(f"/v1/messages/{second}"))["state"] == "expired"
    await balanced(pool)


async def test_a_release_after_its_flow_and_lane_were_removed_is_mended_by_the_sweep(
    world: World, app: Client, dispatcher: Bench, pool: asyncpg.Pool
) -> None:
    message = await send(world, app)
    await app.post(f"/v1/messages/{message}/actions/hold")
    assert await dispatcher.take() == []
    await pool.execute("UPDATE flow SET used_at = now() - interval '9 days'")
    await pool.execute("UPDATE lane_state SET used_at = now() - interval '9 days', next_due = 'infinity'")
    await pool.execute("SELECT reap('1 day', '7 days', 10)")
    assert await pool.fetchval("SELECT count(*) FROM lane_state") == 0
    await app.post(f"/v1/messages/{message}/actions/release")
    assert (await reason(app, message))["code"] == "next"
    await pool.execute("SELECT sweep()")
    assert len(await dispatcher.take()) == 1
    await balanced(pool)


@pytest.mark.parametrize("action", ["cancel", "hold"])
async def test_a_claim_that_is_just_taking_it_wins_and_nothing_is_lost_or_doubled(
    world: World, app: Client, pool: asyncpg.Pool, action: str
) -> None:
    message = await send(world, app)
    async with pool.acquire() as connection:
        bench = Bench(connection, 1)
        transaction = connection.transaction()
        await transaction.start()
        rows = await bench.claim()
        asked = asyncio.create_task(app.call("POST", f"/v1/messages/{message}/actions/{action}"))
        while not await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.005)
        await transaction.commit()
        assert (await asked).status_code == 409
        assert await bench.acknowledge(rows) == 1
    assert (await app.get(f"/v1/messages/{message}"))["state"] == "delivered"
    await balanced(pool)


async def test_a_row_that_somebody_keeps_locked_is_a_503_and_nothing_changed(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    message = await send(world, app)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM queue FOR UPDATE")
        response = await app.call("POST", f"/v1/messages/{message}/actions/cancel", expect=503)
        assert response.headers["retry-after"] == "1"
    assert (await app.get(f"/v1/messages/{message}"))["state"] == "queued"


async def test_actions_and_claims_at_once_leave_the_books_balanced(
    world: World, app: Client, pool: asyncpg.Pool
) -> None:
    messages = [await send(world, app, to=[f"{n}@c{n % 3}.example" for n in range(4)]) for _ in range(25)]

    async def serve(owner: int) -> None:
        async with pool.acquire() as connection:
            bench = Bench(connection, owner)
            bench.alive = [1, 2]
            for _ in range(25):
                rows = await bench.claim(20, per_lane=5)
                half = len(rows) // 2
                await bench.acknowledge(rows[:half])
                await bench.release(rows[half:])

    async def meddle(messages: list[str]) -> None:
        for message in messages:
            for action in ("hold", "release", "cancel"):
                response = await app.call("POST", f"/v1/messages/{message}/actions/{action}")
                assert response.status_code in (200, 409, 503), response.text

    await asyncio.gather(serve(1), serve(2), meddle(messages[:12]), meddle(messages[12:]))
    await balanced(pool)
    states = dict(
        await pool.fetch(
            "SELECT state::text, count(*) FROM (SELECT state FROM queue UNION ALL SELECT state FROM ended) s GROUP BY 1"
        )
    )
    assert sum(states.values()) == 100
    assert set(states) <= {"queued", "delivered", "cancelled"}


def test_every_action_of_a_message_is_described_with_its_409() -> None:
    paths = document(endpoints())["paths"]
    for action in ("cancel", "hold", "release"):
        conflict = paths[f"/v1/messages/{{id}}/actions/{action}"]["post"]["responses"]["409"]
        assert "invalid_transition" in conflict["description"]
    asked = {one["name"] for one in paths["/v1/messages"]["get"]["parameters"]}
    assert asked == {
        "limit",
        "after",
        "stream",
        "state",
        "recipient",
        "broadcast",
        "created_from",
        "created_to",
    }
