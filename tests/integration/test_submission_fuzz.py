"""Whatever a peer says to the SMTP door, it answers in the protocol or hangs up, and the next app is served."""

from __future__ import annotations

import random
from pathlib import Path

import asyncpg
import pytest

from tests.support.smtp_peer import Peer, plain
from tests.support.submission import submission

_WORDS = [
    b"EHLO a.example", b"HELO a", b"HELO", b"EHLO", b"MAIL FROM:<a@b.example>", b"MAIL FROM:<>", b"MAIL FROM:", b"MAIL FROM:<a@b> SIZE=x",
    b"MAIL FROM:<a@b.example> BODY=BINARY", b"MAIL", b"RCPT TO:<c@d.example>", b"RCPT TO:<>", b"RCPT TO:<c@d.example> NOTIFY=NEVER",
    b"RCPT TO:<\"a b\"@d.example>", b"RCPT", b"DATA", b"DATA x", b".", b"RSET", b"NOOP", b"HELP", b"HELP AUTH", b"VRFY x", b"EXPN x",
    b"STARTTLS x", b"AUTH", b"AUTH X", b"AUTH PLAIN", b"AUTH LOGIN", b"*", b"=", b"AAAA", b"BDAT 5 LAST", b"", b" ", b"\x00\xff", b"a\xc3\xbc b",
    b"From: a@acme.example", b"From: a@evil.example", b"Subject: x", b"x" * 600, b"x" * 2_000,
]  # fmt: skip
_ORDINARY = [b"EHLO a.example", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"] * 8


@pytest.mark.parametrize("seed", range(8))
async def test_nonsense_does_no_harm(db: str, pool: asyncpg.Pool, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with submission(db, tmp_path, tls=False) as door:
        site = await door.world.site(domain="acme.example")
        login = b"AUTH PLAIN " + plain(site.key or "").encode()
        for _ in range(25):
            peer = await Peer.connect(door.section.port)
            for _ in range(chance.randrange(1, 40)):
                line = chance.choice([*_WORDS, login, *_ORDINARY])
                reply = await _answer(peer, line + b"\r\n")
                if reply.startswith("354"):
                    content = b"\r\n".join([*chance.choices(_WORDS, k=5), b"", b".", b""])
                    reply = await _answer(peer, content)
                if not reply:
                    break
                assert reply[:3].isdigit(), (line, reply)
            peer.writer.close()
        assert door.lobby.held_bytes == 0
        peer = await Peer.connect(door.section.port)
        await peer.says("EHLO a.example")
        await peer.signs_in(site.key or "")
        before = await pool.fetchval("SELECT count(*) FROM message")
        assert (await peer.sends(b"From: a@acme.example\r\n\r\nHi.\r\n", "b@b.example")).startswith(
            "250 2.0.0"
        )
        assert await pool.fetchval("SELECT count(*) FROM message") == before + 1


async def _answer(peer: Peer, words: bytes) -> str:
    """The reply; empty when the other side hung up."""
    try:
        return await peer.says(words)
    except ConnectionError:
        return ""
