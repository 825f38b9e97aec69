"""Nothing that an app hands in becomes a header or a command of its own: CR, LF and NUL are refused in every field, in every disguise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.api import Client, import_list, open_world

PLAIN = (
    "a\r\nBcc: x@y.example",
    "a\nBcc: x@y.example",
    "a\rBcc: x",
    "a\n.\r\nMAIL FROM:<x@y.example>",
    "a\0b",
    "a\r\n b",
    "\n",
    "a\r",
)
WORDS = (
    "=?utf-8?q?=0D=0ABcc:_x@y.example?=",
    "=?UTF-8?Q?a=0aBcc: x?=",  # with a space, as many readers take it
    "=?utf-8?q?a?b=0D=0ABcc:_x?=",
    "=?utf-8?q?=00?=",
    "=?utf-8?b?DQpCY2M6IHg=?=",
    "=?utf-8?B?DQo?=",  # without padding
    "=?utf-8?b? DQ pC Y2M6IHg= ?=",
    "=?utf-8?b?YQ==DQo=?=",
    "=?utf-8*en?q?=0D=0A?=",
    "=?utf-7?q?+AA0ACg-?=",
    "=?utf-16?b?DQAKAA==?=",
    "=?cp037?q?=25?=",
    "=?x?q?=?utf-8?q?=0D=0A?=",
    "=?utf-8?q?=3D=3Futf-8=3Fq=3F=3D0D=3D0ABcc=3F=3D?=",  # for a reader that decodes twice
    "=?utf-8?b?PT91dGYtOD9xPz0wRD0wQT89?=",
)  # fmt: skip
QUOTED_LOCALS = (
    '"a\r\nb"@acme.example', '"a\\\r\nb"@acme.example', '"a\\\nb"@acme.example', '"a\0b"@acme.example', "a\r\n@acme.example",
    "a@acme.example\r\n", "a@acme.example\r\nRCPT TO:<x@y.example>", "a@acme.exa\nmple", "a>\r\nRCPT TO:<x@y.example", "\na@acme.example",
    "a@acme.example\0", "=?utf-8?q?=0D=0A?=@acme.example", "a@[127.0.0.1\r\n]", "a\u2028b@acme.example", "a@acme.example\u2029",
)  # fmt: skip


@pytest.fixture
async def app(db: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with open_world(db, tmp_path) as world:
        yield await world.site(domain="acme.example")


def mail(**changes: Any) -> dict[str, Any]:
    whole = {"from": "Acme <a@acme.example>", "to": "b@c.example", "subject": "s", "text": "t"} | changes
    return {key: value for key, value in whole.items() if value is not None}


def file(**changes: Any) -> dict[str, Any]:
    whole = {"filename": "a.pdf", "content_type": "image/png", "content": "AAEC", "content_id": "i@a"}
    return mail(html="<p>", attachments=[whole | changes])


TEXTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/subject": lambda evil: mail(subject=evil),
    "/from": lambda evil: mail(**{"from": f"{evil} <a@acme.example>"}),
    "/from/name": lambda evil: mail(**{"from": {"email": "a@acme.example", "name": evil}}),
    "/reply_to": lambda evil: mail(reply_to=f"{evil} <a@acme.example>"),
    "/reply_to/name": lambda evil: mail(reply_to={"email": "a@acme.example", "name": evil}),
    "/headers/X-A": lambda evil: mail(headers={"X-A": evil}),
    "/attachments/0/filename": lambda evil: file(filename=evil),
    "/attachments/0/content_type": lambda evil: file(content_type=evil),
    "/attachments/0/content_id": lambda evil: file(content_id=evil),
}
ADDRESSES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/to": lambda evil: mail(to=evil),
    "/to/1": lambda evil: mail(to=["b@c.example", evil]),
    "/to/email": lambda evil: mail(to={"email": evil}),
    "/from": lambda evil: mail(**{"from": evil}),
    "/from/email": lambda evil: mail(**{"from": {"email": evil}}),
    "/reply_to": lambda evil: mail(reply_to=f"Me <{evil}>"),
    "/reply_to/email": lambda evil: mail(reply_to={"email": evil}),
}


async def refused(app: Client, path: str, body: Any, pointer: str, what: str) -> None:
    response = await app.call("POST", path, body)
    assert response.status_code == 422, f"{what!r}: {response.status_code} {response.text}"
    shown = response.json()["errors"][0]["pointer"]
    assert shown == pointer, f"{what!r}: {shown}"
    assert "Bcc" not in response.text, "what is refused is not repeated"


@pytest.mark.parametrize("pointer", TEXTS)
async def test_no_line_end_or_nul_in_what_becomes_a_header(
    app: Client, pool: asyncpg.Pool, pointer: str
) -> None:
    for evil in PLAIN + WORDS:
        await refused(app, "/v1/messages", TEXTS[pointer](evil), pointer, evil)
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


@pytest.mark.parametrize("pointer", ADDRESSES)
async def test_no_line_end_or_nul_in_an_address_not_even_in_a_quoted_local_part(
    app: Client, pool: asyncpg.Pool, pointer: str
) -> None:
    for evil in QUOTED_LOCALS:
        await refused(app, "/v1/messages", ADDRESSES[pointer](evil), pointer, evil)
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


@pytest.mark.parametrize("name", ["X\r\nBcc", "X\n", "X\0", "X:", "X Y", "X-Ä", "", "=?utf-8?q?=0D=0A?="])
async def test_no_header_name_but_letters_digits_and_hyphens(app: Client, name: str) -> None:
    response = await app.call("POST", "/v1/messages", mail(headers={name: "a"}))
    assert response.status_code == 422


async def test_templates_refuse_them_in_their_subject(app: Client, pool: asyncpg.Pool) -> None:
    made = await app.post("/v1/templates", {"name": "t", "subject": "s", "text": "t"})
    for evil in PLAIN + WORDS:
        body = {"name": "t", "subject": evil, "text": "t"}
        await refused(app, "/v1/templates", body, "/subject", evil)
        assert (await app.call("PUT", f"/v1/templates/{made['id']}", body)).status_code == 422
    for field in ("name", "html", "text"):
        body = {"name": "t", "subject": "s", "text": "t"} | {field: "a\0b"}
        await refused(app, "/v1/templates", body, f"/{field}", "NUL")
    assert await pool.fetchval("SELECT count(*) FROM template") == 1


async def test_broadcasts_refuse_them_in_their_addresses(app: Client, pool: asyncpg.Pool) -> None:
    record = await import_list(app)
    template = await app.post("/v1/templates", {"name": "t", "subject": "s", "text": "t"})

    def draft(**changes: Any) -> dict[str, Any]:
        whole = {"name": "n", "list": record["list"], "template": template["id"], "from": "a@acme.example"}
        return whole | changes

    for evil in PLAIN + WORDS:
        await refused(app, "/v1/broadcasts", draft(**{"from": f"{evil} <a@acme.example>"}), "/from", evil)
        name = {"email": "a@acme.example", "name": evil}
        await refused(app, "/v1/broadcasts", draft(**{"from": name}), "/from/name", evil)
        await refused(app, "/v1/broadcasts", draft(reply_to=name), "/reply_to/name", evil)
    for evil in QUOTED_LOCALS:
        await refused(app, "/v1/broadcasts", draft(**{"from": evil}), "/from", evil)
        await refused(app, "/v1/broadcasts", draft(reply_to={"email": evil}), "/reply_to/email", evil)
    assert await pool.fetchval("SELECT count(*) FROM broadcast") == 0


async def test_domains_are_names_and_nothing_else(app: Client, pool: asyncpg.Pool) -> None:
    names = ("b.example\r\n", "b.exa\nmple", "b.example\0", "x@b.example", "b.example b.example", "b.example;x", '"@b.example',
             "[127.0.0.1]", "b.example.", "=?utf-8?q?=0D?=.example", "b\u2028.example", "*.b.example", "_dmarc.b.example")  # fmt: skip
    for name in names:
        await refused(app, "/v1/domains", {"name": name}, "/name", name)
    assert await pool.fetchval("SELECT count(*) FROM domain") == 1


@pytest.mark.parametrize(
    "address",
    ['"a b"@c.example', '"a<b>"@c.example', '"a@b"@c.example', '"a\\"b"@c.example', "a=?b@c.example"],
)
async def test_what_is_odd_and_right_is_taken_whole(app: Client, address: str) -> None:
    sent = await app.post("/v1/messages", mail(to=address))
    assert [delivery["to"] for delivery in sent["deliveries"]] == [address]


async def test_what_looks_like_an_encoded_word_and_is_harmless_is_taken(app: Client) -> None:
    for subject in (
        "=?utf-8?b?R3LDvMOfZQ==?= for you",
        "=?iso-8859-1?q?Gr=FC=DFe?=",
        "2+2=?",
        "really?=?yes",
        "a=0D",
    ):
        await app.post("/v1/messages", mail(subject=subject))


async def test_large_values_are_refused_and_not_looked_at_for_long(app: Client) -> None:
    large = "ü" * 1_000_000
    for pointer, body in (
        ("/to", mail(to=large)), ("/to", mail(to=f"a@{large}.example")), ("/from", mail(**{"from": f"{large} <a@acme.example>"})),
        ("/headers", mail(headers={"X-A": large})), ("/subject", mail(subject=large)),
    ):  # fmt: skip
        await refused(app, "/v1/messages", body, pointer, "large")
