"""The stream of a broadcast's books: over real sockets, until it has ended, and again from where a client left."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from gateway.api import broadcast_progress, followers
from gateway.api.server import serve_api
from gateway.campaigns.scheduler import Scheduler
from gateway.clock import SystemClock
from gateway.config import ApiConfig, Config, DatabaseConfig
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
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast_progress, "POLL_S", 0.02)


@asynccontextmanager
async def served(db: str, folder: Path) -> AsyncGenerator[tuple[httpx.AsyncClient, asyncio.Event]]:
    """The API on a real socket, and what stops it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = asyncio.Event()
    config = Config(database=DatabaseConfig(dsn=db, data_dir=str(folder)), api=ApiConfig(port=port))
    serving = asyncio.create_task(serve_api(config, db, shaping=Shaping(), stop=stop))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
        async with asyncio.timeout(20):
            while True:
                try:
                    await http.get("/healthz")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
        try:
            yield http, stop
        finally:
            stop.set()
    async with asyncio.timeout(20):
        await serving


async def blocks(response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
    """The stream's events; a comment alone is {}."""
    fields: dict[str, Any] = {}
    async for line in response.aiter_lines():
        if not line:
            yield fields
            fields = {}
            continue
        name, _, value = line.partition(":")
        if name:
            fields[name] = json.loads(value) if name == "data" else value.strip()


def auth(app: Client, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {app.key}"} | headers


async def until(events: AsyncIterator[dict[str, Any]], state: str) -> dict[str, Any]:
    """The first event that shows this state."""
    async with asyncio.timeout(20):
        async for event in events:
            if event.get("data", {}).get("state") == state:
                return event
    raise AssertionError(f"the stream ended before {state}")


async def test_a_client_follows_a_broadcast_from_its_draft_to_its_end_and_is_let_go(
    db: str, world: World, app: Client, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    draft = await make_broadcast(app, "acme.example")
    path = f"/v1/broadcasts/{draft['id']}"
    clock = SystemClock()
    scheduler = Scheduler(pool, LaneMap(pool, Shaping().for_domain, clock), world.services.waker, clock)
    async with served(db, tmp_path) as (http, _):
        async with http.stream("GET", f"{path}/stream", headers=auth(app)) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            events = blocks(response)
            assert await anext(events) == {"retry": "2000"}
            assert (await until(events, "draft"))["event"] == "progress"
            await app.post(f"{path}/actions/send")
            await until(events, "preparing")
            while await scheduler.round():
                pass
            sending = await until(events, "sending")
            assert sending["data"]["accepted"] == 2
            await pool.execute(
                "SELECT end_deliveries(array_agg(id), 'delivered', 1, '{queued}', 'test') FROM queue"
            )
            await scheduler.round()
            done = await until(events, "completed")
            assert done["data"]["states"]["delivered"] == 2
            end = [event async for event in events]
            assert [event["event"] for event in end] == ["end"]
        # A client that comes again with the last id is told that there is nothing more: it does not come a third time.
        again = await http.get(f"{path}/stream", headers=auth(app, **{"last-event-id": end[0]["id"]}))
        assert (again.status_code, again.content) == (204, b"")
        # One that had missed the end is told all of it.
        whole = await http.get(f"{path}/stream", headers=auth(app, **{"last-event-id": sending["id"]}))
        assert [line for line in whole.text.splitlines() if line.startswith("event")] == [
            "event: progress",
            "event: end",
        ]


async def test_who_comes_again_with_the_last_id_hears_of_changes_alone(
    db: str, app: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    monkeypatch.setattr(broadcast_progress, "HEARTBEAT_S", 0.0)
    draft = await make_broadcast(app, "acme.example")
    path = f"/v1/broadcasts/{draft['id']}"
    async with served(db, tmp_path) as (http, _):
        async with http.stream("GET", f"{path}/stream", headers=auth(app)) as response:
            first = await until(blocks(response), "draft")
        async with http.stream(
            "GET", f"{path}/stream", headers=auth(app, **{"last-event-id": first["id"]})
        ) as response:
            events = blocks(response)
            async with asyncio.timeout(20):
                assert await anext(events) == {"retry": "2000"}
                assert [await anext(events) for _ in range(3)] == [{}, {}, {}], (
                    "heartbeats, and nothing told twice"
                )
            await app.post(f"{path}/actions/cancel")
            assert (await until(events, "cancelled"))["event"] == "progress"


async def test_a_revoked_key_ends_its_stream(db: str, app: Client, tmp_path: Path, world: World) -> None:
    draft = await make_broadcast(app, "acme.example")
    made = await app.post("/v1/keys", {"scopes": ["read"]})
    reader = Client(world.http, made["key"])
    async with served(db, tmp_path) as (http, _):
        path = f"/v1/broadcasts/{draft['id']}/stream"
        async with http.stream("GET", path, headers=auth(reader)) as response:
            events = blocks(response)
            await until(events, "draft")
            await app.post(f"/v1/keys/{made['id']}/actions/revoke")
            async with asyncio.timeout(10):
                assert [event async for event in events if event.get("event")] == []
        assert (await http.get(path, headers=auth(reader))).status_code == 401


async def test_a_process_that_is_to_end_ends_its_streams_at_once(
    db: str, app: Client, tmp_path: Path, world: World
) -> None:
    draft = await make_broadcast(app, "acme.example")
    async with served(db, tmp_path) as (http, stop):
        path = f"/v1/broadcasts/{draft['id']}/stream"
        async with http.stream("GET", path, headers=auth(app)) as response:
            events = blocks(response)
            await until(events, "draft")
            stop.set()
            async with asyncio.timeout(5):
                assert [event async for event in events if event.get("event")] == []


async def test_streams_are_bounded_and_give_their_places_back(
    db: str, world: World, app: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draft = await make_broadcast(app, "acme.example")
    path = f"/v1/broadcasts/{draft['id']}/stream"
    monkeypatch.setattr(followers, "PER_KEY_MAX", 1)
    other = Client(world.http, (await app.post("/v1/keys", {"scopes": ["read"]}))["key"])
    async with served(db, tmp_path) as (http, _):
        async with http.stream("GET", path, headers=auth(app)) as response:
            events = blocks(response)  # kept: with it the response is closed
            await until(events, "draft")
            refused = await http.get(path, headers=auth(app))
            assert (refused.status_code, refused.json()["type"]) == (429, "rate_limited")
            assert int(refused.headers["retry-after"]) >= 1
            async with http.stream("GET", path, headers=auth(other)) as theirs:
                assert theirs.status_code == 200, "another key has places of its own"
        async with asyncio.timeout(20):
            while True:
                async with http.stream("GET", path, headers=auth(app)) as response:
                    if response.status_code == 200:
                        break


async def test_a_stream_ends_after_its_time_and_goes_on_where_it_was(
    db: str, app: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draft = await make_broadcast(app, "acme.example")
    path = f"/v1/broadcasts/{draft['id']}/stream"
    monkeypatch.setattr(broadcast_progress, "LIFETIME_S", 0.01)
    async with served(db, tmp_path) as (http, _):
        first = await http.get(path, headers=auth(app))
        lines = first.text.splitlines()
        assert "event: progress" in lines
        assert "event: end" not in lines
        last_id = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
        again = await http.get(path, headers=auth(app, **{"last-event-id": last_id}))
        assert (again.status_code, "event: progress" in again.text) == (200, False)
