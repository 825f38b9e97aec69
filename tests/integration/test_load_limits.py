"""What one app may ask and have waiting: 429 with the time to wait, and nothing of what was refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from gateway.clock import SystemClock
from gateway.config import ApiConfig, Config, DatabaseConfig
from gateway.model.address import parse
from gateway.store import sites
from gateway.submission import backlogs
from gateway.submission.desk import open_desk
from gateway.submission.submit import submit
from gateway.throttle.shaping import Shaping
from tests.support.api import Client, open_world

TEXT = {"content-type": "text/csv"}


def mail(**changes: Any) -> dict[str, Any]:
    return {"from": "a@acme.example", "to": "b@c.example", "subject": "s", "text": "t"} | changes


def check_429(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["type"]) == (429, "rate_limited")
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_key_that_asks_too_often_waits_and_others_do_not(db: str, tmp_path: Path) -> None:
    async with open_world(db, tmp_path, api=ApiConfig(requests_per_s=0.1, requests_burst=3)) as world:
        app = await world.site(domain="acme.example")
        other = await world.site("Beta")
        answers = await asyncio.gather(*(app.call("GET", "/v1/messages") for _ in range(5)))
        assert sorted(one.status_code for one in answers) == [200, 200, 200, 429, 429]
        for one in answers:
            assert one.headers["ratelimit-policy"] == '"key";q=3;w=30'
            if one.status_code == 429:
                check_429(one)
                assert one.headers["ratelimit"].startswith('"key";r=0;t=')
        assert sorted(one.headers["ratelimit"].split(";")[1] for one in answers) == [
            "r=0",
            "r=0",
            "r=0",
            "r=1",
            "r=2",
        ]
        assert (await other.call("GET", "/v1/messages")).status_code == 200
        refused = await app.call("POST", "/v1/messages", b"{" * 100)
        check_429(refused)  # before its body was looked at
        assert (await app.call("GET", "/healthz")).status_code == 200, "no key, no limit"
        assert (await Client(world.http, "gw_x").call("GET", "/v1/messages")).status_code == 401


async def test_a_changed_rate_holds_without_a_restart(db: str, tmp_path: Path) -> None:
    async with open_world(db, tmp_path, api=ApiConfig(requests_per_s=0.1, requests_burst=1)) as world:
        app = await world.site()
        await app.call("GET", "/v1/messages", expect=200)
        await app.call("GET", "/v1/messages", expect=429)
        world.services.config = type(world.services.config)(
            database=world.services.config.database, api=ApiConfig(requests_per_s=1_000.0, requests_burst=100)
        )
        for _ in range(20):
            await app.call("GET", "/v1/messages", expect=200)


async def test_a_site_with_too_much_waiting_is_refused_by_stream_and_taken_again_later(
    db: str, tmp_path: Path, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlogs, "DOUBTED_S", 0.0)
    monkeypatch.setattr(backlogs, "REST", 0.0)
    async with open_world(db, tmp_path, api=ApiConfig(backlog_limit=5)) as world:
        app = await world.site(domain="acme.example")
        other = await world.site("Beta", domain="beta.example")
        people = [f"u{i}@c{i}.example" for i in range(4)]
        first = await app.call(
            "POST", "/v1/messages", mail(to=people, stream="marketing"), key="k", expect=202
        )
        refused = await app.call("POST", "/v1/messages", mail(to=people[:2], stream="marketing"))
        check_429(refused)
        assert "4 marketing deliveries" in refused.json()["detail"]
        check_429(await app.call("POST", "/v1/messages", [mail(to=people[:2], stream="marketing")]))
        template = await app.post("/v1/templates", {"name": "t", "subject": "s", "text": "t"})
        await app.call("POST", "/v1/messages", mail(stream="marketing"), expect=202)
        test = {"from": "a@acme.example", "to": "b@c.example"}
        check_429(await app.call("POST", f"/v1/templates/{template['id']}/actions/test", test))
        again = await app.call(
            "POST", "/v1/messages", mail(to=people, stream="marketing"), key="k", expect=202
        )
        assert again.content == first.content, "what was accepted is told again"
        # The other stream and the other site have room of their own.
        await app.call("POST", "/v1/messages", mail(to=people), expect=202)
        await other.call("POST", "/v1/messages", mail(**{"from": "a@beta.example"}), expect=202)
        assert await pool.fetchval("SELECT count(*) FROM queue WHERE priority = 1") == 5
        await pool.execute(
            "UPDATE queue SET state = 'deferred' WHERE priority = 1 AND recipient = 'u0@c0.example'"
        )
        check_429(await app.call("POST", "/v1/messages", mail(stream="marketing")))
        await pool.execute("SELECT end_deliveries(array_agg(id), 'delivered', 1, '{queued}', 't') FROM queue")
        await app.call("POST", "/v1/messages", mail(to=people, stream="marketing"), expect=202)


async def test_many_at_once_have_it_counted_once(
    db: str, tmp_path: Path, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    count = sites.count_backlog

    async def noted(connection: asyncpg.Connection, site_id: int, priority: int, most: int) -> int:
        counted.append(site_id)
        return await count(connection, site_id, priority, most)

    monkeypatch.setattr(sites, "count_backlog", noted)
    async with open_world(db, tmp_path, api=ApiConfig(backlog_limit=30)) as world:
        app = await world.site(domain="acme.example")
        answers = await asyncio.gather(*(app.call("POST", "/v1/messages", mail()) for _ in range(40)))
        assert sorted(one.status_code for one in answers) == [202] * 30 + [429] * 10
        assert counted == [app.site_id]
        await world.services.waker.flush()
    assert await pool.fetchval("SELECT count(*) FROM queue") == 30


async def test_the_count_is_made_now_and_then_and_adds_up_in_between(
    db: str, tmp_path: Path, pool: asyncpg.Pool
) -> None:
    async with open_world(db, tmp_path, api=ApiConfig(backlog_limit=3)) as world:
        app = await world.site(domain="acme.example")
        for _ in range(3):
            await app.call("POST", "/v1/messages", mail(), expect=202)
        check_429(await app.call("POST", "/v1/messages", mail()))
        await world.services.waker.flush()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/messages", {}),
        ("/v1/contacts", {}),
        ("/v1/suppressions/import", TEXT),
        ("/v1/templates/{id}/actions/test", {}),
        ("/v1/templates/{id}/actions/render", {}),
    ],
)
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_above_the_limit_is_refused_before_it_is_parsed(
    db: str, tmp_path: Path, path: str, headers: dict[str, str], announced: bool
) -> None:
    async with open_world(db, tmp_path, api=ApiConfig(body_limit_bytes=1_024)) as world:
        app = await world.site(domain="acme.example")
        template = await app.post("/v1/templates", {"name": "t", "subject": "s", "text": "t"})
        path = path.replace("{id}", template["id"])
        pieces = 0

        async def body() -> Any:
            nonlocal pieces
            for _ in range(100):
                pieces += 1
                yield b"{" * 512

        if announced:
            response = await app.call("POST", path, b"{" * 2_000, headers=headers)
        else:
            response = await app.http.request(
                "POST", path, content=body(), headers=headers | {"authorization": f"Bearer {app.key}"}
            )
        assert (response.status_code, response.json()["type"]) == (413, "invalid")


async def test_the_smtp_door_asks_to_come_again(db: str, tmp_path: Path, pool: asyncpg.Pool) -> None:
    config = Config(database=DatabaseConfig(dsn=db, data_dir=str(tmp_path)), api=ApiConfig(backlog_limit=2))
    async with open_world(db, tmp_path) as world:
        app = await world.site(domain="acme.example")
        async with open_desk(
            config, db, shaping=Shaping(), clock=SystemClock(), application_name="test"
        ) as desk:
            people = [parse(f"u{i}@c.example") for i in range(2)]
            letter = b"From: a@acme.example\r\nTo: b@c.example\r\nSubject: s\r\n\r\nHi.\r\n"
            assert (await submit(desk, app.site_id, people, letter)).startswith("250 ")
            assert (await submit(desk, app.site_id, people, letter)).startswith(
                "451 4.7.1 2 transactional deliveries"
            )
            await desk.waker.flush()
    assert await pool.fetchval("SELECT count(*) FROM queue") == 2
