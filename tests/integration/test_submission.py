"""The SMTP door on real sockets: what ordinary clients do, what is taken, and what is refused and how."""

from __future__ import annotations

import asyncio
import base64
import smtplib
from collections.abc import AsyncIterator
from pathlib import Path

import aiosmtplib
import asyncpg
import msgspec
import pytest

from gateway.config import Config, DatabaseConfig, ExpiryConfig
from gateway.mta.raw import unpack_raw
from gateway.store import sites
from gateway.store.tenancy import OPERATOR, as_site
from gateway.submission import hooks
from gateway.submission.door import serve_submission
from gateway.throttle.retune import Retune
from gateway.throttle.shaping import Shaping
from tests.support.api import Client, open_world
from tests.support.smtp_peer import Peer, plain
from tests.support.submission import LETTER, Door, key_of, letter, settings, submission, taken


@pytest.fixture
async def door(db: str, tmp_path: Path) -> AsyncIterator[Door]:
    async with submission(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def site(door: Door) -> Client:
    return await door.world.site(domain="acme.example")


async def kept(pool: asyncpg.Pool) -> bytes:
    return unpack_raw(await pool.fetchval("SELECT attachments FROM message ORDER BY id DESC LIMIT 1"))


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
    other_end = "y" if key_of(site).endswith("x") else "x"
    assert (
        await peer.signs_in(key_of(site)[:-1] + other_end) == "535 5.7.8 authentication credentials invalid"
    )
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


async def test_a_key_that_is_revoked_while_its_message_comes_sends_nothing(
    door: Door, site: Client, pool: asyncpg.Pool
) -> None:
    peer = await door.peer(key_of(site))
    await peer.says("MAIL FROM:<a@acme.example>")
    await peer.says("RCPT TO:<bob@b.example>")
    assert (await peer.says("DATA")).startswith("354")
    async with as_site(door.world.services.pool, OPERATOR) as connection:
        [key] = await sites.list_keys(connection, site.site_id, 0, 10)
        await sites.revoke_key(connection, key.id)
    door.world.services.auth.forget()
    assert (await peer.says(LETTER + b".\r\n")).startswith("530 5.7.0")
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_a_sender_field_on_another_domain_is_refused(
    door: Door, site: Client, pool: asyncpg.Pool
) -> None:
    peer = await door.peer(key_of(site))
    reply = await peer.sends(b"Sender: desk@other.example\r\n" + LETTER, "bob@b.example")
    assert reply.startswith("550 5.7.1 other.example is no verified domain of this site")
    assert await pool.fetchval("SELECT count(*) FROM message") == 0
    taken(await peer.sends(b"Sender: Desk <desk@acme.example>\r\n" + LETTER, "bob@b.example"))


async def test_a_key_of_no_known_form_is_wrong_and_nothing_worse(door: Door) -> None:
    peer = await door.peer()
    await peer.starts_tls()
    await peer.says("EHLO app.example")
    for prefix in (b"abcdefgh\0jkm", b"abcdefgh\x7fjkm"):
        assert (await peer.says("AUTH LOGIN")).startswith("334")
        assert (await peer.says(base64.b64encode(b"anything").decode())).startswith("334")
        said = await peer.says(base64.b64encode(b"gw_" + prefix + b"_" + b"a" * 32).decode())
        assert said == "535 5.7.8 authentication credentials invalid"


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


async def test_a_changed_expiry_holds_for_messages_to_come(
    db: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    section = settings(tmp_path, tls=False)
    config = Config(database=DatabaseConfig(dsn=db, data_dir=str(tmp_path)), submission=section)
    stop, followers = asyncio.Event(), list[Retune]()
    async with open_world(db, tmp_path) as world:
        site = await world.site(domain="acme.example")
        serving = asyncio.create_task(
            serve_submission(config, db, shaping=Shaping(), stop=stop, follow=followers.append)
        )
        async with asyncio.timeout(10):
            while not followers:
                await asyncio.sleep(0)
        peer = await Peer.connect(section.port)
        await peer.says("EHLO app.example")
        await peer.signs_in(key_of(site))
        for expiry, recipient in (
            (config.expiry, "before@b.example"),
            (ExpiryConfig(transactional_s=600.0), "after@b.example"),
        ):
            followers[0](msgspec.structs.replace(config, expiry=expiry), Shaping())
            taken(await peer.sends(LETTER, recipient))
        stop.set()
        await serving
    lasts = dict(
        await pool.fetch("SELECT recipient, extract(epoch FROM expires_at - accepted_at)::float FROM queue")
    )
    assert lasts["after@b.example"] == pytest.approx(600, abs=5)
    assert lasts["before@b.example"] == pytest.approx(172_800, abs=5)


async def test_says_goodbye_at_the_end(db: str, tmp_path: Path) -> None:
    async with submission(db, tmp_path, tls=False) as door:
        peer = await Peer.connect(door.section.port)
    assert (await peer.hears()).startswith("421 4.3.2")


def test_the_initial_response_of_plain_is_what_the_rfc_says() -> None:
    assert base64.b64decode(plain("key", "user")) == b"\0user\0key"
