"""One session, one transaction, against servers that say what the test wrote down."""

from __future__ import annotations

import pytest

from gateway.model.disposition import BounceClass, Outcome, Scope
from gateway.mta.bounce_rules import BounceRule, BounceRules, RuledJudge
from gateway.mta.wire import Mail, Session, SessionFailed, Timeouts, open_session
from tests.support.scripted_smtp import (
    EHLO_PLAIN,
    GREETING,
    OPENING,
    TAKEN,
    Close,
    Reset,
    ScriptedServer,
    Step,
    Until,
    scripted,
)

QUICK = Timeouts(connect_s=2, banner_s=2, mail_s=2, rcpt_s=2, data_s=2, dot_s=0.3)
MAIL = Mail("b@bounces.example", "ann@there.example", b"Subject: hi\r\n\r\nhello\r\n")


class Dots:
    """Counts how often the moment before the dot came."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


async def connect(server: ScriptedServer) -> Session:
    return await open_session("127.0.0.1", server.port, "out.example", QUICK)


async def test_a_message_goes_in_one_pipelined_transaction() -> None:
    async with scripted([*OPENING, *TAKEN, b"250 2.0.0 queued\r\n"]) as server:
        session, dots = await connect(server), Dots()
        disposition = await session.transact(MAIL, dots)
    assert (disposition.outcome, disposition.code, dots.count) == (Outcome.DELIVERED, 250, 1)
    assert b"MAIL FROM:<b@bounces.example>\r\nRCPT TO:<ann@there.example>\r\nDATA\r\n" in server.heard[0]
    assert bytes(server.heard[0]).endswith(b"hello\r\n.\r\n")


async def test_a_server_without_pipelining_is_waited_for_at_each_command() -> None:
    script: list[Step] = [
        GREETING, Until(b"EHLO"), EHLO_PLAIN, Until(b"MAIL FROM:<b@bounces.example>\r\n"), b"250 ok\r\n",
        Until(b"RCPT TO:<ann@there.example>\r\n"), b"250 ok\r\n", Until(b"DATA\r\n"), b"354 go\r\n", Until(b"\r\n.\r\n"), b"250 ok\r\n",
    ]  # fmt: skip
    async with scripted(script) as server:
        assert (await (await connect(server)).transact(MAIL, Dots())).outcome is Outcome.DELIVERED


async def test_ehlo_refused_falls_back_to_helo() -> None:
    script: list[Step] = [
        GREETING, Until(b"EHLO"), b"502 what?\r\n", Until(b"HELO"), b"250 hi\r\n", Until(b"MAIL"), b"250 ok\r\n",
        Until(b"RCPT"), b"250 ok\r\n", Until(b"DATA\r\n"), b"354 go\r\n", Until(b"\r\n.\r\n"), b"250 ok\r\n",
    ]  # fmt: skip
    async with scripted(script) as server:
        assert (await (await connect(server)).transact(MAIL, Dots())).outcome is Outcome.DELIVERED


async def test_after_a_refused_recipient_the_session_is_reset_and_goes_on() -> None:
    script: list[Step] = [
        *OPENING, Until(b"DATA\r\n"), b"250 ok\r\n550 5.1.1 no such user\r\n503 no recipients\r\n", Until(b"RSET\r\n"), b"250 ok\r\n",
        Until(b"DATA\r\n"), b"250 ok\r\n250 ok\r\n354 go\r\n", Until(b"\r\n.\r\n"), b"250 ok\r\n",
    ]  # fmt: skip
    async with scripted(script) as server:
        session, dots = await connect(server), Dots()
        refused = await session.transact(MAIL, dots)
        assert (refused.outcome, refused.bounce_class, refused.enhanced) == (
            Outcome.BOUNCED,
            BounceClass.INVALID,
            "5.1.1",
        )
        assert dots.count == 0
        assert (await session.transact(MAIL, dots)).outcome is Outcome.DELIVERED


async def test_354_for_nobody_is_answered_with_an_empty_message() -> None:
    script: list[Step] = [
        *OPENING, Until(b"DATA\r\n"), b"250 ok\r\n550 5.1.1 no such user\r\n354 go\r\n", Until(b".\r\n"), b"554 no valid recipients\r\n",
    ]  # fmt: skip
    async with scripted(script) as server:
        session, dots = await connect(server), Dots()
        assert (await session.transact(MAIL, dots)).outcome is Outcome.BOUNCED
    assert b"hello" not in server.heard[0]
    assert dots.count == 0


async def test_a_reply_in_pieces_is_one_reply() -> None:
    async with scripted([*OPENING, *TAKEN, b"250-2.0.0 one\r", b"\n250", b" two\r\n"]) as server:
        disposition = await (await connect(server)).transact(MAIL, Dots())
    assert disposition.outcome is Outcome.DELIVERED
    assert "two" in disposition.text


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["closed", "reset"])
async def test_a_connection_lost_before_the_dot_defers(end: Step) -> None:
    async with scripted([*OPENING, Until(b"DATA\r\n"), b"250 ok\r\n", end]) as server:
        session, dots = await connect(server), Dots()
        disposition = await session.transact(MAIL, dots)
    assert (disposition.outcome, disposition.scope, dots.count) == (Outcome.DEFERRED, Scope.LANE, 0)
    assert not session.usable


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["closed", "reset"])
async def test_a_connection_lost_after_the_dot_is_in_doubt(end: Step) -> None:
    async with scripted([*OPENING, *TAKEN, end]) as server:
        assert (await (await connect(server)).transact(MAIL, Dots())).outcome is Outcome.IN_DOUBT


async def test_no_reply_to_the_dot_in_time_is_in_doubt() -> None:
    async with scripted([*OPENING, *TAKEN]) as server:
        assert (await (await connect(server)).transact(MAIL, Dots())).outcome is Outcome.IN_DOUBT


async def test_a_250_that_was_read_counts_though_the_connection_is_reset_after_it() -> None:
    async with scripted([*OPENING, *TAKEN, b"250 ok\r\n", Reset()]) as server:
        session = await connect(server)
        assert (await session.transact(MAIL, Dots())).outcome is Outcome.DELIVERED


async def test_421_in_the_pipeline_concerns_the_lane_and_ends_the_session() -> None:
    async with scripted([*OPENING, Until(b"DATA\r\n"), b"421 4.7.0 too busy\r\n", Close()]) as server:
        session = await connect(server)
        disposition = await session.transact(MAIL, Dots())
    assert (disposition.outcome, disposition.scope, disposition.code) == (Outcome.DEFERRED, Scope.LANE, 421)
    assert not session.usable


@pytest.mark.parametrize(
    "reply", [b"250-" + b"x" * 70_000, b"250-more\r\n" * 9_000, b"hello there\r\n", b"\xff\xfe\x00\r\n"],
    ids=["a line without end", "lines without end", "no code", "no text"],
)  # fmt: skip
async def test_an_odd_reply_to_the_dot_is_in_doubt_and_capped(reply: bytes) -> None:
    async with scripted([*OPENING, *TAKEN, reply]) as server:
        session = await connect(server)
        disposition = await session.transact(MAIL, Dots())
    assert disposition.outcome is Outcome.IN_DOUBT
    assert len(disposition.text) < 2_000
    assert not session.usable


async def test_what_stops_the_dot_stops_the_message() -> None:
    def refuse() -> None:
        raise RuntimeError("not now")

    async with scripted([*OPENING, *TAKEN]) as server:
        session = await connect(server)
        with pytest.raises(RuntimeError, match="not now"):
            await session.transact(MAIL, refuse)
        assert not session.usable
    assert b"hello" not in server.heard[0]


@pytest.mark.parametrize(
    "recipient", ["a@x.example>\r\nRCPT TO:<b@x.example", "a\n@x.example", "a\x00@x.example", "a b@x.example"]
)
async def test_an_address_that_breaks_the_envelope_never_reaches_the_wire(recipient: str) -> None:
    async with scripted([*OPENING]) as server:
        session = await connect(server)
        disposition = await session.transact(Mail("b@bounces.example", recipient, b"hello\r\n"), Dots())
        assert disposition.outcome is Outcome.BOUNCED
    assert b"RCPT" not in server.heard[0]


@pytest.mark.parametrize(
    "script",
    [[b"554 no\r\n", Close()], [Close()], [GREETING, Until(b"EHLO"), b"421 later\r\n", Close()], [GREETING, Until(b"EHLO"), Close()]],
    ids=["554 banner", "closed at once", "421 to EHLO", "closed at EHLO"],
)  # fmt: skip
async def test_a_server_that_lets_nobody_in_defers_the_lane(script: list[Step]) -> None:
    async with scripted(script) as server:
        with pytest.raises(SessionFailed) as failed:
            await connect(server)
    assert (failed.value.disposition.outcome, failed.value.disposition.scope) == (
        Outcome.DEFERRED,
        Scope.LANE,
    )


async def test_nobody_listening_defers_the_lane() -> None:
    async with scripted([Close()]) as server:
        port = server.port
    with pytest.raises(SessionFailed) as failed:
        await open_session("127.0.0.1", port, "out.example", QUICK)
    assert failed.value.disposition.outcome is Outcome.DEFERRED


async def test_rules_judge_the_greeting_and_each_refusal_also_when_they_came_meanwhile() -> None:
    rule = BounceRule(pattern="not you", bounce_class=BounceClass.SPAM, why="a test")
    judge = RuledJudge(BounceRules((rule,)))
    refused = b"250 ok\r\n550 not you\r\n503 no\r\n"
    script: list[Step] = [
        *OPENING, Until(b"DATA\r\n"), refused, Until(b"RSET\r\n"), b"250 ok\r\n", Until(b"DATA\r\n"), refused,
    ]  # fmt: skip
    async with scripted(script) as server:
        session = await open_session("127.0.0.1", server.port, "out.example", QUICK, judge=judge)
        assert (await session.transact(MAIL, Dots())).bounce_class is BounceClass.SPAM
        judge.rules = BounceRules()
        assert (await session.transact(MAIL, Dots())).bounce_class is BounceClass.UNKNOWN
    judge.rules = BounceRules((rule,))
    async with scripted([b"554 not you\r\n"]) as server:
        with pytest.raises(SessionFailed) as caught:
            await open_session("127.0.0.1", server.port, "out.example", QUICK, judge=judge)
    disposition = caught.value.disposition
    assert (disposition.outcome, disposition.bounce_class, disposition.scope) == (
        Outcome.DEFERRED,
        BounceClass.SPAM,
        Scope.LANE,
    )
