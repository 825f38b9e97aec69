"""The SMTP door on real sockets: what ordinary clients do, what is refused and how, and that nobody can hold it up."""

from __future__ import annotations

import asyncio
import base64
import smtplib
import ssl
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import asyncpg
import pytest

from gateway.mta.raw import unpack_raw
from gateway.store import sites
from gateway.store.tenancy import OPERATOR, as_site
from gateway.submission import conversation, hooks, lobby
from tests.support.api import Client
from tests.support.smtp_peer import Peer, plain
from tests.support.submission import Door, submission

LETTER = (
    b"From: Ann <ann@acme.example>\r\nTo: bob@b.example\r\nBcc: secret@s.example\r\nSubject: hello\r\n"
    b"Message-ID: <1@acme.example>\r\n\r\n..dot\r\nHi.\r\n"
)


@pytest.fixture
async def door(db: str, tmp_path: Path) -> AsyncIterator[Door]:
    async with submission(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def site(door: Door) -> Client:
    return await door.world.site(domain="acme.example")


def key_of(client: Client) -> str:
    assert client.key is not None
    return client.key


def letter() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Größe <ann@acme.example>"
    message["To"] = "bob@b.example, eve@e.example"
    message["Subject"] = "Grüße"
    message.set_content("Hällo.\n.\n..\n")
    message.add_alternative("<p>Hällo.</p>", subtype="html")
    return message


async def kept(pool: asyncpg.Pool) -> bytes:
    return unpack_raw(await pool.fetchval("SELECT attachments FROM message ORDER BY id DESC LIMIT 1"))


def taken(reply: str) -> str:
    assert reply.startswith("250 2.0.0 queued as msg_"), reply
    return reply.removeprefix("250 2.0.0 queued as ").split(" ")[0]


async def test_smtplib_submits_over_starttls(door: Door, site: Client, pool: asyncpg.Pool) -> None:
    def send() -> None:
        with smtplib.SMTP("127.0.0.1", door.section.port, timeout=5) as smtp:
            smtp.starttls()
            smtp.login("apikey", key_of(site))
            assert smtp.send_message(letter()) == {}

    await asyncio.to_thread(send)
    [summary] = (await site.get("/v1/messages"))["data"]
    assert (summary["from"], summary["subject"], summary["template"]) == (
        "Größe <ann@acme.example>",
        "Grüße",
        "raw",
    )
    shown = await site.get(f"/v1/messages/{summary['id']}")
    assert {d["to"]: d["state"] for d in shown["deliveries"]} == {
        "bob@b.example": "queued",
        "eve@e.example": "queued",
    }
    assert b"H\xc3\xa4llo.\r\n.\r\n..\r\n" in await kept(pool)


async def test_aiosmtplib_submits_over_implicit_tls(door: Door, site: Client) -> None:
    errors, reply = await aiosmtplib.send(
        letter(), hostname="127.0.0.1", port=door.section.tls_port, use_tls=True, validate_certs=False,
        username="x", password=key_of(site), timeout=5,
    )  # fmt: skip
    assert not errors
    assert reply.startswith("2.0.0 queued as msg_")


async def test_auth_login_works_and_many_messages_share_a_connection(door: Door, site: Client) -> None:
    peer = await door.peer()
    await peer.starts_tls()
    await peer.says("EHLO app.example")
    assert (await peer.says("AUTH LOGIN")).startswith("334")
    assert (await peer.says(base64.b64encode(b"anything").decode())).startswith("334")
    assert (await peer.says(base64.b64encode(key_of(site).encode()).decode())).startswith("235")
    ids = [taken(await peer.sends(LETTER.replace(b"<1@", b"<%d@" % n), "bob@b.example")) for n in range(150)]
    assert len(set(ids)) == 150


async def test_a_key_is_taken_over_tls_alone(door: Door, site: Client) -> None:
    peer = await Peer.connect(door.section.port)
    offered = await peer.says("EHLO app.example")
    assert "STARTTLS" in offered
    assert "AUTH" not in offered
    assert (await peer.signs_in(key_of(site))).startswith("538 5.7.11")
    await peer.starts_tls()
    offered = await peer.says("EHLO app.example")
    assert "AUTH PLAIN LOGIN" in offered
    assert "STARTTLS" not in offered
    assert (await peer.says("STARTTLS")).startswith("503 5.5.1")
    assert (await peer.says("MAIL FROM:<a@acme.example>")).startswith("530 5.7.0")


async def test_without_tls_where_the_config_allows_it(db: str, tmp_path: Path) -> None:
    async with submission(db, tmp_path, tls=False) as door:
        site = await door.world.site(domain="acme.example")
        peer = await Peer.connect(door.section.port)
        offered = await peer.says("EHLO app.example")
        assert "AUTH PLAIN LOGIN" in offered
        assert "STARTTLS" not in offered
        await peer.signs_in(key_of(site))
        taken(await peer.sends(LETTER, "bob@b.example"))


async def test_what_was_said_before_tls_is_forgotten(door: Door, site: Client) -> None:
    peer = await door.peer()
    assert (await peer.says(b"STARTTLS\r\nNOOP\r\nMAIL FROM:<injected@acme.example>\r\n")).startswith("220")
    await peer.shakes_hands()
    assert (await peer.says("MAIL FROM:<a@acme.example>")).startswith("503"), "EHLO is asked for anew"
    assert (await peer.says("EHLO app.example")).startswith("250-")
    assert (await peer.signs_in(key_of(site))).startswith("235")


async def test_wrong_keys_are_refused_and_told_nothing(door: Door, site: Client) -> None:
    async with as_site(door.world.services.pool, OPERATOR) as connection:
        _, operator = await sites.issue_key(connection, None, "operator", ["admin"])
        _, reader = await sites.issue_key(connection, site.site_id, "reader", ["read"])
    peer = await door.peer()
    await peer.starts_tls()
    await peer.says("EHLO app.example")
    assert await peer.signs_in(key_of(site)[:-1] + "x") == "535 5.7.8 authentication credentials invalid"
    assert await peer.signs_in("x" * 300) == "535 5.7.8 authentication credentials invalid"
    assert (await peer.signs_in(operator)).startswith("535 5.7.8 this needs a key of a site")
    assert (await peer.signs_in(reader)).startswith("535 5.7.8 this needs a key with the scope send")
    assert (await peer.says("AUTH PLAIN =nonsense=")).startswith("501")
    assert (await peer.signs_in(key_of(site))).startswith("421 4.7.0"), "a few tries for one connection"


async def test_too_many_wrong_keys_have_to_wait(door: Door) -> None:
    for _ in range(2):
        peer = await door.peer()
        await peer.starts_tls()
        await peer.says("EHLO app.example")
        for _ in range(5):
            assert (await peer.signs_in("gw_wrong")).startswith("535")
    peer = await door.peer()
    await peer.starts_tls()
    await peer.says("EHLO app.example")
    assert (await peer.signs_in("gw_wrong")).startswith("454 4.7.0 too many wrong keys")


async def test_a_revoked_key_sends_nothing_more(door: Door, site: Client) -> None:
    peer = await door.peer(key_of(site))
    taken(await peer.sends(LETTER, "bob@b.example"))
    async with as_site(door.world.services.pool, OPERATOR) as connection:
        [key] = await sites.list_keys(connection, site.site_id, 0, 10)
        await sites.revoke_key(connection, key.id)
    door.world.services.auth.forget()
    assert (await peer.says("MAIL FROM:<a@acme.example>")).startswith("530 5.7.0")


async def test_another_sites_domain_is_not_to_be_had(door: Door, site: Client, pool: asyncpg.Pool) -> None:
    other = await door.world.site("Other", domain="other.example")
    for app, domain in ((other, "acme.example"), (site, "other.example"), (site, "nobody.example")):
        peer = await door.peer(key_of(app))
        reply = await peer.sends(LETTER.replace(b"acme.example", domain.encode()), "bob@b.example")
        assert reply.startswith(f"550 5.7.1 {domain} is no verified domain of this site")
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_the_same_message_again_is_taken_once(door: Door, site: Client, pool: asyncpg.Pool) -> None:
    peer = await door.peer(key_of(site))
    first = taken(await peer.sends(LETTER, "bob@b.example", "eve@e.example"))
    assert taken(await peer.sends(b"Received: by a\r\n" + LETTER, "eve@e.example", "bob@b.example")) == first
    reply = await peer.sends(LETTER.replace(b"Hi.", b"Ho."), "bob@b.example", "eve@e.example")
    assert reply.startswith("550 5.6.0 this Message-ID was used before")
    assert taken(await peer.sends(LETTER, "third@t.example")) != first, "the rest of a list that was split"
    other = await door.world.site("Other", domain="other.example")
    theirs = LETTER.replace(b"ann@acme.example", b"ann@other.example")
    assert (
        taken(await (await door.peer(key_of(other))).sends(theirs, "bob@b.example", "eve@e.example")) != first
    )
    assert await pool.fetchval("SELECT sum(deliveries) FROM acceptance") == 5


async def test_many_at_once_with_one_message_id_are_one(door: Door, site: Client, pool: asyncpg.Pool) -> None:
    peers = [await door.peer(key_of(site)) for _ in range(8)]
    replies = await asyncio.gather(*(peer.sends(LETTER, "bob@b.example") for peer in peers))
    assert len({taken(reply) for reply in replies}) == 1
    assert await pool.fetchval("SELECT count(*) FROM queue") == 1


async def test_suppressed_recipients_are_accepted_and_not_sent_to(door: Door, site: Client) -> None:
    await site.post("/v1/suppressions", {"email": "bob@b.example"})
    peer = await door.peer(key_of(site))
    reply = await peer.sends(LETTER, "bob@b.example", "eve@e.example")
    assert reply.endswith("(1 of 2 suppressed)")
    shown = await site.get(f"/v1/messages/{taken(reply)}")
    assert {d["to"]: d["state"] for d in shown["deliveries"]} == {
        "bob@b.example": "suppressed",
        "eve@e.example": "queued",
    }


async def test_what_is_kept_is_what_came_without_what_is_nobodys(
    door: Door, site: Client, pool: asyncpg.Pool
) -> None:
    peer = await door.peer(key_of(site))
    await peer.sends(
        b"X-Gateway-Stream: marketing\r\n" + LETTER, "bob@b.example", "BOB@b.example", "bob@b.example"
    )
    assert await kept(pool) == LETTER.replace(b"Bcc: secret@s.example\r\n", b"").replace(b"..dot", b".dot")
    assert await pool.fetchval("SELECT stream::text FROM message") == "marketing"
    assert await pool.fetchval("SELECT count(*) FROM queue") == 2, (
        "the local part's case may matter, the same again not"
    )


async def test_commands_may_be_sent_together(door: Door, site: Client) -> None:
    peer = await door.peer(key_of(site))
    assert (await peer.says(b"MAIL FROM:<>\r\nRCPT TO:<bob@b.example>\r\nDATA\r\n")).startswith("250")
    assert [(await peer.hears())[:3] for _ in range(2)] == ["250", "354"]
    taken(await peer.says(LETTER + b".\r\nMAIL FROM:<a@b.example> SIZE=10 BODY=8BITMIME\r\nRSET\r\nQUIT\r\n"))
    assert [(await peer.hears())[:3] for _ in range(3)] == ["250", "250", "221"]


async def test_content_before_the_354_ends_the_connection(door: Door, site: Client) -> None:
    peer = await door.peer(key_of(site))
    await peer.says(b"MAIL FROM:<>\r\nRCPT TO:<bob@b.example>\r\nDATA\r\n" + LETTER + b".\r\n")
    await peer.hears()
    assert (await peer.hears()).startswith("503 5.5.0")
    assert await peer.reader.read() == b""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"From: a@acme.example\r\n\r\na\n.\nMAIL FROM:<x@y.example>\r\n", "550 5.6.0 a bare CR or LF"),
        (b"From: a@acme.example\r\n\r\na\r\n.\rRCPT TO:<x@y.example>\r\n", "550 5.6.0 a bare CR or LF"),
        (b"From: a@acme.example\r\n\r\na\0b\r\n", "550 5.6.0 a NUL"),
        (
            b"From: a@acme.example\r\n\r\n" + b"x" * 5_000 + b"\r\n",
            "550 5.6.0 line 3 has more than 998 octets",
        ),
        (b"Subject: no sender\r\n\r\nHi.\r\n", "550 5.6.0 no From field"),
        (b"", "550 5.6.0"),
        (b"From: a@acme.example\r\n\r\n" + b"x\r\n" * 30_000, "552 5.3.4 larger than 65536 octets"),
    ],
)
async def test_a_message_that_cannot_be_taken_is_refused_and_the_next_one_is_taken(
    db: str, pool: asyncpg.Pool, tmp_path: Path, content: bytes, says: str
) -> None:
    async with submission(db, tmp_path, message_limit_bytes=65_536) as door:
        peer = await door.peer(key_of(await door.world.site(domain="acme.example")))
        assert (await peer.sends(content, "bob@b.example")).startswith(says)
        taken(await peer.sends(LETTER, "bob@b.example"))
        assert await pool.fetchval("SELECT count(*) FROM message") == 1
        assert door.lobby.held_bytes == 0


