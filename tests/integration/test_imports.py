"""CSV imports over HTTP: merged, reported by line, once under a key, in flat memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.campaigns.imports import run_import
from gateway.store import contacts
from gateway.store.tenancy import as_site
from tests.support.api import CSV, Client, World, import_list, open_world


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def app(world: World) -> Client:
    return await world.site()


def counts(record: Any) -> tuple[int, int, int, int]:
    return record["rows"], record["created"], record["merged"], record["refused"]


async def test_a_form_and_a_raw_body_say_the_same(app: Client, pool: asyncpg.Pool) -> None:
    raw = await import_list(app)
    form = await app.post("/v1/imports", files={"file": ("c.csv", CSV, "text/csv")}, data={"list": "people"})
    assert counts(raw) == (2, 2, 0, 0)
    assert counts(form) == (2, 0, 2, 0)
    assert raw["list"] == form["list"]
    assert (await app.get(f"/v1/lists/{raw['list']}"))["members"] == 2
    by_id = await import_list(app, b"email\nnew@c.example\n", raw["list"])
    assert by_id["list"] == raw["list"]
    (ada,) = (await app.get("/v1/contacts?email=ADA@one.example"))["data"]
    assert (ada["first_name"], ada["fields"], ada["source"]) == ("Ada", {"company": "Engines"}, "import")


async def test_bad_rows_are_reported_and_the_good_ones_taken(app: Client) -> None:
    content = (
        b"\xef\xbb\xbfemail,first_name,note\r\n"
        b"ada@one.example,Ada,x\r\n"
        b"nobody,Bob,x\r\n"
        b'bob@two.example,"Bob\r\nBuilder",x\r\n'
        b"c@three.example,\xff,x\r\n"
        b"d@four.example,a\0b,x\r\n"
        b"e@five.example,x,y,z\r\n"
        b"f@six.example," + b"x" * 300_000 + b",x\r\n"
        b"last@two.example,Last,x"
    )
    record = await import_list(app, content)
    assert record["status"] == "completed"
    assert counts(record) == (8, 3, 0, 5)
    errors = (await app.get(f"/v1/imports/{record['id']}/errors"))["data"]
    assert [(e["line"], e["column"]) for e in errors] == [
        (3, "email"),
        (6, "first_name"),
        (7, "first_name"),
        (8, ""),
        (9, ""),
    ]
    assert errors[1]["value"] == "\ufffd"
    page = await app.get(f"/v1/imports/{record['id']}/errors?limit=2")
    rest = await app.get(f"/v1/imports/{record['id']}/errors?after={page['next']}")
    assert page["data"] + rest["data"] == errors


async def test_doubles_are_merged_inside_a_file_and_with_what_is_there(app: Client) -> None:
    await import_list(app, b"email,first_name,tags,city\nada@one.example,Ada,a,Paris\n")
    record = await import_list(
        app,
        b"email,first_name,tags,born\nADA@one.example,,b;a,1815\nbob@one.example,B,,\nada@ONE.example,Augusta,c,\n",
    )
    assert counts(record) == (3, 1, 2, 0)
    ada = (await app.get("/v1/contacts?email=ada@one.example"))["data"][0]
    assert (ada["first_name"], sorted(ada["tags"]), ada["fields"]) == (
        "Augusta",
        ["a", "b", "c"],
        {"city": "Paris", "born": "1815"},
    )


async def test_a_file_without_a_header_fails_with_its_reason(app: Client) -> None:
    record = await import_list(app, b"name\nx\n")
    assert record["status"] == "failed"
    assert "no column email" in record["detail"]


async def test_the_same_key_imports_once_whatever_the_boundary(app: Client, pool: asyncpg.Pool) -> None:
    first = await app.post(
        "/v1/imports", files={"file": ("c.csv", CSV, "text/csv")}, data={"list": "people"}, key="k"
    )
    again = await app.post(
        "/v1/imports", files={"file": ("c.csv", CSV, "text/csv")}, data={"list": "people"}, key="k"
    )
    assert again == first
    assert await pool.fetchval("SELECT count(*) FROM import") == 1
    other = await app.call("POST", "/v1/imports", files={"file": ("c.csv", b"email\n", "text/csv")}, key="k")
    assert (other.status_code, other.json()["type"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (400, {"body": b"{}", "headers": {"content-type": "application/json"}}),
        (400, {"body": b"email\n"}),
        (400, {"body": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}}),
        (400, {"body": b"nonsense", "headers": {"content-type": "multipart/form-data"}}),
        (422, {"files": {"other": ("c.csv", b"x")}}),
        (422, {"files": [("file", ("c.csv", b"x")), ("file", ("d.csv", b"x"))]}),
        (422, {"files": {"file": ("c.csv", b"email\n")}, "data": {"list": "x" * 300}}),
        (422, {"files": {"file": ("c.csv", b"email\n")}, "data": {"list": "lst_0000000000099"}}),
        (422, {"files": {"file": ("c.csv", b"email\n")}, "data": {"list": "lst_x"}}),
        (422, {"files": {"file": ("c.csv", b"email\n")}, "data": {"list": "a\0b"}}),
        (
            422,
            {
                "files": {"file": ("c.csv", b"email\n")},
                "data": {"list": "people"},
                "params": {"list": "x" * 300},
            },
        ),
    ],
)
async def test_what_is_no_upload_is_refused(
    app: Client, pool: asyncpg.Pool, status: int, options: dict[str, Any]
) -> None:
    response = await app.call("POST", "/v1/imports", **options)
    assert response.status_code == status, response.text
    assert await pool.fetchval("SELECT count(*) FROM import") == 0


async def test_the_template_can_be_imported(app: Client) -> None:
    template = await app.call("GET", "/v1/imports/template.csv", expect=200)
    assert template.headers["content-type"] == "text/csv; charset=utf-8"
    assert counts(await import_list(app, template.content)) == (1, 1, 0, 0)


async def test_memory_does_not_grow_with_the_file(world: World, app: Client) -> None:
    def content(rows: int) -> BytesIO:
        return BytesIO(
            b"email,first_name,note\n"
            + b"".join(b"p%d@d%d.example,P,%s\n" % (i, i % 7, b"x" * 100) for i in range(rows))
        )

    async def peak(file: BytesIO) -> int:
        async with as_site(world.services.pool, app.site_id) as connection:
            started = await contacts.begin_import(connection, app.site_id, None)
        tracemalloc.start()
        ended = await run_import(world.services.pool, app.site_id, started, file)
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert ended.status == "completed"
        return top

    await peak(content(1_000))
    assert await peak(content(12_000)) < 1.5 * await peak(content(3_000))
