"""What a recipient comes back to by the links of a mail that we made: the page, one click, the destination, the pixel."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from gateway.clock import SystemClock
from gateway.config import ApiConfig, Config, TrackConfig
from gateway.dispatch.content import Contents
from gateway.dispatch.message import names_of
from gateway.model.delivery import Leased
from gateway.model.ids import decode
from gateway.mta.keys import generate_rsa_key, seal
from gateway.store.queue import Queue
from tests.support.api import Client, World, open_world

_CONFIG = Config(
    api=ApiConfig(public_url="https://mail.acme.example"), track=TrackConfig(url="https://t.acme.example")
)
_NOW = datetime.now(UTC)
HTML = (
    '<html><body><p>{{ name }}</p><a href="https://shop.example/a?x=1&amp;y=2">A</a> <a href="https://shop.example/u/{{ name }}">B</a>'
    "{% if vip %}<a href='https://shop.example/vip'>V</a>{% endif %}"
    '<a href="mailto:a@b.example">M</a> <a href="https://mail.acme.example/u/own">U</a></body></html>'
)


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


async def sent(world: World, pool: asyncpg.Pool, **body: Any) -> tuple[Client, Mapping[str, str], str]:
    """A site, and one message of it as it would leave: its header fields and its HTML."""
    app = await world.site(domain="acme.example")
    await pool.execute(
        "UPDATE domain SET private_key_sealed = $1",
        seal(generate_rsa_key(), world.services.master_key, "acme.example"),
    )
    to = {"email": "Ann@c.example", "variables": {"name": "Ann", "vip": True}}
    answer = await app.post(
        "/v1/messages",
        {"from": "a@acme.example", "to": [to], "subject": "s", "html": HTML, "stream": "marketing", **body},
    )
    message_id = decode("msg", answer["id"])
    async with pool.acquire() as connection:
        rows = await Queue(1, SystemClock(), 0.1).messages(connection, [message_id])
    contents = Contents(names_of(_CONFIG), world.services.master_key)
    contents.add([message_id], rows)
    variables = await pool.fetchval("SELECT variables FROM queue")
    mail = contents.make(
        Leased(
            id=message_id * 1024, epoch=1, lane_id=1, site_id=app.site_id, message_id=message_id, broadcast_id=0, priority=1, attempts=0,
            crashes=0, doubts=0, recipient="Ann@c.example", variables=variables, accepted_at=_NOW, expires_at=_NOW + timedelta(days=2),
            suppressed=False, planned_at=0.0, late_at=0.0, last_moment=0.0,
        )
    )  # fmt: skip
    parsed = message_from_bytes(mail.content)
    payload = parsed.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return app, {name: re.sub(r"\s+", " ", value) for name, value in parsed.items()}, payload.decode()


def path_of(url: str) -> str:
    return urlsplit(url).path


async def test_one_click_unsubscribes_from_all_marketing_and_a_visit_alone_does_nothing(
    world: World, pool: asyncpg.Pool
) -> None:
    app, fields, _ = await sent(world, pool)
    assert fields["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert re.fullmatch(r"-:site_\w+:marketing:gateway", fields["Feedback-ID"])
    url = fields["List-Unsubscribe"].strip("<>")
    assert url.startswith("https://mail.acme.example/u/")
    assert "ann" not in url.lower().removeprefix("https://mail.acme.example")

    shown = await world.public.call("GET", path_of(url))
    assert (shown.status_code, shown.headers["referrer-policy"]) == (200, "no-referrer")
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert '<form method="post">' in shown.text
    assert (await app.get("/v1/suppressions"))["data"] == []

    for kind, body in (
        ("application/x-www-form-urlencoded", b"List-Unsubscribe=One-Click"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n',
        ),
    ):
        done = await world.public.call("POST", path_of(url), body, headers={"content-type": kind})
        assert done.status_code == 200
        assert "set-cookie" not in done.headers
    [entry] = (await app.get("/v1/suppressions"))["data"]
    assert (entry["email"], entry["scope"], entry["reason"]) == ("ann@c.example", "marketing", "unsubscribe")
    [message] = (await app.get("/v1/messages"))["data"]
    [delivery] = (await app.get(f"/v1/messages/{message['id']}"))["deliveries"]
    assert entry["evidence"] == f"delivery {delivery['id']}"
    refused = await world.public.call("POST", path_of(url)[:-2] + "xx")
    assert refused.status_code == 404


async def test_links_lead_where_they_led_and_a_changed_one_nowhere(world: World, pool: asyncpg.Pool) -> None:
    _, _, html = await sent(world, pool)
    urls = re.findall(r"""href=["']([^"']+)""", html)
    assert [urlsplit(url).netloc for url in urls] == ["t.acme.example"] * 3 + ["", "mail.acme.example"]
    answers = [await world.public.call("GET", path_of(url)) for url in urls[:3]]
    assert [(a.status_code, a.headers["location"]) for a in answers] == [
        (302, "https://shop.example/a?x=1&y=2"), (302, "https://shop.example/u/Ann"), (302, "https://shop.example/vip"),
    ]  # fmt: skip
    changed = path_of(urls[1])
    middle = len(changed) // 2
    other = "A" if changed[middle] != "A" else "B"
    answer = await world.public.call("GET", changed[:middle] + other + changed[middle + 1 :])
    assert (answer.status_code, "location" in answer.headers) == (404, False)
    [pixel] = re.findall(r'src="https://t.acme.example(/o/[^"]+)"', html)
    picture = await world.public.call("GET", pixel)
    assert (picture.status_code, picture.headers["content-type"], picture.content[:6]) == (
        200,
        "image/gif",
        b"GIF89a",
    )
    assert (await world.public.call("GET", "/o/words.gif")).status_code == 404


async def test_a_link_of_the_text_leads_where_it_led(world: World, pool: asyncpg.Pool) -> None:
    _, _, text = await sent(
        world, pool, html="", text="{{ name }}: https://shop.example/text, https://shop.example/t/{{ name }}"
    )
    found = re.fullmatch(r"Ann: (\S+), (\S+)\s*", text)
    assert found is not None
    asked = [path_of(url) + end for url in found.groups() for end in ("", "?t")]
    answers = [await world.public.call("GET", path) for path in asked]
    assert [(a.status_code, a.headers["location"]) for a in answers[::2]] == [
        (302, "https://shop.example/text"), (302, "https://shop.example/t/Ann"),
    ]  # fmt: skip
    assert [a.headers["location"] for a in answers[1::2]] == [a.headers["location"] for a in answers[::2]]


async def test_what_came_from_a_site_that_was_deleted_is_answered_and_writes_nothing(
    world: World, pool: asyncpg.Pool
) -> None:
    """A foreign key would make it a 500, a row without a site something that nobody could ever see or remove."""
    _, fields, html = await sent(world, pool)
    unsubscribe = path_of(fields["List-Unsubscribe"].strip("<>"))
    link, *_ = re.findall(r"""href=["']([^"']+)""", html)
    [pixel] = re.findall(r'src="https://t.acme.example(/o/[^"]+)"', html)
    await pool.execute("DELETE FROM site")

    page = await world.public.call("GET", unsubscribe)
    assert (page.status_code, '<form method="post">' in page.text) == (200, True)
    for _ in range(2):
        done = await world.public.call(
            "POST",
            unsubscribe,
            b"List-Unsubscribe=One-Click",
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        assert (done.status_code, "You are unsubscribed" in done.text) == (200, True)
    assert await pool.fetchval("SELECT count(*) FROM suppression") == 0

    followed = await world.public.call("GET", path_of(link))
    assert (followed.status_code, followed.headers["location"]) == (302, "https://shop.example/a?x=1&y=2")
    assert (await world.public.call("GET", pixel)).status_code == 200
    await pool.execute("DELETE FROM message")
    assert (await world.public.call("GET", path_of(link))).status_code == 404
    assert (await world.public.call("GET", pixel)).status_code == 200


async def test_transactional_mail_is_not_tracked_and_has_no_unsubscribe_link(
    world: World, pool: asyncpg.Pool
) -> None:
    _, fields, html = await sent(world, pool, stream="transactional")
    assert "List-Unsubscribe" not in fields
    assert "t.acme.example" not in html
