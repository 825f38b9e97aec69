"""STARTTLS on real sockets: what is spoken under it, and what each policy makes of a handshake that fails."""

from __future__ import annotations

import ssl

import pytest

from gateway.model.disposition import BounceClass, Outcome, Scope
from gateway.mta.tls import client_context
from gateway.mta.wire import Mail, Session, SessionFailed, Timeouts, TlsPolicy, open_session
from tests.support.certificate import server_context
from tests.support.scripted_smtp import (
    EHLO_PIPELINING,
    EHLO_PLAIN,
    GREETING,
    OPENING,
    TAKEN,
    Close,
    Hold,
    Reset,
    ScriptedServer,
    StartTls,
    Step,
    Until,
    scripted,
)
from tests.support.zoo import OK, ONE, STARTTLS_OFFERED, TWO, in_steps

TIMEOUTS = Timeouts(connect_s=5, banner_s=5, mail_s=2, rcpt_s=2, data_s=2, dot_s=2)
MAIL = Mail("b@bounces.example", "ann@there.example", b"Subject: hi\r\n\r\nhello\r\n")
UPGRADED: tuple[Step, ...] = (*STARTTLS_OFFERED, b"220 go\r\n", StartTls(server_context()), Until(b"EHLO"))
BROKEN_HANDSHAKES: dict[str, list[Step]] = {
    "garbage": [*STARTTLS_OFFERED, b"220 go\r\n", Until(b"\x16"), b"this is no TLS\r\n"],
    "closed": [*STARTTLS_OFFERED, b"220 go\r\n", Until(b"\x16"), Close()],
    "reset": [*STARTTLS_OFFERED, b"220 go\r\n", Until(b"\x16"), Reset()],
    "closed before it": [*STARTTLS_OFFERED, b"220 go\r\n", Close()],
    "closed at the command": [*STARTTLS_OFFERED, Close()],
    "never answered": [*STARTTLS_OFFERED, b"220 go\r\n", Hold()],
}


async def connect(
    server: ScriptedServer, tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC, connect_s: float = 5
) -> Session:
    timeouts = Timeouts(connect_s=connect_s, banner_s=5, mail_s=2, rcpt_s=2, data_s=2, dot_s=2)
    return await open_session("127.0.0.1", server.port, "out.example", timeouts, tls=tls)


def go() -> None:
    """The dot may be written."""


@pytest.mark.parametrize("tls", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRE])
async def test_what_offers_tls_gets_it_though_nobody_vouches_for_its_certificate(tls: TlsPolicy) -> None:
    async with scripted([*UPGRADED, EHLO_PIPELINING, *TWO]) as server:
        session = await connect(server, tls)
        came_to = [(await session.transact(MAIL, go)).outcome for _ in range(2)]
        session.quit()
    assert came_to == [Outcome.DELIVERED] * 2
    assert session.tls_version in ("TLSv1.2", "TLSv1.3")
    assert session.tls_cipher
    assert session.tls_failure == ""


async def test_extensions_are_those_of_the_second_ehlo_alone() -> None:
    offered = b"250-mx.example\r\n250-STARTTLS\r\n250-SIZE 10\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n"
    script = in_steps([GREETING, Until(b"EHLO"), offered, Until(b"STARTTLS\r\n"), b"220 go\r\n", StartTls(server_context()),
                       Until(b"EHLO"), EHLO_PLAIN], messages=1)  # fmt: skip
    async with scripted(script) as server:
        session = await connect(server)
        assert (await session.transact(MAIL, go)).outcome is Outcome.DELIVERED
        utf8 = await session.transact(Mail("b@bounces.example", "björn@there.example", b"hello\r\n"), go)
    assert utf8.outcome is Outcome.BOUNCED
    assert b"SIZE=" not in server.heard[0]


async def test_starttls_is_not_said_where_the_policy_does_not_want_it() -> None:
    async with scripted([*STARTTLS_OFFERED[:-1], *ONE]) as server:
        session = await connect(server, TlsPolicy.NONE)
        assert (await session.transact(MAIL, go)).outcome is Outcome.DELIVERED
    assert b"STARTTLS" not in server.heard[0]
    assert session.tls_version == ""


