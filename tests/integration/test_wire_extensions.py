"""What a receiver offers and what we make of it; and what a transcript shows."""

from __future__ import annotations

import aiosmtplib
import pytest

from gateway.model.disposition import BounceClass, Outcome
from gateway.mta.wire import Mail, Session, Timeouts, TlsPolicy, open_session
from tests.support.certificate import server_context
from tests.support.scripted_smtp import (
    EHLO_PIPELINING,
    GREETING,
    OPENING,
    TAKEN,
    Hold,
    ScriptedServer,
    StartTls,
    Step,
    Until,
    scripted,
)
from tests.support.zoo import OK, ONE, STARTTLS_OFFERED, in_steps

TIMEOUTS = Timeouts(connect_s=5, banner_s=5, mail_s=5, rcpt_s=5, data_s=5, dot_s=5)
CONTENT = b"Subject: hi\r\n\r\n..\r\n..two\r\n"  # 26 octets, 24 without what stuffing added


def offering(*extensions: bytes) -> tuple[Step, ...]:
    return (
        GREETING,
        Until(b"EHLO"),
        b"".join(b"250-%s\r\n" % line for line in (b"mx", *extensions)) + b"250 HELP\r\n",
    )


async def connect(server: ScriptedServer) -> Session:
    return await open_session("127.0.0.1", server.port, "out.example", TIMEOUTS)


def go() -> None:
    """The dot may be written."""


def mail(content: bytes = CONTENT, recipient: str = "ann@there.example") -> Mail:
    return Mail("b@bounces.example", recipient, content)


async def test_a_message_larger_than_the_receiver_takes_is_bounced_unsent_and_the_session_goes_on() -> None:
    async with scripted([*offering(b"SIZE 23", b"PIPELINING"), *ONE]) as server:
        session = await connect(server)
        disposition = await session.transact(mail(), go)
        assert (disposition.outcome, disposition.bounce_class, disposition.enhanced) == (
            Outcome.BOUNCED,
            BounceClass.SIZE,
            "5.3.4",
        )
        assert b"MAIL" not in server.heard[0]
        assert (await session.transact(mail(b"hello\r\n"), go)).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("size", [b"SIZE 24", b"SIZE 0", b"SIZE", b"SIZE many", b"SIZE \xb2"])
async def test_a_message_that_is_not_too_large_says_its_size(size: bytes) -> None:
    async with scripted([*offering(size, b"PIPELINING"), *ONE]) as server:
        assert (await (await connect(server)).transact(mail(), go)).outcome is Outcome.DELIVERED
    assert b"MAIL FROM:<b@bounces.example> SIZE=26\r\n" in server.heard[0]


@pytest.mark.parametrize(
    ("extensions", "content", "parameters"),
    [
        ((b"8BITMIME",), b"gr\xc3\xbcn\r\n", b" BODY=8BITMIME"),
        ((b"8BITMIME",), b"green\r\n", b""),
        ((), b"gr\xc3\xbcn\r\n", b""),
        ((b"8BITMIME", b"SIZE 100"), b"gr\xc3\xbcn\r\n", b" SIZE=7 BODY=8BITMIME"),
    ],
)
async def test_the_parameters_of_mail_are_those_that_are_offered_and_needed(
    extensions: tuple[bytes, ...], content: bytes, parameters: bytes
) -> None:
    async with scripted(in_steps(offering(*extensions), messages=1)) as server:
        assert (await (await connect(server)).transact(mail(content), go)).outcome is Outcome.DELIVERED
    assert b"MAIL FROM:<b@bounces.example>%s\r\n" % parameters in server.heard[0]


async def test_one_outcome_a_recipient_where_they_are_mixed() -> None:
    """F16: one recipient a transaction, so that none is told what was said of another."""

    def refused(reply: bytes) -> tuple[Step, ...]:
        return Until(b"DATA\r\n"), b"250 ok\r\n" + reply + b"503 5.5.1 nobody\r\n", Until(b"RSET\r\n"), OK

    script = [*OPENING, *ONE, *refused(b"450 4.2.0 later\r\n"), *refused(b"550 5.1.1 no such user\r\n"), *ONE]
    async with scripted(script) as server:
        session = await connect(server)
        came_to = [(await session.transact(mail(), go)).outcome for _ in range(4)]
    assert came_to == [Outcome.DELIVERED, Outcome.DEFERRED, Outcome.BOUNCED, Outcome.DELIVERED]


async def test_controls_in_a_reply_are_shown_escaped() -> None:
    async with scripted([*OPENING, *TAKEN, b"550 5.7.1 \xff\x00\x1b[2J\xe2\x80\xae spam\r\n"]) as server:
        disposition = await (await connect(server)).transact(mail(), go)
    assert disposition.outcome is Outcome.BOUNCED
    assert disposition.text == r"\xff\x00\x1b[2J\x202e spam"


async def test_a_goodbye_between_two_messages_makes_the_session_stale_and_refuses_nothing() -> None:
    async with scripted([*OPENING, *TAKEN, OK + b"421 4.4.2 idle for too long\r\n"]) as server:
        session = await connect(server)
        assert (await session.transact(mail(), go)).outcome is Outcome.DELIVERED
        assert not session.usable
        disposition = await session.transact(mail(), go)
    assert session.stale
    assert disposition.text == "idle for too long"
    assert server.heard[0].count(b"MAIL") == 1


