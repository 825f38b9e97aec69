"""Replies are read whole and safe, and judged by what they say of the recipient, the sender or the lane."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.disposition import BounceClass, Outcome, Scope, Stage
from gateway.mta.reply import TEXT_LIMIT, ErrorKind, Reply, ReplyMalformed, classify, from_error, parse_reply


def judge(line: str, stage: Stage = Stage.RCPT) -> tuple[str, str, str]:
    disposition = classify(parse_reply([line.encode()]), stage)
    return disposition.outcome.value, disposition.bounce_class.value, disposition.scope.value


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        ([b"250 2.0.0 OK abc\r\n"], Reply(250, "2.0.0", "OK abc")),
        ([b"250"], Reply(250, None, "")),
        ([b"550 5.1.1"], Reply(550, "5.1.1", "")),
        (
            [b"550-5.1.1 The account", b"550 5.1.1 does not exist"],
            Reply(550, "5.1.1", "The account does not exist"),
        ),
        (
            [b"550 no mailbox here (#5.1.1 - chkusr)"],
            Reply(550, "5.1.1", "no mailbox here (#5.1.1 - chkusr)"),
        ),
        ([b"554 192.0.2.1 refused"], Reply(554, None, "192.0.2.1 refused")),
        ([b"550-first", b"451 second"], Reply(451, None, "first second")),
        ([b"550 nul \x00 bell \x07 bad \xff\xfe"], Reply(550, None, r"nul \x00 bell \x07 bad \xff\xfe")),
        (["550 kein Nutzer für \u202eevil".encode()], Reply(550, None, r"kein Nutzer für \x202eevil")),
    ],
)
def test_parse_reply(lines: list[bytes], reply: Reply) -> None:
    assert parse_reply(lines) == reply


@pytest.mark.parametrize(
    "lines", [[], [b""], [b"25"], [b"2x0 ok"], [b"999 no"], [b"199 no"], [b"250ok"], [b"HTTP/1.1 400"]]
)
def test_what_is_no_reply_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(ReplyMalformed, match="expected"):
        parse_reply(lines)


@given(st.lists(st.binary(max_size=3000), min_size=0, max_size=30), st.binary(max_size=40_000))
def test_any_reply_becomes_one_short_printable_line_without_controls(lines: list[bytes], last: bytes) -> None:
    reply = parse_reply([*(b"550-" + line for line in lines), b"550 " + last])
    assert len(reply.text) <= TEXT_LIMIT
    assert len(reply.text.splitlines()) <= 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in reply.text)
    classify(reply, Stage.RCPT)


@pytest.mark.parametrize(
    ("line", "stage", "expected"),
    [
        ("250 2.0.0 queued as 4F2", Stage.DOT, ("delivered", "ok", "recipient")),
        ("250 ok", Stage.DATA, ("deferred", "protocol", "recipient")),
        ("421 4.3.2 shutting down", Stage.RCPT, ("deferred", "connection", "lane")),
        ("421 4.7.28 unusual rate of unsolicited mail", Stage.DOT, ("deferred", "rate", "lane")),
        ("452 4.3.2 Connection rate limit exceeded", Stage.MAIL, ("deferred", "rate", "lane")),
        ("452 4.3.1 Insufficient system storage", Stage.MAIL, ("deferred", "connection", "lane")),
        ("450 4.2.1 is receiving mail at a rate that", Stage.RCPT, ("deferred", "rate", "recipient")),
        ("452 4.2.2 mailbox full", Stage.RCPT, ("deferred", "mailbox_full", "recipient")),
        ("450 4.2.0 Recipient address rejected: Greylisted, see postgrey", Stage.RCPT, ("deferred", "greylist", "recipient")),
        ("450 4.1.1 unverified address: mailbox unknown", Stage.RCPT, ("deferred", "unknown", "recipient")),
        ("550 5.1.1 <a@b.example>: User unknown", Stage.RCPT, ("bounced", "invalid", "recipient")),
        ("550 5.1.1 <a@b.example>: User unknown", Stage.DOT, ("bounced", "invalid", "recipient")),
        ("550 5.1.10 RESOLVER.ADR.RecipientNotFound", Stage.RCPT, ("bounced", "invalid", "recipient")),
        ("550 5.1.2 Host unknown", Stage.RCPT, ("bounced", "invalid", "recipient")),
        ("556 domain does not accept mail", Stage.RCPT, ("bounced", "invalid", "recipient")),
        ("550 No such user here", Stage.RCPT, ("bounced", "invalid", "recipient")),
        ("550 Requested action not taken: mailbox unavailable", Stage.MAIL, ("bounced", "policy", "recipient")),
        ("550 5.1.1 blocked using zen.spamhaus.org", Stage.RCPT, ("bounced", "spam", "recipient")),
        ("550 5.1.8 Domain of sender address does not exist", Stage.MAIL, ("bounced", "policy", "recipient")),
        ("550 sender verify failed: no such user", Stage.RCPT, ("bounced", "policy", "recipient")),
        ("550 5.2.1 The email account that you tried to reach is disabled", Stage.RCPT, ("bounced", "unknown", "recipient")),
        ("552 5.2.2 over quota", Stage.RCPT, ("bounced", "mailbox_full", "recipient")),
        ("552 too many recipients", Stage.RCPT, ("deferred", "rate", "recipient")),
        ("552 5.3.4 message size exceeds", Stage.MAIL, ("bounced", "size", "recipient")),
        ("550 5.7.26 This mail has been blocked because the sender is unauthenticated", Stage.DOT, ("bounced", "auth", "recipient")),
        ("554 5.7.1 Message rejected as spam", Stage.DOT, ("bounced", "spam", "recipient")),
        ("550 5.7.1 Relaying denied", Stage.RCPT, ("bounced", "policy", "recipient")),
        ("501 Syntax error in parameters", Stage.MAIL, ("bounced", "protocol", "recipient")),
        ("554 no SMTP service here", Stage.BANNER, ("deferred", "policy", "lane")),
        ("554 5.7.1 IP blocked, reputation", Stage.BANNER, ("deferred", "spam", "lane")),
        ("550 no such host", Stage.EHLO, ("deferred", "policy", "lane")),
        ("454 TLS not available", Stage.STARTTLS, ("deferred", "connection", "lane")),
        ("550", Stage.RCPT, ("bounced", "unknown", "recipient")),
    ],
)  # fmt: skip
def test_classify(line: str, stage: Stage, expected: tuple[str, str, str]) -> None:
    assert judge(line, stage) == expected


@given(
    st.integers(200, 599),
    st.sampled_from([*Stage]),
    st.sampled_from([None, "5.1.1", "4.1.1", "5.7.1", "5.1.2", "4.2.2", "5.1.10", "5.0.0", "4.7.28"]),
    st.sampled_from(
        ["", "user unknown", "spam", "rate limit", "mailbox full", "sender unknown", "no such user"]
    ),
)
def test_what_must_hold_for_every_reply(code: int, stage: Stage, enhanced: str | None, text: str) -> None:
    disposition = classify(Reply(code, enhanced, text), stage)
    assert (disposition.outcome is Outcome.DELIVERED) == (stage is Stage.DOT and code < 300)
    if disposition.outcome is Outcome.BOUNCED:
        assert code >= 500
    if disposition.scope is Scope.LANE:
        assert disposition.outcome is Outcome.DEFERRED
    if disposition.bounce_class is BounceClass.INVALID:  # it suppresses
        assert code >= 500
        assert stage in (Stage.RCPT, Stage.DATA, Stage.DOT)
        assert text in ("", "user unknown", "no such user")


@pytest.mark.parametrize("stage", [*Stage])
@pytest.mark.parametrize(
    "kind", [ErrorKind.CONNECTION_LOST, ErrorKind.TIMEOUT, ErrorKind.TOO_SLOW, ErrorKind.MALFORMED]
)
def test_without_a_reply_it_is_in_doubt_from_the_dot_on_and_deferred_before(
    kind: ErrorKind, stage: Stage
) -> None:
    disposition = from_error(kind, stage, "x\r\ny")
    assert disposition.outcome is (Outcome.IN_DOUBT if stage is Stage.DOT else Outcome.DEFERRED)
    assert r"x\x0d\x0ay" in disposition.text


def test_errors_before_a_session() -> None:
    null_mx = from_error(ErrorKind.NULL_MX, Stage.CONNECT)
    assert (null_mx.outcome, null_mx.bounce_class, null_mx.enhanced) == (
        Outcome.BOUNCED,
        BounceClass.INVALID,
        "5.1.10",
    )
    assert from_error(ErrorKind.NO_DOMAIN, Stage.CONNECT).bounce_class is BounceClass.INVALID
    assert from_error(ErrorKind.DNS_TEMPORARY, Stage.CONNECT).scope is Scope.LANE
    assert {from_error(kind, Stage.CONNECT).code for kind in ErrorKind} == {0}