async def test_recipients_are_checked_one_by_one(
    door: Door, site: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "RECIPIENTS_LIMIT", 2)
    peer = await door.peer(key_of(site))
    await peer.says("MAIL FROM:<a@acme.example>")
    assert (await peer.says("RCPT TO:<bob>")).startswith("553 5.1.3 no @")
    assert (await peer.says("RCPT TO:<bob@[127.0.0.1]>")).startswith("553 5.1.3 address literals")
    assert (await peer.says("RCPT TO:bob@b.example")).startswith("553 5.1.3")
    assert (await peer.says("DATA")).startswith("503 5.5.1")
    for name in ("a", "b", "a"):
        assert (await peer.says(f"RCPT TO:<{name}@b.example>")).startswith("250")
    assert (await peer.says("RCPT TO:<c@b.example>")).startswith("452 4.5.3")
    await peer.says("DATA")
    taken(await peer.says(LETTER + b".\r\n"))
    assert (await peer.says("VRFY <bob@b.example>")).startswith("252")


async def test_a_message_too_large_by_its_own_word_is_refused_at_once(door: Door, site: Client) -> None:
    peer = await door.peer(key_of(site))
    assert (await peer.says("MAIL FROM:<a@acme.example> SIZE=99999999")).startswith("552")


async def test_a_message_without_end_ends_the_connection(db: str, tmp_path: Path) -> None:
    async with submission(db, tmp_path, message_limit_bytes=65_536) as door:
        peer = await door.peer(key_of(await door.world.site(domain="acme.example")))
        await peer.says("MAIL FROM:<>")
        await peer.says("RCPT TO:<bob@b.example>")
        await peer.says("DATA")

        async def endless() -> None:
            for _ in range(1_000):
                peer.writer.write(b"x" * 65_536)
                await peer.writer.drain()

        with pytest.raises((ConnectionError, ssl.SSLError)):
            await endless()
        assert door.lobby.held_bytes == 0