async def test_a_transcript_has_every_line_and_of_the_content_its_size() -> None:
    seen: list[str] = []
    script = [*STARTTLS_OFFERED, b"220 go\r\n", StartTls(server_context()), Until(b"EHLO"), EHLO_PIPELINING, *ONE,
              Until(b"QUIT"), b"221 bye\r\n"]  # fmt: skip
    async with scripted(script) as server:
        session = await open_session(
            "127.0.0.1", server.port, "out.example", TIMEOUTS, tls=TlsPolicy.REQUIRE,
            trace=lambda who, line: seen.append(f"{who}: {line.decode()}"),
        )  # fmt: skip
        await session.transact(mail(), go)
        session.quit()
    assert seen == [
        f"*: connecting to 127.0.0.1 port {server.port}",
        "S: 220 mx.example ESMTP", "C: EHLO out.example", "S: 250-mx.example", "S: 250-STARTTLS", "S: 250 PIPELINING", "C: STARTTLS",
        "S: 220 go", f"C: [{session.tls_version} {session.tls_cipher}]", "C: EHLO out.example", "S: 250-mx.example",
        "S: 250-PIPELINING", "S: 250 8BITMIME", "C: MAIL FROM:<b@bounces.example>", "C: RCPT TO:<ann@there.example>", "C: DATA",
        "S: 250 ok", "S: 250 ok", "S: 354 go", "C: [content, 26 bytes]", "C: .", "S: 250 2.0.0 ok", "C: QUIT",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "opening",
    [OPENING, offering(b"SIZE 1000", b"PIPELINING", b"SMTPUTF8"), offering(b"size 1000", b"Pipelining"), offering(b"AUTH=LOGIN", b"SIZE  7 "),
     (GREETING, Until(b"EHLO"), b"250 mx\r\n"), (b"220-a\r\n220 b\r\n", Until(b"EHLO"), b"250-mx\n250 PIPELINING\n")],
)  # fmt: skip
async def test_aiosmtplib_reads_the_same_from_it(opening: tuple[Step, ...]) -> None:
    """Of well-behaved receivers: what it makes of the others is in docs/adr/0007."""
    async with scripted(opening) as server:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=server.port, start_tls=False, timeout=5)
        await client.connect()
        await client.ehlo()
        theirs = {name: client.supports_extension(name) for name in ("pipelining", "smtputf8", "size")}
        client.close()
        session = await connect(server)
        ours = {"pipelining": session._pipelining, "smtputf8": session._smtputf8, "size": session._says_size}
    assert ours == theirs


READY = b"250 ok\r\n250 ok\r\n354 go\r\n"


def taking(replies: bytes) -> tuple[Step, ...]:
    """A receiver that takes one message, says this to its dot, and falls silent."""
    return (
        GREETING,
        Until(b"EHLO"),
        EHLO_PIPELINING,
        Until(b"DATA\r\n"),
        READY,
        Until(b"\r\n.\r\n"),
        replies,
        Hold(),
    )


async def test_a_message_opened_ahead_costs_one_round_trip() -> None:
    """The second message's commands come with the first one's dot: its 354 is there before it is asked for."""
    script = [GREETING, Until(b"EHLO"), EHLO_PIPELINING, Until(b"DATA\r\n"), READY, Until(b"first\r\n.\r\n"), Until(b"DATA\r\n"),
              b"250 taken 1\r\n250 ok\r\n250 ok\r\n354 go\r\n", Until(b"second\r\n.\r\n"), b"250 taken 2\r\n", Hold()]  # fmt: skip
    first, second = (
        Mail("b@x.example", "a@y.example", b"S: x\r\n\r\n%s\r\n" % word) for word in (b"first", b"second")
    )
    async with scripted(script) as server:
        session = await open_session("127.0.0.1", server.port, "out.example", TIMEOUTS)
        dispositions = [
            await session.transact(first, go, ahead=lambda: second),
            await session.transact(second, go),
        ]
        assert [d.text for d in dispositions] == ["taken 1", "taken 2"]
        assert session.usable


async def test_only_the_message_that_was_opened_ahead_may_follow() -> None:
    async with scripted(taking(b"250 taken\r\n")) as server:
        session = await open_session("127.0.0.1", server.port, "out.example", TIMEOUTS)
        await session.transact(mail(), go, ahead=lambda: mail())
        with pytest.raises(ValueError, match="opened ahead"):
            await session.transact(mail(), go)
        assert not session.usable


async def test_what_a_receiver_cannot_be_sent_is_not_opened_ahead() -> None:
    async with scripted(taking(b"250 taken\r\n")) as server:
        session = await open_session("127.0.0.1", server.port, "out.example", TIMEOUTS)
        odd = Mail("b@x.example", "jörg@y.example", b"S: x\r\n\r\nx\r\n")
        await session.transact(mail(), go, ahead=lambda: odd)
        assert (await session.transact(odd, go)).outcome is Outcome.BOUNCED
        assert session.usable
        assert b"rg@y" not in b"".join(server.heard)


async def test_a_5xx_to_a_mail_that_was_opened_ahead_is_asked_for_again_on_a_new_connection() -> None:
    """It could be one reply too many of the message before, which would bounce this one with another's words."""
    async with scripted(taking(b"250 taken\r\n554 5.7.1 spam\r\n")) as server:
        session = await open_session("127.0.0.1", server.port, "out.example", TIMEOUTS)
        second = mail()
        assert (await session.transact(mail(), go, ahead=lambda: second)).outcome is Outcome.DELIVERED
        await session.transact(second, go)
        assert session.stale
        assert not session.usable
