"""The sink's session: SMTP's order of things, and that no split of the input changes what it does."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.load.desk import Desk
from bench.load.ledger import parse
from bench.load.session import Ending, Session, algorithms, headers
from bench.load.world import named

HELLO = b"EHLO me\r\n"


def envelope(*recipients: str) -> bytes:
    return (
        b"MAIL FROM:<a@gw>\r\n" + b"".join(b"RCPT TO:<%s>\r\n" % r.encode() for r in recipients) + b"DATA\r\n"
    )


def content(number: int, body: bytes = b"hello\r\n") -> bytes:
    return b"Subject: x\r\nMessage-ID: <%d@gw>\r\n\r\n%s.\r\n" % (number, body)


def play(*chunks: bytes, desk: Desk | None = None) -> tuple[list[int], list[list[str]], Session]:
    """Reply codes (multi-line replies once), ledger lines without their times, and the session after ``chunks``."""
    desk = desk or Desk(named("accept"))
    session = Session(desk)
    replies, lines = session.take_replies(), b""
    for now, chunk in enumerate(chunks):
        session.receive(chunk, float(now))
        while session.pause_s:
            session.resume(float(now))
        lines += desk.take_lines()
        replies += session.take_replies()
    codes = [int(code) for code in re.findall(rb"^(\d{3}) ", replies, re.MULTILINE)]
    fields = [line.split("\t") for line in lines.decode().splitlines()]
    return codes, [[kind, *rest] for kind, _, *rest in fields], session


def test_pipelined_message_in_one_chunk() -> None:
    codes, lines, session = play(HELLO + envelope("ok@X.test") + content(1) + b"QUIT\r\n")
    assert codes == [220, 250, 250, 250, 354, 250, 221]
    assert lines == [["accepted", "250", "1", "41", "ok@x.test", "1@gw", ""]]
    assert session.ending is Ending.CLOSE


def test_each_recipient_gets_its_own_answer_and_line() -> None:
    codes, lines, _ = play(HELLO + envelope("ok@x", "unknown@x", "grey1@x", "ok.2@x") + content(1))
    assert codes == [220, 250, 250, 250, 550, 451, 250, 354, 250]
    assert [(line[0], line[4]) for line in lines] == [
        ("refused", "unknown@x"),
        ("refused", "grey1@x"),
        ("accepted", "ok@x"),
        ("accepted", "ok.2@x"),
    ]


def test_421_in_a_pipeline_leaves_the_rest_unread() -> None:
    codes, lines, session = play(HELLO + envelope("ok@x", "rate421@x", "ok.2@x"))
    assert codes == [220, 250, 250, 250, 421]
    assert [line[0] for line in lines] == ["refused"]
    assert session.ending is Ending.CLOSE


@pytest.mark.parametrize(
    ("recipient", "line", "codes", "ending"),
    [
        ("policy@x", ["refused", "554", "1"], [354, 554], Ending.OPEN),
        ("dropdata@x", ["dropped", "0", "0"], [], Ending.CLOSE),
        ("lostdot@x", ["dropped", "0", "0"], [354], Ending.CLOSE),
        ("dropdot@x", ["accepted", "0", "0"], [354], Ending.CLOSE),
        ("hang@x", ["accepted", "0", "0"], [354], Ending.OPEN),
        ("badreply@x", ["accepted", "0", "0"], [354], Ending.OPEN),
        ("resetafter@x", ["accepted", "250", "1"], [354, 250], Ending.RESET),
        ("slow9@x", ["accepted", "250", "1"], [354, 250], Ending.OPEN),
    ],
)
def test_behaviours_after_data(recipient: str, line: list[str], codes: list[int], ending: Ending) -> None:
    said, lines, session = play(HELLO + envelope(recipient) + content(1))
    assert said[4:] == codes
    assert [found[:3] for found in lines] == [line]
    assert session.ending is ending


def test_second_try_of_a_dropped_message_is_a_duplicate() -> None:
    desk = Desk(named("accept"))
    message = HELLO + envelope("dropdot@x") + content(1)
    first, second = play(message, desk=desk), play(message, desk=desk)
    assert second[0][-1] == 250
    assert [line[2] for line in first[1] + second[1]] == ["0", "1"]


def test_the_worst_recipient_decides_at_the_dot() -> None:
    codes, lines, _ = play(HELLO + envelope("ok@x", "policy@x") + content(1))
    assert codes[-1] == 554
    assert [line[0] for line in lines] == ["refused", "refused"]


def test_a_peer_that_leaves_while_it_waits_was_not_told() -> None:
    desk = Desk(named("accept"))
    session = Session(desk)
    session.receive(HELLO + envelope("slow60000@x") + content(1), 0.0)
    assert session.pause_s == 60.0
    assert desk.take_lines() == b""
    session.lost(1.0)
    ledger = parse([desk.take_lines().decode()])
    assert ledger.unreplied == {"1@gw slow60000@x"}
    assert ledger.replied == set()


def test_what_is_pipelined_behind_a_pause_waits_for_it() -> None:
    session = Session(Desk(named("accept")))
    session.receive(HELLO + envelope("slow50@x") + content(1) + b"NO", 0.0)
    session.take_replies()
    session.receive(b"OP\r\n", 0.1)
    assert session.take_replies() == b""
    session.resume(0.2)
    assert [line[:3] for line in session.take_replies().splitlines()] == [b"250", b"250"]


def test_hide_keeps_exactly_one_answered_message_out() -> None:
    desk = Desk(named("accept"), hide=True)
    stream = HELLO + b"".join(
        envelope(r) + content(n) for n, r in enumerate(("unknown@x", "a@x", "b@x", "c@x"))
    )
    codes, lines, _ = play(stream.replace(b"DATA\r\n" + content(0), b"RSET\r\n"), desk=desk)
    assert codes.count(354) == 3
    assert [line[4] for line in lines if line[0] == "accepted"] == ["b@x", "c@x"]
    assert desk.accepts == 3


@pytest.mark.parametrize(
    ("stream", "codes"),
    [
        (b"MAIL FROM:<a@x>\r\n", [503]),
        (HELLO + b"RCPT TO:<a@x>\r\n", [250, 503]),
        (HELLO + b"DATA\r\n", [250, 503]),
        (HELLO + b"MAIL FROM:<>\r\nDATA\r\n", [250, 250, 554]),
        (HELLO + b"MAIL FROM:<>\r\nMAIL FROM:<>\r\n", [250, 250, 503]),
        (HELLO + b"MAIL FROM:<>\r\nRSET\r\nDATA\r\n", [250, 250, 250, 503]),
        (HELLO + b"mail from:<> BODY=8BITMIME SMTPUTF8 SIZE=99\r\n", [250, 250]),
        (HELLO + b"MAIL FROM:<> SIZE=99999999999\r\n", [250, 552]),
        (HELLO + b"MAIL FROM: a@x\r\n", [250, 501]),
        (HELLO + b"MAIL FROM:<>\r\nRCPT TO:a@x\r\n", [250, 250, 501]),
        (b"HELO me\r\nNOOP\r\nnoop\r\nVRFY a\r\n", [250, 250, 250, 252]),
        (b"BDAT 3\r\nNOOPS\r\n\r\n", [500, 500, 500]),
        (b"x" * 5000, [500]),
    ],
)
def test_commands_out_of_order(stream: bytes, codes: list[int]) -> None:
    assert play(stream)[0] == [220, *codes]


def test_refusing_door_answers_ehlo_and_takes_nothing() -> None:
    session = Session(Desk(named("accept")), b"554 5.7.1 not you")
    session.receive(HELLO + b"MAIL FROM:<>\r\n", 0.0)
    assert [line[:3] for line in session.take_replies().splitlines()] == [b"220", b"554", b"503"]


@pytest.mark.parametrize(
    "body", [b"", b"\r\n", b"a\r\n", b"..\r\n", b"...\r\n..a\r\n", b"a\r\n..\r\n\r\n..\r\n"]
)
def test_size_is_what_was_on_the_wire(body: bytes) -> None:
    _, lines, _ = play(HELLO + envelope("a@x") + body + b".\r\n")
    assert [int(line[3]) for line in lines] == [len(body)]


@pytest.mark.parametrize(
    ("head", "ids"),
    [
        (b"\r\nMessage-ID: <1@gw>\r\n\r\n", (b"1@gw", b"")),
        (b"\r\nmessage-id:<1@gw>\r\nX-Gateway-Delivery: d-1\r\n\r\n", (b"1@gw", b"d-1")),
        (b"\r\nMessage-ID:\r\n <1@gw>\r\nTo: x\r\n\r\n", (b"1@gw", b"")),
        (b"\r\nTo: x\r\n\r\nMessage-ID: <body@gw>\r\n", (b"", b"")),
        (b"\r\nResent-Message-ID: <0@gw>\r\nMessage-ID: <1@gw>\r\n", (b"1@gw", b"")),
        (b"\r\n\r\nMessage-ID: <body@gw>\r\n", (b"", b"")),
    ],
)
def test_headers_of_a_head(head: bytes, ids: tuple[bytes, bytes]) -> None:
    assert headers(head) == ids


LINES = st.lists(
    st.sampled_from([b"", b".", b"..", b"a", b"Message-ID: <9@no>", b"x" * 70, b".\r", b"\n."]), max_size=8
)
MESSAGES = st.lists(
    st.tuples(
        st.lists(
            st.sampled_from(
                ["ok@x", "grey1@x", "unknown@x", "policy@x", "dropdot@x", "slow5@x", "Ann@Y.Test"]
            ),
            min_size=1,
            max_size=3,
        ),
        LINES,
    ),
    max_size=4,
)


@given(MESSAGES, st.lists(st.integers(0, 2_000), max_size=30))
@example([(["ok@x"], [b".", b".."])], list(range(500)))
def test_no_split_changes_replies_or_ledger(
    messages: list[tuple[list[str], list[bytes]]], cuts: list[int]
) -> None:
    stream = HELLO
    for number, (recipients, lines) in enumerate(messages):
        body = b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines)
        stream += envelope(*recipients) + content(number, body)
    stream += b"QUIT\r\n"
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    whole, split = play(stream), play(*chunks)
    assert split[:2] == whole[:2]
    assert split[2].ending is whole[2].ending


def test_byte_by_byte() -> None:
    stream = (
        HELLO
        + envelope("ok@x", "unknown@x")
        + content(1, b"..\r\n...\r\n\r\n")
        + envelope("b@x")
        + content(2)
    )
    assert play(*(stream[i : i + 1] for i in range(len(stream))))[:2] == play(stream)[:2]


def test_starttls_is_taken_where_it_is_offered_and_begins_anew() -> None:
    session = Session(Desk(named("accept")), offers_tls=True)
    session.receive(HELLO, 0.0)
    assert b"250-STARTTLS\r\n" in session.take_replies()
    session.receive(b"STARTTLS\r\n" + envelope("injected@x"), 0.0)
    assert session.take_replies().startswith(b"220 ")
    assert session.ending is Ending.SECURE
    session.secured()
    session.receive(envelope("ok@x"), 0.0)
    assert session.take_replies().startswith(b"503 ")  # EHLO has to be said again, and nothing was left over
    session.receive(HELLO + envelope("ok@x"), 0.0)
    replies = session.take_replies()
    assert b"STARTTLS" not in replies
    assert replies.endswith(b"354 go on\r\n")


def test_starttls_is_unknown_where_it_is_not_offered() -> None:
    codes, _, session = play(HELLO + b"STARTTLS\r\nNOOP\r\n")
    assert codes == [220, 250, 500, 250]
    assert session.ending is Ending.OPEN


def test_the_desk_keeps_the_last_head() -> None:
    desk = Desk(named("accept"))
    play(HELLO + envelope("ok@x") + content(1) + envelope("ok@x") + content(2), desk=desk)
    assert headers(desk.last_head)[0] == b"2@gw"


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"\r\nFrom: a@b\r\n\r\nDKIM-Signature: v=1; a=rsa-sha256;", []),
        (b"\r\nDKIM-Signature: v=1; a=rsa-sha256; d=a.test\r\nFrom: a@b\r\n\r\n", ["rsa-sha256"]),
        (
            b"\r\nDKIM-Signature: v=1;\r\n\ta=rsa-sha256; d=a.test;\r\n\tb=aa=\r\ndkim-signature: a=ed25519-sha256; v=1\r\n",
            ["rsa-sha256", "ed25519-sha256"],
        ),
    ],
)
def test_algorithms_of_the_signatures(head: bytes, found: list[str]) -> None:
    assert algorithms(head) == found
