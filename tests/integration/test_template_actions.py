"""A template seen as a contact would see it, and sent to an address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.api import Client, World, make_broadcast, open_world


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def app(world: World) -> Client:
    return await world.site(domain="acme.example")


async def template(app: Client, **changes: Any) -> str:
    body = {
        "name": "hello",
        "subject": "Hello {{ first_name }}",
        "html": "<p>{{ company }} {{ first_name }}",
        "text": "{{ email }}",
    }
    return f"/v1/templates/{(await app.post('/v1/templates', body | changes))['id']}/actions"


async def contact(app: Client) -> str:
    body = {"email": "ada@one.example", "first_name": "Ada <b>", "fields": {"company": "Engines"}}
    return (await app.post("/v1/contacts", body))["id"]


async def test_renders_as_a_contact_with_variables_of_the_call_before_its_own(app: Client) -> None:
    actions, who = await template(app), await contact(app)
    assert await app.post(f"{actions}/render", {"contact": who}) == {
        "subject": "Hello Ada <b>", "html": "<p>Engines Ada &lt;b&gt;", "text": "ada@one.example",
    }  # fmt: skip
    other = await app.post(f"{actions}/render", {"contact": who, "variables": {"company": "Mills"}})
    assert other["html"] == "<p>Mills Ada &lt;b&gt;"
    assert (await app.post(f"{actions}/render", {}))["subject"] == "Hello "


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"contact": "con_0000000000099"}, "/contact"),
        ({"contact": "x"}, "/contact"),
        ({"variables": []}, "/variables"),
        ({"as": "x"}, "/as"),
    ],
)
async def test_points_at_what_is_wrong(app: Client, body: Any, pointer: str) -> None:
    actions = await template(app)
    refused = (await app.call("POST", f"{actions}/render", body, expect=422)).json()
    assert refused["errors"][0]["pointer"] == pointer


async def test_says_which_part_and_line_cannot_be_rendered(app: Client, pool: asyncpg.Pool) -> None:
    actions = await template(app, html="<p>\n{{ n | divided_by: 0 }}")
    for action, body in (
        ("render", {"variables": {"n": 1}}),
        ("test", {"from": "a@acme.example", "to": "b@c.example", "variables": {"n": 1}}),
    ):
        refused = (await app.call("POST", f"{actions}/{action}", body, expect=422)).json()
        assert "html, line 2" in refused["detail"]
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_a_test_is_sent_as_marketing_mail_and_once_under_its_key(
    app: Client, pool: asyncpg.Pool
) -> None:
    actions, who = await template(app), await contact(app)
    body = {
        "from": "News <news@acme.example>",
        "to": "me@acme.example",
        "contact": who,
        "variables": {"company": "X"},
    }
    answers = [await app.call("POST", f"{actions}/test", body, key="k", expect=202) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    row = await pool.fetchrow(
        "SELECT q.recipient, q.variables::jsonb->>'first_name' AS n, q.variables::jsonb->>'company' AS c, m.stream::text, m.subject "
        "FROM queue q JOIN message m ON m.id = q.message_id"
    )
    assert tuple(row or ()) == ("me@acme.example", "Ada <b>", "X", "marketing", "Hello {{ first_name }}")
    shown = await app.get(f"/v1/messages/{answers[0].json()['id']}")
    assert shown["state"] == "queued"
    await app.call("DELETE", f"/v1/contacts/{who}", expect=204)
    again = await app.call("POST", f"{actions}/test", body, key="k", expect=202)
    assert again.json() == answers[0].json(), "what was accepted is told again, whatever has gone since"
    await app.call("POST", f"{actions}/test", body, expect=422)
    del body["contact"]
    quick = await app.post(f"{actions}/test", body | {"stream": "transactional"})
    assert (await app.get(f"/v1/messages/{quick['id']}"))["stream"] == "transactional"


async def test_a_test_goes_by_the_rules_of_all_mail(app: Client) -> None:
    actions = await template(app)
    body = {"from": "a@acme.example", "to": "b@c.example"}
    unverified = await app.call("POST", f"{actions}/test", body | {"from": "a@other.example"}, expect=403)
    assert unverified.json()["type"] == "domain_unverified"
    wrong = (await app.call("POST", f"{actions}/test", body | {"to": "b"}, expect=422)).json()
    assert wrong["errors"][0]["pointer"] == "/to"
    await app.post("/v1/suppressions", {"email": "b@c.example"})
    (delivery,) = (await app.post(f"{actions}/test", body))["deliveries"]
    assert delivery["state"] == "suppressed"


async def test_a_broadcast_is_tried_with_its_own_sender_and_stays_a_draft(
    app: Client, pool: asyncpg.Pool
) -> None:
    draft = await make_broadcast(app, "acme.example")
    path = f"/v1/broadcasts/{draft['id']}"
    await app.call("PATCH", path, {"reply_to": "me@acme.example"}, expect=200)
    (ada,) = (await app.get("/v1/contacts?email=ada@one.example"))["data"]
    for _ in range(2):
        sent = await app.call(
            "POST",
            f"{path}/actions/test",
            {"to": "me@acme.example", "contact": ada["id"]},
            key="k",
            expect=202,
        )
    row = await pool.fetchrow(
        "SELECT q.recipient, q.broadcast_id, m.sender, m.reply_to, m.stream::text, q.variables::jsonb->>'company' AS c "
        "FROM queue q JOIN message m ON m.id = q.message_id"
    )
    assert tuple(row or ()) == (
        "me@acme.example", 0, "News <news@acme.example>", "me@acme.example", "marketing", "Engines",
    )  # fmt: skip
    assert (await app.get(path))["state"] == "draft"
    assert (await app.get(f"/v1/messages/{sent.json()['id']}"))["broadcast"] is None
    await app.call("POST", f"{path}/actions/test", {"to": "nobody"}, expect=422)
