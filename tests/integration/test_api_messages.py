"""`/v1/messages` over HTTP: what is taken, what is refused and where it points, and that nothing is a 5xx."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.mta.attachment import Attachment, unpack_attachments
from tests.support.api import Client, World, open_world


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def app(world: World) -> Client:
    return await world.site(domain="acme.example")


def mail(**changes: Any) -> dict[str, Any]:
    whole = {"from": "Acme <a@acme.example>", "to": "b@c.example", "subject": "s", "text": "t"} | changes
    return {key: value for key, value in whole.items() if value is not None}


async def refused(app: Client, body: Any, status: int = 422) -> dict[str, Any]:
    response = await app.call("POST", "/v1/messages", body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["status"] == status
    return problem


async def test_100_times_the_same_key_is_one_message_and_one_answer(app: Client, pool: asyncpg.Pool) -> None:
    answers = await asyncio.gather(
        *(app.call("POST", "/v1/messages", mail(), key="once") for _ in range(100))
    )
    assert {(one.status_code, one.content) for one in answers} == {(202, answers[0].content)}
    assert await pool.fetchval("SELECT count(*) FROM message") == 1
    other = await app.call("POST", "/v1/messages", mail(subject="other"), key="once")
    assert (other.status_code, other.json()["type"]) == (422, "idempotency_mismatch")


async def test_takes_recipients_in_every_form(app: Client, pool: asyncpg.Pool) -> None:
    one = await app.post(
        "/v1/messages", mail(to={"email": "B@C.example", "name": "Bob", "variables": {"n": 1}})
    )
    assert one["deliveries"][0]["to"] == "B@c.example"
    many = await app.post(
        "/v1/messages",
        mail(to=["x@c.example", {"email": "y@c.example"}], variables={"n": 2}, stream="marketing"),
    )
    assert [d["state"] for d in many["deliveries"]] == ["queued", "queued"]
    assert many["deliveries"][0]["id"][:-2] == many["deliveries"][1]["id"][:-2]
    rows = await pool.fetch("SELECT variables::jsonb::text AS v, priority FROM queue ORDER BY id")
    assert [tuple(row) for row in rows] == [('{"n": 1, "name": "Bob"}', 0), ('{"n": 2}', 1), ('{"n": 2}', 1)]


async def test_a_batch_is_answered_item_by_item(app: Client, pool: asyncpg.Pool) -> None:
    answer = await app.post(
        "/v1/messages",
        [
            mail(),
            mail(to="nobody"),
            mail(**{"from": "x@else.example"}),
            {"to": 1},
            mail(to=["a@b.example"] * 3),
        ],
    )
    data = answer["data"]
    assert [("id" in item, item.get("error", {}).get("type")) for item in data] == [
        (True, None), (False, "invalid"), (False, "domain_unverified"), (False, "invalid"), (True, None),
    ]  # fmt: skip
    assert data[1]["error"]["errors"][0]["pointer"] == "/1/to"
    assert data[3]["error"]["errors"][0]["pointer"].startswith("/3/")
    assert await pool.fetchval("SELECT count(*) FROM queue") == 4


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"to": "nobody"}, "/to"),
        ({"to": ["a@b.example", "x", {"email": "y"}]}, "/to/1"),
        ({"to": "Bob <b@c.example>"}, "/to"),
        ({"to": []}, "/to"),
        ({"to": ["a@b.example"] * 1001}, "/to"),
        ({"to": None}, "/to"),
        ({"from": "acme.example"}, "/from"),
        ({"from": {"email": "a@acme.example", "name": "a\r\nBcc: x@y.example"}}, "/from/name"),
        ({"from": "Ada\nBcc: x <a@acme.example>"}, "/from"),
        ({"subject": "a\r\nBcc: x@y.example"}, "/subject"),
        ({"subject": "=?utf-8?q?=0D=0ABcc:_x@y.example?="}, "/subject"),
        ({"subject": "a\0b"}, "/subject"),
        ({"subject": None}, "/subject"),
        ({"text": None}, "/html"),
        ({"text": "{{ a", "variables": {"a": 1}}, "/text"),
        ({"html": "{% nonsense %}", "variables": {"a": 1}}, "/html"),
        ({"headers": {"X-A": "b\r\nBcc: x@y.example"}}, "/headers/X-A"),
        ({"headers": {"Bcc": "x@y.example"}}, "/headers/Bcc"),
        ({"headers": {"X A": "b"}}, "/headers/X A"),
        ({"headers": {"X-A": "b", "Feedback-ID": "a:b:c:d"}}, "/headers/Feedback-ID"),
        ({"headers": {"feedback-id": "a:b:c:d"}}, "/headers/feedback-id"),
        ({"headers": {"X-Gateway-Delivery": "1"}}, "/headers/X-Gateway-Delivery"),
        ({"headers": {"x-gateway-else": "1"}}, "/headers/x-gateway-else"),
        ({"headers": {"DKIM-Signature": "v=1"}}, "/headers/DKIM-Signature"),
        ({"headers": {"List-Unsubscribe": "<https://x.example/>"}}, "/headers/List-Unsubscribe"),
        ({"headers": {"list-unsubscribe-POST": "x"}}, "/headers/list-unsubscribe-POST"),
        ({"headers": {"Return-Path": "<x@y.example>"}}, "/headers/Return-Path"),
        ({"headers": {"Received": "from x"}}, "/headers/Received"),
        ({"headers": {"CFBL-Feedback-ID": "x"}}, "/headers/CFBL-Feedback-ID"),
        ({"headers": {"content-type": "text/html"}}, "/headers/content-type"),
        ({"headers": {"X-A": 7}}, "/headers"),
        ({"reply_to": "x"}, "/reply_to"),
        ({"template": "tpl_0000000000001"}, "/template"),
        ({"template": "tpl_0000000000001", "subject": None, "text": None}, "/template"),
        ({"template": "msg_0000000000001", "subject": None, "text": None}, "/template"),
        ({"stream": "bulk"}, "/stream"),
        ({"send_at": "tomorrow"}, "/send_at"),
        ({"send_at": "2099-01-01T00:00:00Z"}, "/send_at"),
        ({"expires_in_s": 1}, "/expires_in_s"),
        ({"expires_in_s": "60"}, "/expires_in_s"),
        ({"variables": {"a": "x" * 70_000}}, "/variables"),
        ({"variables": [1]}, "/variables"),
        ({"cc": "x@y.example"}, "/cc"),
    ],
)  # fmt: skip
async def test_points_at_what_is_wrong(
    app: Client, pool: asyncpg.Pool, changes: dict[str, Any], pointer: str
) -> None:
    problem = await refused(app, mail(**changes))
    assert problem["type"] == "invalid"
    assert problem["errors"][0]["pointer"] == pointer
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_a_refused_header_says_which_names_are_the_gateways(app: Client) -> None:
    problem = await refused(app, mail(headers={"FEEDBACK-ID": "x"}))
    detail = problem["errors"][0]["detail"]
    assert detail.startswith("FEEDBACK-ID is set by the gateway alone")
    assert "DKIM-Signature" in detail
    assert "X-Gateway-" in detail


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"from": "\xff"}', b"[1,", b"[" * 100_000]
)
async def test_what_is_not_json_is_a_400(app: Client, body: bytes) -> None:
    problem = await refused(app, body, 400)
    assert problem["type"] == "invalid"


@pytest.mark.parametrize("body", [b"null", b"7", b'"x"', b"[]", b"[" + b"null," * 1000 + b"null]"])
async def test_json_that_is_no_message_is_refused(app: Client, body: bytes) -> None:
    await refused(app, body)


async def test_a_body_above_the_limit_is_not_read(app: Client) -> None:
    await refused(app, b" " * 16_777_217, 413)


async def test_a_request_has_at_most_10000_recipients(app: Client) -> None:
    await refused(app, [mail(to=["a@b.example"] * 1000)] * 11)


def attachment(**changes: Any) -> dict[str, Any]:
    return {"filename": "a.pdf", "content_type": "application/pdf", "content": "AAEC"} | changes


async def test_takes_files_and_never_shows_their_bytes(app: Client, pool: asyncpg.Pool) -> None:
    secret = b"\x00\xffin no answer"
    content = base64.b64encode(secret).decode()
    files = [
        attachment(content=content, filename="Größe 📎.pdf"),
        attachment(content=content, content_type="image/png", content_id="logo@acme.example"),
    ]
    sent = await app.call(
        "POST", "/v1/messages", mail(html="<img src='cid:logo@acme.example'>", attachments=files)
    )
    assert sent.status_code == 202
    packed = await pool.fetchval("SELECT attachments FROM message")
    assert unpack_attachments(packed) == (
        Attachment("Größe 📎.pdf", "application/pdf", secret),
        Attachment("a.pdf", "image/png", secret, "logo@acme.example"),
    )
    answers = [sent, *[await app.call("GET", f"/v1/messages{id_}") for id_ in ("", f"/{sent.json()['id']}")]]
    for answer in answers:
        assert answer.is_success
        assert "attachments" not in answer.text
        assert content not in answer.text
        assert "in no answer" not in answer.text


@pytest.mark.parametrize(
    ("files", "pointer"),
    [
        ([attachment(filename="a\r\nBcc: x@y.example")], "/attachments/0/filename"),
        ([attachment(filename="../a.pdf")], "/attachments/0/filename"),
        ([attachment(filename="..\\a.pdf")], "/attachments/0/filename"),
        ([attachment(filename="")], "/attachments/0/filename"),
        ([attachment(filename="x" * 201)], "/attachments/0/filename"),
        ([attachment(filename="=?utf-8?q?=0D=0ABcc:_x@y.example?=")], "/attachments/0/filename"),
        ([attachment(filename="a\0b")], "/attachments/0/filename"),
        ([attachment(), attachment(filename="a/b")], "/attachments/1/filename"),
        ([attachment(content_type="pdf")], "/attachments/0/content_type"),
        ([attachment(content_type="text/plain\r\nBcc: x@y.example")], "/attachments/0/content_type"),
        ([attachment(content_type="text/plain; charset=utf-8")], "/attachments/0/content_type"),
        ([attachment(content_type="multipart/mixed")], "/attachments/0/content_type"),
        ([attachment(content_type="message/rfc822")], "/attachments/0/content_type"),
        ([attachment(content="not base64!")], "/attachments/0/content"),
        ([attachment(content="AAE")], "/attachments/0/content"),
        ([attachment(content=7)], "/attachments/0/content"),
        ([attachment(content_id="a b")], "/attachments/0/content_id"),
        ([attachment(content_id="a>\r\nBcc: x@y.example")], "/attachments/0/content_id"),
        ([{"filename": "a.pdf", "content": ""}], "/attachments/0/content_type"),
        ([attachment(url="https://acme.example/a.pdf")], "/attachments/0/url"),
        ([attachment()] * 21, "/attachments"),
    ],
)  # fmt: skip
async def test_points_at_what_is_wrong_with_a_file(
    app: Client, pool: asyncpg.Pool, files: list[dict[str, Any]], pointer: str
) -> None:
    problem = await refused(app, mail(attachments=files))
    assert problem["type"] == "invalid"
    assert problem["errors"][0]["pointer"] == pointer
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_takes_20_files_of_10_mib_in_all_and_not_an_octet_more(app: Client) -> None:
    half_mib = attachment(content=base64.b64encode(b"x" * 2**19).decode())
    await app.post("/v1/messages", mail(attachments=[half_mib] * 20))
    more = attachment(content=base64.b64encode(b"x" * (2**19 + 1)).decode())
    problem = await refused(app, mail(attachments=[half_mib] * 19 + [more]))
    assert problem["errors"][0]["pointer"] == "/attachments"


async def test_a_template_is_pinned_when_it_is_accepted(app: Client, pool: asyncpg.Pool) -> None:
    template = await app.post(
        "/v1/templates", {"name": "t", "subject": "Hello {{ n }}", "html": "<p>{{ n }}</p>"}
    )
    sent = await app.post(
        "/v1/messages", mail(template=template["id"], subject=None, text=None, variables={"n": 1})
    )
    await app.call(
        "PUT", f"/v1/templates/{template['id']}", {"name": "t", "subject": "New", "html": "x"}, expect=200
    )
    row = await pool.fetchrow("SELECT subject, html FROM message")
    assert tuple(row or ()) == ("Hello {{ n }}", "<p>{{ n }}</p>")
    assert (await app.get(f"/v1/messages/{sent['id']}"))["template"] == f"{template['id']}@1"


async def test_own_content_is_liquid_with_variables_and_literal_without(
    app: Client, pool: asyncpg.Pool
) -> None:
    await app.post("/v1/messages", mail(text="{{ literally"))
    await app.post("/v1/messages", mail(text="{{ a }}", to={"email": "b@c.example", "variables": {"a": 1}}))
    assert [row[0] for row in await pool.fetch("SELECT template FROM message ORDER BY id")] == ["", "inline"]
    assert [one["template"] for one in (await app.get("/v1/messages"))["data"]] == ["", "inline"]


async def test_the_suppressed_are_told_at_once_and_again(app: Client) -> None:
    await app.post("/v1/suppressions", {"email": "Gone@c.example", "scope": "marketing"})
    body = mail(to=["gone@c.example", "b@c.example"], stream="marketing")
    first = await app.post("/v1/messages", body, key="k")
    again = await app.post("/v1/messages", body, key="k")
    assert [d["state"] for d in first["deliveries"]] == ["suppressed", "queued"]
    assert again == first
    shown = await app.get(f"/v1/messages/{first['id']}")
    assert [d["state"] for d in shown["deliveries"]] == ["suppressed", "queued"]


async def test_a_message_for_later_waits(app: Client) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    sent = await app.post("/v1/messages", mail(send_at=later))
    assert sent["deliveries"][0]["state"] == "deferred"
    assert (await app.get(f"/v1/messages/{sent['id']}"))["deliveries"][0]["next_at"] is not None


async def test_a_stored_answer_outlives_its_domain(app: Client, pool: asyncpg.Pool, world: World) -> None:
    first = await app.post("/v1/messages", mail(), key="k")
    await pool.execute("UPDATE domain SET status = 'failed'")
    world.services.senders._verified.clear()  # pyright: ignore[reportPrivateUsage]
    assert await app.post("/v1/messages", mail(), key="k") == first
    assert (await app.call("POST", "/v1/messages", mail(), key="new")).status_code == 403


async def test_pages_by_key(app: Client) -> None:
    sent = [await app.post("/v1/messages", mail()) for _ in range(3)]
    first = await app.get("/v1/messages?limit=2")
    assert [one["id"] for one in first["data"]] == [one["id"] for one in sent[:2]]
    rest = await app.get(f"/v1/messages?limit=2&after={first['next']}")
    assert [one["id"] for one in rest["data"]] == [sent[2]["id"]]
    assert (first["has_more"], rest["has_more"], rest["next"]) == (True, False, None)
    for wrong in ("limit=0", "limit=1001", "limit=x", "after=x", "after=dom_0000000000001"):
        assert (await app.call("GET", f"/v1/messages?{wrong}")).status_code == 422


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x7fb", "ä"])
async def test_an_idempotency_key_has_a_form(app: Client, key: str) -> None:
    response = await app.call(
        "POST", "/v1/messages", mail(), headers={"idempotency-key": key.encode("latin-1")}
    )
    assert response.status_code == 422