async def test_what_all_hold_together_is_bounded(door: Door, site: Client) -> None:
    slow, quick = [await door.peer(key_of(site)) for _ in range(2)]
    for peer in (slow, quick):
        await peer.says("MAIL FROM:<>")
        await peer.says("RCPT TO:<bob@b.example>")
        await peer.says("DATA")
    slow.writer.write(LETTER + b"x\r\n" * 20_000)
    async with asyncio.timeout(5):
        while door.lobby.held_bytes < 60_000:
            await asyncio.sleep(0)
    door.lobby.most_held_bytes = 50_000
    assert (await quick.says(LETTER + b".\r\n")).startswith("452 4.3.1")
    assert (await quick.says("MAIL FROM:<>")).startswith("452 4.3.1")
    slow.writer.transport.abort()
    async with asyncio.timeout(5):
        while door.lobby.held_bytes:
            await asyncio.sleep(0)
    taken(await quick.sends(LETTER, "bob@b.example"))


async def test_an_endless_command_ends_the_connection(door: Door) -> None:
    peer = await door.peer()
    peer.writer.write(b"x" * 100_000)
    assert (await peer.hears()).startswith("500 5.5.2")


async def test_idle_connections_are_bounded(door: Door, site: Client) -> None:
    idle = [await Peer.connect(door.section.port) for _ in range(lobby.MOST_CONNECTIONS_PER_PEER - 1)]
    last = await door.peer(key_of(site))
    late = Peer(*await asyncio.open_connection("127.0.0.1", door.section.port))
    assert (await late.hears()).startswith("421 4.7.0")
    taken(await last.sends(LETTER, "bob@b.example"))
    for peer in idle:
        peer.writer.close()


