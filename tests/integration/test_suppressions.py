"""The suppression list over HTTP: filters, files in and out, and that it holds at once."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.api import suppressions as suppressions_api
from gateway.store import suppressions as suppressions_store
from tests.support.api import Client, World, open_world

CSV_TYPE = {"content-type": "text/csv; charset=utf-8"}


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def app(world: World) -> Client:
    return await world.site(domain="acme.example")


async def load(app: Client, content: str | bytes, **options: Any) -> Any:
    body = content if isinstance(content, bytes) else content.encode()
    return (await app.call("POST", "/v1/suppressions/import", body, headers=CSV_TYPE, **options)).json()


async def export(app: Client, query: str = "") -> list[dict[str, str]]:
    response = await app.call("GET", f"/v1/suppressions/export.csv{query}", expect=200)
    assert response.headers["content-type"].startswith("text/csv")
    assert "attachment" in response.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(response.text, newline="")))


async def addresses(app: Client, query: str = "") -> list[str]:
    return [one["email"] for one in (await app.get(f"/v1/suppressions{query}"))["data"]]


async def test_a_file_adds_what_is_new_keeps_what_is_known_and_says_what_is_wrong(app: Client) -> None:
    await app.post(
        "/v1/suppressions", {"email": "known@a.example", "reason": "complaint", "evidence": "ticket 7"}
    )
    found = await load(
        app,
        "email,scope,reason,evidence\nNEW@a.example,marketing,unsubscribe,old system\nknown@A.example,all,other,\n"
        "new@a.example,marketing,again,\nnobody,,,\n",
    )
    assert {name: found[name] for name in ("rows", "added", "known", "refused")} == {
        "rows": 4, "added": 1, "known": 2, "refused": 1,
    }  # fmt: skip
    assert [(one["line"], one["column"]) for one in found["errors"]] == [(5, "email")]
    data = (await app.get("/v1/suppressions"))["data"]
    assert [(one["email"], one["scope"], one["reason"], one["evidence"]) for one in data] == [
        ("known@a.example", "all", "complaint", "ticket 7"), ("new@a.example", "marketing", "unsubscribe", "old system"),
    ]  # fmt: skip


async def test_what_was_loaded_holds_for_the_next_message(app: Client) -> None:
    await load(app, "email\nb@c.example\n")
    mail = {"from": "a@acme.example", "to": "B@c.example", "subject": "s", "text": "t"}
    (delivery,) = (await app.post("/v1/messages", mail))["deliveries"]
    assert delivery["state"] == "suppressed"
    await app.call("DELETE", "/v1/suppressions/b@c.example", expect=204)
    (delivery,) = (await app.post("/v1/messages", mail))["deliveries"]
    assert delivery["state"] == "queued"


async def test_the_same_key_is_the_same_answer_and_another_file_is_refused(app: Client) -> None:
    first = await load(app, "email\na@b.example\n", key="k", expect=200)
    assert await load(app, "email\na@b.example\n", key="k", expect=200) == first
    assert (await load(app, "email\nb@b.example\n", key="k", expect=422))["type"] == "idempotency_mismatch"


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", CSV_TYPE, 422),
        (b"address\na@b.example\n", CSV_TYPE, 422),
        (b"email\na@b.example\n", {"content-type": "application/json"}, 400),
        (b"email\na@b.example\n", {}, 400),
    ],
)
async def test_what_is_no_such_file_is_refused_and_nothing_is_added(
    app: Client, content: bytes, headers: dict[str, str], status: int
) -> None:
    await app.call("POST", "/v1/suppressions/import", content, headers=headers, expect=status)
    assert await addresses(app) == []


async def test_many_rows_are_taken_and_given_batch_by_batch(
    app: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions_api, "BATCH", 10)
    rows = [f"p{i:03}@a.example" for i in range(30)]
    found = await load(app, "email\n" + "".join(f"{row}\n" for row in rows))
    assert (found["rows"], found["added"]) == (30, 30)
    assert [one["email"] for one in await export(app)] == rows


async def test_an_export_has_no_formula_and_can_be_loaded_elsewhere(world: World, app: Client) -> None:
    other = await world.site("Beta")
    evil = '=HYPERLINK("http://evil.example")'
    await app.post(
        "/v1/suppressions", {"email": "+tag@a.example", "reason": evil, "evidence": "@SUM(1)\r\nline"}
    )
    await app.post("/v1/suppressions", {"email": "plain@a.example", "scope": "marketing"})
    text = (await app.call("GET", "/v1/suppressions/export.csv", expect=200)).text
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert f"'{evil}" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert await export(other) == []
    assert (await load(other, text))["added"] == 2

    def said(page: Any) -> list[tuple[str, ...]]:
        return [(one["email"], one["scope"], one["reason"], one["evidence"]) for one in page["data"]]

    assert said(await other.get("/v1/suppressions")) == said(await app.get("/v1/suppressions"))


async def test_the_list_is_filtered_and_paged_by_key(app: Client) -> None:
    await load(
        app,
        "email,scope,reason\na@a.example,all,hard_bounce\na@a.example,marketing,unsubscribe\nb@a.example,marketing,unsubscribe\n",
    )
    assert await addresses(app, "?reason=unsubscribe") == ["a@a.example", "b@a.example"]
    assert await addresses(app, "?scope=all") == ["a@a.example"]
    assert await addresses(app, "?email=A%40a.example") == ["a@a.example", "a@a.example"]
    assert await addresses(app, "?email=a%40a.example&scope=all&reason=unsubscribe") == []
    assert [one["email"] for one in await export(app, "?scope=all")] == ["a@a.example"]
    first = await app.get("/v1/suppressions?limit=2")
    rest = await app.get(f"/v1/suppressions?limit=2&after={first['next']}")
    assert [one["email"] for one in rest["data"]] == ["b@a.example"]
    for query in ("scope=some", "email=nobody", "reason=%00", "after=%00"):
        await app.call("GET", f"/v1/suppressions?{query}", expect=422)


async def test_a_rare_reason_is_found_over_several_bounded_looks(
    app: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions_store, "LOOK", 3)
    monkeypatch.setattr(suppressions_api, "BATCH", 2)
    await load(
        app,
        "email,reason\n" + "".join(f"u{i}@a.example,{'rare' if i == 7 else 'common'}\n" for i in range(9)),
    )
    found: list[str] = []
    looks, after = 0, ""
    while after is not None:
        shown = await app.get(f"/v1/suppressions?reason=rare&limit=2&after={after}")
        found += [one["email"] for one in shown["data"]]
        looks, after = looks + 1, shown["next"]
        assert shown["has_more"] == (after is not None)
    assert (found, looks) == (["u7@a.example"], 4)
    assert [row["email"] for row in await export(app, "?reason=rare")] == ["u7@a.example"]
    assert await export(app, "?reason=none") == []


async def test_two_files_at_once_do_not_hinder_each_other(
    app: Client, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions_api, "BATCH", 50)
    rows = [f"p{i:03}@a.example" for i in range(500)]
    assert len(rows) > 2 * suppressions_api.BATCH, "several batches, in both orders"
    forth = "email\n" + "".join(f"{row}\n" for row in rows)
    back = "email\n" + "".join(f"{row}\n" for row in reversed(rows))
    found = await asyncio.gather(*(load(app, text, expect=200) for text in (forth, back, forth, back)))
    assert sum(one["added"] for one in found) == 500
    assert await pool.fetchval("SELECT count(*) FROM suppression") == 500
