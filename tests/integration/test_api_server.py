"""The API as a process has it: real sockets, keys, outages, bugs, and its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from gateway.api import lists as lists_api
from gateway.api.server import endpoints, serve_api
from gateway.config import ApiConfig, Config, DatabaseConfig
from gateway.model.ids import encode
from gateway.store import sites
from gateway.store.embedded import EmbeddedPostgres
from gateway.store.migrate import migrate
from gateway.store.pool import connect
from gateway.throttle.shaping import Shaping
from tests.support.api import Client, World, make_broadcast, open_world
from tests.support.postgres import TEST_SETTINGS


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_serves_over_sockets_and_finishes_what_was_begun(
    db: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    port, stop = free_port(), asyncio.Event()
    config = Config(database=DatabaseConfig(dsn=db, data_dir=str(tmp_path)), api=ApiConfig(port=port))
    serving = asyncio.create_task(serve_api(config, db, shaping=Shaping(), stop=stop))
    async with pool.acquire() as connection:
        _, key = await sites.issue_key(connection, None, "operator", [])
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        async with asyncio.timeout(20):
            while True:
                try:
                    assert (await http.get("/readyz")).status_code == 200
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
        operator = Client(http, key)
        site = await operator.post("/v1/sites", {"name": "Acme"})
        made = await operator.post("/v1/keys", {"site": site["id"], "scopes": ["admin"]})
        slow = asyncio.create_task(Client(http, made["key"]).post("/v1/domains", {"name": "acme.example"}))
        while not await pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
        ):
            if slow.done():
                break
            await asyncio.sleep(0.005)
        stop.set()
        assert (await slow)["status"] == "pending"
        async with asyncio.timeout(20):
            await serving
        with pytest.raises(httpx.ConnectError):
            await http.get("/healthz")


async def test_an_address_that_is_taken_is_named(db: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = Config(database=DatabaseConfig(dsn=db, data_dir=str(tmp_path)), api=ApiConfig(port=port))
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            await serve_api(config, db, shaping=Shaping(), stop=asyncio.Event())


async def test_keys_are_stored_as_hashes_shown_once_and_revoked_at_once(
    world: World, pool: asyncpg.Pool
) -> None:
    site = await world.operator.post("/v1/sites", {"name": "Acme"})
    body = {"site": site["id"], "scopes": ["admin"], "name": "main"}
    made = await world.operator.post("/v1/keys", body, key="k")
    text = made["key"]
    assert len(text.rpartition("_")[2]) == 32, "160 random bits in 5 bits a character"
    again = await world.operator.post("/v1/keys", body, key="k")
    assert again == made | {"key": ""}, "repeated, but not shown again"
    dump = str(
        [
            tuple(row)
            for table in ("api_key", "idempotency")
            for row in await pool.fetch(f"SELECT t::text FROM {table} t")
        ]
    )
    assert text not in dump
    assert text.rpartition("_")[2] not in dump
    assert await pool.fetchval("SELECT hash FROM api_key WHERE name = 'main'") == sites.digest_of(text)

    app = Client(world.http, text)
    (listed,) = (await app.get("/v1/keys"))["data"]
    assert listed["prefix"] == text.rpartition("_")[0]
    async with asyncio.timeout(10):
        while (await app.get("/v1/keys"))["data"][0]["last_used_at"] is None:
            await asyncio.sleep(0.01)
    revoked = await app.post(f"/v1/keys/{made['id']}/actions/revoke")
    assert revoked["revoked_at"] is not None
    assert (await app.call("GET", "/v1/keys")).status_code == 401


async def test_a_rotated_key_opens_until_it_is_revoked_and_its_successor_opens_the_same(world: World) -> None:
    site = await world.operator.post("/v1/sites", {"name": "Acme"})
    old = await world.operator.post(
        "/v1/keys", {"site": site["id"], "scopes": ["send", "admin"], "name": "shop"}
    )
    new = await Client(world.http, old["key"]).post(f"/v1/keys/{old['id']}/actions/rotate", key="once")
    assert {name: new[name] for name in ("site", "name", "scopes")} == {name: old[name] for name in ("site", "name", "scopes")}  # fmt: skip
    assert new["key"] != old["key"]
    again = await Client(world.http, old["key"]).post(f"/v1/keys/{old['id']}/actions/rotate", key="once")
    assert again == new | {"key": ""}

    successor = Client(world.http, new["key"])
    await successor.post(f"/v1/keys/{old['id']}/actions/revoke")
    assert (await Client(world.http, old["key"]).call("GET", "/v1/keys")).status_code == 401
    refused = await successor.call("POST", f"/v1/keys/{old['id']}/actions/rotate")
    assert (refused.status_code, refused.json()["type"]) == (409, "conflict")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer x", "Basic eA==", "Bearer gw_aaaaaaaaaaaa_" + "a" * 32, "Bearer gw_" + "é" * 12 + "_" + "a" * 32, "Bearer " + "a" * 9000],
)  # fmt: skip
async def test_what_is_no_key_opens_nothing(world: World, header: str) -> None:
    response = await world.http.get("/v1/sites", headers={"authorization": header.encode("latin-1")})
    assert (response.status_code, response.json()["type"]) == (401, "unauthorized")


async def test_a_wrong_secret_behind_a_right_prefix_opens_nothing(world: World) -> None:
    assert world.operator.key is not None
    wrong = world.operator.key[:-1] + ("a" if world.operator.key[-1] != "a" else "b")
    assert (await Client(world.http, wrong).call("GET", "/v1/sites")).status_code == 401


async def test_a_suspended_site_is_refused(world: World, pool: asyncpg.Pool) -> None:
    app = await world.site()
    await pool.execute("UPDATE site SET status = 'suspended' WHERE id = $1", app.site_id)
    response = await app.call("GET", "/v1/messages")
    assert (response.status_code, response.json()["type"]) == (403, "forbidden")


async def test_without_a_database_the_answer_is_503_and_then_all_is_well_again(tmp_path: Path) -> None:
    mail = {"from": "a@acme.example", "to": "b@c.example", "subject": "s", "text": "t"}
    server = EmbeddedPostgres(tmp_path / "postgres", settings=TEST_SETTINGS)
    with server:
        connection = await connect(server.dsn)
        await migrate(connection)
        await connection.close()
        async with open_world(server.dsn, tmp_path) as world:
            app = await world.site(domain="acme.example")
            await app.post("/v1/messages", mail)
            server.stop()
            for method, path, body in (
                ("GET", "/v1/lists", None),
                ("POST", "/v1/messages", mail),
                ("GET", "/readyz", None),
            ):
                response = await app.call(method, path, body, key="k" if body else None)
                assert response.status_code == 503, response.text
                assert response.json()["type"] == "unavailable"
                assert int(response.headers["retry-after"]) >= 1
            assert (await app.call("GET", "/healthz")).status_code == 200
            server.start()
            await app.post("/v1/messages", mail, key="k")
            assert len((await app.get("/v1/messages"))["data"]) == 2
            await world.services.waker.flush()


async def test_a_bug_is_a_500_without_a_trace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await world.site()

    async def fails(*_: Any) -> None:
        raise RuntimeError("secret words")

    monkeypatch.setattr(lists_api.lists, "list_lists", fails)
    response = await app.call("GET", "/v1/lists")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret words" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("PATCH", "/v1/sites", 405), ("GET", "/v1/sites/a/b", 404)],
)
async def test_what_is_no_route_is_a_problem_too(world: World, method: str, path: str, status: int) -> None:
    response = await world.operator.call(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.json()["request_id"]


async def test_a_query_that_no_route_reads_is_refused_before_anything_is_done(world: World) -> None:
    app = await world.site(domain="acme.example")
    await app.post("/v1/suppressions", {"email": "ann@c.example", "scope": "marketing"})
    for method, path, says in (
        ("GET", "/v1/messages?status=queued", "unknown parameter status; there are stream, state, "),
        ("GET", "/v1/messages?state=queued&state=held", "state: given twice"),
        ("GET", "/v1/messages/msg_0000000000001?limit=1", "unknown parameter limit; there are none"),
        ("DELETE", "/v1/suppressions/ann@c.example?scop=all", "unknown parameter scop; there are scope"),
    ):
        [error] = (await app.call(method, path, expect=422)).json()["errors"]
        assert error["detail"].startswith(says)
    assert len((await app.get("/v1/suppressions"))["data"]) == 1
    ready = await world.public.call("GET", "/readyz?verbose", expect=200)
    assert ready.json() == {"status": "ok"}, "what needs no key is called by whoever, with what they add"


async def test_every_path_names_its_methods_to_options_and_beside_a_405(world: World) -> None:
    by_path: dict[str, set[str]] = {}
    for endpoint in endpoints():
        by_path.setdefault(endpoint.path, {"OPTIONS"}).add(endpoint.method)
    for path, methods in by_path.items():
        for method, status in (("OPTIONS", 204), ("TRACE", 405)):
            response = await world.public.call(method, path.replace("{", "").replace("}", ""))
            assert response.status_code == status, path
            assert set(response.headers["allow"].split(", ")) == methods, path


async def test_every_list_goes_on_after_any_id(world: World) -> None:
    app = await world.site(domain="acme.example")
    broadcast = (await make_broadcast(app, "acme.example"))["id"]
    paths = ["/v1/contacts", "/v1/messages", "/v1/broadcasts", f"/v1/broadcasts/{broadcast}/deliveries"]
    for path, prefix in zip(paths, ("con", "msg", "brd", "dlv"), strict=True):
        for number in (0, 2**31, 2**63 - 1):
            page = await app.call("GET", f"{path}?after={encode(prefix, number)}")
            assert page.status_code == 200, f"{path} after {number}: {page.text}"


async def test_a_page_names_its_charset_once(world: World) -> None:
    response = await world.public.call("GET", "/docs", expect=200)
    assert response.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"a": 1}', b'{"name": 1}', b"\xff", b'{"name": "\\u0000"}', b"null"]
)
async def test_no_route_answers_a_wrong_body_with_a_5xx(world: World, body: bytes) -> None:
    app = await world.site(domain="acme.example")
    for endpoint in endpoints():
        if endpoint.method == "GET":
            continue
        who = world.operator if endpoint.access == "operator" else app
        response = await who.call(endpoint.method, endpoint.path.replace("{id}", "dom_0000000000001"), body)
        assert 400 <= response.status_code < 500, (
            f"{endpoint.method} {endpoint.path}: {response.status_code} {response.text}"
        )


async def test_every_post_repeats_its_answer_under_the_same_key(world: World, pool: asyncpg.Pool) -> None:
    app = await world.site(domain="acme.example")
    bodies = {
        "/v1/contacts": {"email": "a@b.example"},
        "/v1/lists": {"name": "l"},
        "/v1/templates": {"name": "t", "subject": "s", "text": "t"},
        "/v1/suppressions": {"email": "a@b.example"},
        "/v1/domains": {"name": "new.example"},
    }
    for path, body in bodies.items():
        answers = await asyncio.gather(*(app.call("POST", path, body, key=f"k{path}") for _ in range(8)))
        assert {(one.status_code, one.content) for one in answers} == {(201, answers[0].content)}, path
        other = await app.call("POST", path, body | {"x": 1}, key=f"k{path}")
        assert other.status_code == 422
    assert await pool.fetchval("SELECT count(*) FROM domain WHERE name = 'new.example'") == 1


async def test_the_openapi_document_has_every_route(world: World) -> None:
    document = await world.public.get("/openapi.json")
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == {(endpoint.path, endpoint.method.lower()) for endpoint in endpoints()}
    message = document["components"]["schemas"]["MessageBody"]
    assert message["additionalProperties"] is False
    assert set(message["required"]) == {"from", "to"}
    assert all(
        (operation["summary"] and "503" in operation["responses"])
        or path in ("/healthz", "/metrics", "/openapi.json", "/docs")
        for path, methods in document["paths"].items()
        for operation in methods.values()
    )
    metrics = await world.http.get("/metrics")
    assert 'gateway_api_duration_seconds_count{route="GET /openapi.json",status="200"} 1.0' in metrics.text


async def test_when_no_connection_is_free_the_answer_is_503(db: str, tmp_path: Path) -> None:
    database = DatabaseConfig(dsn=db, data_dir=str(tmp_path), api_pool_size=2, acquire_timeout_s=0.2)
    async with open_world(db, tmp_path, database=database) as world:
        app = await world.site(domain="acme.example")
        mail = {"from": "a@acme.example", "to": "b@c.example", "subject": "s", "text": "t"}
        await app.post("/v1/messages", mail)
        async with world.services.pool.acquire(), world.services.pool.acquire():
            for method, path, body in (("GET", "/v1/lists", None), ("POST", "/v1/messages", mail)):
                response = await app.call(method, path, body)
                assert (response.status_code, response.json()["type"]) == (503, "unavailable")
        await app.post("/v1/messages", mail)
        assert len((await app.get("/v1/messages"))["data"]) == 2, "nothing of what was refused"
