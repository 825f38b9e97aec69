"""The SMTP door's bounds on real sockets: what nobody can hold up, however slow, loud or many they are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiosmtplib
import pytest
from structlog.testing import capture_logs

from gateway.submission import conversation, lobby
from gateway.submission import door as doors
from gateway.submission.conversation import Conversation
from tests.support.api import Client
from tests.support.smtp_peer import Peer
from tests.support.submission import LETTER, Door, key_of, letter, submission, taken


@pytest.fixture
async def door(db: str, tmp_path: Path) -> AsyncIterator[Door]:
    async with submission(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def site(door: Door) -> Client:
    return await door.world.site(domain="acme.example")


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
    peer.writer.write(b"x" * 10_000)
    assert (await peer.hears()).startswith("500 5.5.2")


async def test_connections_without_a_key_have_a_share_of_their_own(door: Door, site: Client) -> None:
    idle = [await Peer.connect(door.section.port) for _ in range(lobby.MOST_STRANGERS_PER_PEER - 1)]
    first, second = [await door.peer(key_of(site)) for _ in range(2)]
    idle.append(await Peer.connect(door.section.port))
    late = Peer(*await asyncio.open_connection("127.0.0.1", door.section.port))
    assert (await late.hears()).startswith("421 4.7.0")
    for peer in (first, second):
        taken(await peer.sends(LETTER, "bob@b.example"))
    idle[0].writer.close()
    await idle[0].writer.wait_closed()
    async with asyncio.timeout(5):
        while not (
            await Peer(*await asyncio.open_connection("127.0.0.1", door.section.port)).hears()
        ).startswith("220"):
            pass
    for peer in idle:
        peer.writer.close()


async def test_connections_of_one_address_are_bounded_with_a_key_too(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobby, "MOST_CONNECTIONS_PER_PEER", 3)
    async with submission(db, tmp_path) as door:
        site = await door.world.site(domain="acme.example")
        peers = [await door.peer(key_of(site)) for _ in range(3)]
        late = Peer(*await asyncio.open_connection("127.0.0.1", door.section.port))
        assert (await late.hears()).startswith("421 4.7.0")
        taken(await peers[-1].sends(LETTER, "bob@b.example"))
        for peer in peers:
            peer.writer.transport.abort()
        async with asyncio.timeout(5):
            while door.lobby.doorkeeper._by_peer:
                await asyncio.sleep(0)
        assert not door.lobby.strangers._by_peer


async def test_little_is_heard_of_whoever_shows_no_key(door: Door, site: Client) -> None:
    stranger, known = await door.peer(), await door.peer(key_of(site))
    noop, said = b"NOOP " + b"x" * 400 + b"\r\n", 0
    while (reply := await stranger.says(noop)).startswith("250"):
        said += len(noop)
    assert reply.startswith("421 4.3.4 too much for one session")
    assert said < conversation.STRANGER_BYTES
    for _ in range(conversation.STRANGER_BYTES // len(noop) + 1):
        assert (await known.says(noop)).startswith("250")


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


async def test_one_site_holds_no_more_than_its_share_of_what_comes(db: str, tmp_path: Path) -> None:
    async with submission(db, tmp_path, message_limit_bytes=65_536) as door:
        site = await door.world.site(domain="acme.example")
        other = await door.world.site("Other", domain="other.example")
        door.lobby.most_held_bytes = 4 * 65_536
        slow = [await door.peer(key_of(site)) for _ in range(2)]
        for peer, lines in zip(slow, (20_000, 2_000), strict=True):
            await peer.says("MAIL FROM:<>")
            await peer.says("RCPT TO:<bob@b.example>")
            await peer.says("DATA")
            expected = door.lobby.held_bytes + 3 * lines
            peer.writer.write(b"x\r\n" * lines)
            async with asyncio.timeout(5):
                while door.lobby.held_bytes < expected:
                    await asyncio.sleep(0)
        assert (await (await door.peer(key_of(site))).says("MAIL FROM:<>")).startswith("452 4.3.1")
        quick = await door.peer(key_of(other))
        taken(await quick.sends(LETTER.replace(b"acme.example", b"other.example"), "bob@b.example"))
        for peer in slow:
            peer.writer.transport.abort()
        async with asyncio.timeout(5):
            while door.lobby.held_bytes:
                await asyncio.sleep(0)
        assert not door.lobby._held_by_site


async def test_content_that_comes_keeps_the_connection_awake(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets = list[float]()

    class Watched(Conversation):
        def _reset_timeout(self, duration: float | None = None) -> None:
            resets.append(self.loop.time())
            super()._reset_timeout(duration)

    monkeypatch.setattr(doors, "Conversation", Watched)
    async with submission(db, tmp_path) as door:
        peer = await door.peer(key_of(await door.world.site(domain="acme.example")))
        await peer.says("MAIL FROM:<>")
        await peer.says("RCPT TO:<bob@b.example>")
        await peer.says("DATA")
        for part in (b"From: a@acme.example\r\n", b"\r\n"):
            before, held = len(resets), door.lobby.held_bytes
            peer.writer.write(part)
            async with asyncio.timeout(5):
                while door.lobby.held_bytes == held:
                    await asyncio.sleep(0)
            assert len(resets) > before
        taken(await peer.says(b".\r\n"))


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


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_a_line_too_long_for_an_answer_to_auth_ends_the_connection(door: Door, mechanism: str) -> None:
    peer = await door.peer()
    await peer.starts_tls()
    await peer.says("EHLO app.example")
    assert (await peer.says(f"AUTH {mechanism}")).startswith("334")
    with capture_logs() as logs:
        assert (await peer.says("A" * 3_000)).startswith("500 5.5.6")
        assert await peer.reader.read() == b""
    assert [line["event"] for line in logs if line["event"] == "library"] == []