async def test_handshakes_that_do_not_end_are_bounded(door: Door, site: Client) -> None:
    open_ = [
        await asyncio.open_connection("127.0.0.1", door.section.tls_port)
        for _ in range(lobby.MOST_HANDSHAKES_PER_PEER + 1)
    ]
    async with asyncio.timeout(5):
        assert await open_[-1][0].read() == b"", "hung up"
    open_[0][1].transport.abort()
    await aiosmtplib.send(
        letter(), hostname="127.0.0.1", port=door.section.tls_port, use_tls=True, validate_certs=False,
        username="x", password=key_of(site), timeout=5,
    )  # fmt: skip
    for _, writer in open_:
        writer.transport.abort()
    async with asyncio.timeout(5):
        while door.lobby.threshold._by_peer:
            await asyncio.sleep(0)


async def test_whoever_shows_no_key_has_to_go(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "SIGN_IN_S", 0.05)
    peer = await Peer.connect(door.section.port)
    assert (await peer.hears()).startswith("421 4.4.2")


async def test_a_handshake_that_fails_leaves_nothing_behind(door: Door) -> None:
    peer = await Peer.connect(door.section.port)
    await peer.says("EHLO app.example")
    assert (await peer.says("STARTTLS")).startswith("220")
    peer.writer.write(b"this is no TLS\r\n" * 10)
    await peer.reader.read()
    async with asyncio.timeout(5):
        while door.lobby.doorkeeper._by_peer:
            await asyncio.sleep(0)


async def test_says_goodbye_at_the_end(db: str, tmp_path: Path) -> None:
    async with submission(db, tmp_path, tls=False) as door:
        peer = await Peer.connect(door.section.port)
    assert (await peer.hears()).startswith("421 4.3.2")


def test_the_initial_response_of_plain_is_what_the_rfc_says() -> None:
    assert base64.b64decode(plain("key", "user")) == b"\0user\0key"