@pytest.mark.parametrize("name", BROKEN_HANDSHAKES)
async def test_opportunistic_goes_on_in_plaintext_over_a_new_connection_when_the_handshake_fails(
    name: str,
) -> None:
    async with scripted(BROKEN_HANDSHAKES[name], [*STARTTLS_OFFERED[:-1], *ONE]) as server:
        session = await connect(server, connect_s=0.3 if name == "never answered" else 5)
        assert (await session.transact(MAIL, go)).outcome is Outcome.DELIVERED
    assert len(server.heard) == 2
    assert session.tls_version == ""
    assert session.tls_failure.startswith("TLS handshake failed at starttls")


@pytest.mark.parametrize("name", [*BROKEN_HANDSHAKES, "refused"])
async def test_required_tls_never_ends_in_plaintext(name: str) -> None:
    script = BROKEN_HANDSHAKES.get(name, [*STARTTLS_OFFERED, b"454 4.7.0 not now\r\n", *ONE])
    async with scripted(script) as server:
        with pytest.raises(SessionFailed) as failed:
            await connect(server, TlsPolicy.REQUIRE, connect_s=0.3 if name == "never answered" else 5)
    disposition = failed.value.disposition
    assert (disposition.outcome, disposition.scope, disposition.enhanced) == (
        Outcome.DEFERRED,
        Scope.LANE,
        "4.7.5",
    )
    assert len(server.heard) == 1
    assert b"MAIL" not in server.heard[0]


@pytest.mark.parametrize(
    "script",
    [[*OPENING, *ONE], in_steps([GREETING, Until(b"EHLO"), b"502 what?\r\n", Until(b"HELO"), OK])],
    ids=["not offered", "HELO"],
)
async def test_required_tls_that_is_not_offered_waits(script: list[Step]) -> None:
    async with scripted(script) as server:
        with pytest.raises(SessionFailed) as failed:
            await connect(server, TlsPolicy.REQUIRE)
    disposition = failed.value.disposition
    assert (disposition.outcome, disposition.bounce_class, disposition.enhanced) == (
        Outcome.DEFERRED,
        BounceClass.CONNECTION,
        "4.7.10",
    )
    assert b"MAIL" not in server.heard[0]


@pytest.mark.parametrize("tls", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRE])
async def test_replies_injected_before_the_handshake_end_the_session(tls: TlsPolicy) -> None:
    injected = b"220 go\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"
    async with scripted([*STARTTLS_OFFERED, injected, StartTls(server_context()), *ONE]) as server:
        with pytest.raises(SessionFailed) as failed:
            await connect(server, tls)
    assert failed.value.disposition.bounce_class is BounceClass.PROTOCOL
    assert len(server.heard) == 1
    assert b"MAIL" not in server.heard[0]


async def test_a_receiver_that_resets_after_the_dot_under_tls_leaves_doubt() -> None:
    async with scripted([*UPGRADED, EHLO_PIPELINING, *TAKEN, Reset()]) as server:
        assert (await (await connect(server)).transact(MAIL, go)).outcome is Outcome.IN_DOUBT


async def test_a_receiver_that_does_not_read_under_tls_is_ended() -> None:
    large = Mail("b@bounces.example", "ann@there.example", b"x" * 998 + b"\r\n")
    large = Mail(large.sender, large.recipient, large.content * 16_000)
    async with scripted([*UPGRADED, EHLO_PIPELINING, *TAKEN[:2], Hold()]) as server:
        timeouts = Timeouts(connect_s=5, data_block_s=0.3, dot_s=60)
        session = await open_session("127.0.0.1", server.port, "out.example", timeouts)
        disposition = await session.transact(large, go)
    assert disposition.outcome is Outcome.IN_DOUBT
    assert disposition.text.startswith("receiver too slow at dot")


def test_the_context_is_made_once_and_takes_no_old_tls() -> None:
    assert client_context() is client_context()
    assert client_context().minimum_version == ssl.TLSVersion.TLSv1_2
