"""What an app may put into a message's header, what is taken out, and when two messages are the same."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, Invalid
from gateway.model.stream import Stream
from gateway.mta.own_headers import OWN_NAMES, OWN_PREFIXES
from gateway.submission.letter import once_key, read_letter, read_mailbox, shown

PLAIN = b"From: Ann <ann@a.example>\r\nTo: b@b.example\r\nSubject: hello\r\nMessage-ID: <1@a.example>\r\n\r\nHi.\r\n"


def letter(*fields: bytes, body: bytes = b"Hi.\r\n") -> bytes:
    return b"\r\n".join([b"From: ann@a.example", *fields, b"", body])


def test_an_ordinary_message_is_kept_as_it_came() -> None:
    found = read_letter(PLAIN)
    assert found.content == PLAIN
    assert (found.sender, found.domains, found.subject) == ("Ann <ann@a.example>", ("a.example",), "hello")
    assert (found.message_id, found.stream, found.expires_in_s) == ("<1@a.example>", Stream.TRANSACTIONAL, 0)


def test_what_is_ours_or_nobodys_is_taken_out_with_its_folds() -> None:
    found = read_letter(
        letter(b"bcc: secret@s.example,", b" other@s.example", b"Return-Path: <x@y.example>", b"Feedback-ID: a:b:c:d",
               b"X-Gateway-Delivery: 7", b"X-Gateway-Stream: marketing", b"List-Unsubscribe: <https://a.example/u>",
               b"List-Unsubscribe-Post: List-Unsubscribe=One-Click", b"Received: by a", b"DKIM-Signature: v=1")
    )  # fmt: skip
    assert found.content == letter(b"Received: by a", b"DKIM-Signature: v=1")
    assert found.stream is Stream.MARKETING


APPS = {
    "Cc", "Date", "DKIM-Signature", "From", "List-Unsubscribe", "List-Unsubscribe-Post", "Message-ID", "MIME-Version", "Received",
    "Reply-To", "Sender", "Subject", "To", "Content-",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", sorted({*OWN_NAMES, *OWN_PREFIXES, "Resent-From", "ARC-Seal", "CFBL-Address"} - APPS)
)
def test_of_the_gateways_own_fields_only_those_of_a_whole_message_stay(name: str) -> None:
    if name == "X-Gateway-":
        name = "X-Gateway-Delivery"
    field = (name + "x" * name.endswith("-")).encode() + b": claims"
    assert read_letter(letter(b"X-Before: a", field, b"X-After: b")).content == letter(
        b"X-Before: a", b"X-After: b"
    )


@pytest.mark.parametrize("name", sorted(APPS - {"From", "Sender", "Content-"}))
def test_what_a_whole_message_says_itself_stays(name: str) -> None:
    kept = letter(name.encode() + b": as it came")
    assert read_letter(kept).content == kept


def test_a_sender_field_has_a_domain_to_answer_for_too() -> None:
    found = read_letter(letter(b"Sender: Desk <desk@B.Example>"))
    assert found.domains == ("a.example", "b.example")
    with pytest.raises(Invalid, match=r"Sender: expected one mailbox"):
        read_letter(letter(b"Sender: b@b.example, <c@c.example>"))


def test_a_mailbox_beyond_its_limit_is_refused_before_it_is_looked_at() -> None:
    folded = b"\r\n ".join([b'\\"' * 450] * 140)
    assert len(folded) > 126_000
    for message in (
        b"From: " + folded + b" <a@a.example>\r\n\r\n",
        letter(b"Sender: " + folded + b" <a@a.example>"),
    ):
        with pytest.raises(Invalid, match=r"(From|Sender): 126\d{3} octets; at most 1000"):
            read_letter(message)


def test_what_is_shown_is_cut_before_it_is_decoded() -> None:
    """The standard library's search for encoded-words takes minutes for a header full of beginnings."""
    assert shown(" ".join(["=?utf-8?q?=C3=A4?="] * 1_000)) == "ä" * 105
    assert shown("a" * 5_000) == "a" * 2_000
    assert len(shown("=?utf-8?q?x" * 11_000)) <= 2_000


def test_the_apps_own_way_to_unsubscribe_stays_in_transactional_mail() -> None:
    kept = letter(b"List-Unsubscribe: <https://a.example/u>")
    assert read_letter(kept).content == kept


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"Subject: x\r\n\r\nHi.\r\n", "no From"),
        (b"\r\nHi.\r\n", "no From"),
        (letter(b"From: b@a.example"), "from stands there 2 times"),
        (letter(b"Subject: a", b"subject: b"), "subject stands there 2 times"),
        (letter(b"no field"), "line 2 of the header is no field"),
        (letter(b"Bad Name: x"), "line 2"),
        (b" folded: first\r\nFrom: a@a.example\r\n\r\n", "line 1"),
        (letter(b"X: a", b" \t"), "white space alone"),
        (letter("Subject: Größe".encode()), "subject: octets beyond ASCII"),
        (letter(b"Subject: =?utf-8?q?a=0D=0ABcc:_x?="), "subject: line end"),
        (letter(b"Subject: a\x07b"), "control character U+0007"),
        (letter(b"X-Gateway-Stream: urgent"), "transactional or marketing"),
        (letter(b"X-Gateway-Tag: a"), "x-gateway-tag is not known"),
        (letter(b"X-Gateway-Expires-In: 5"), "from 60 to"),
        (letter(b"X-Gateway-Expires-In: soon"), "from 60 to"),
        (letter(b"X-Gateway-Expires-In: 000000060999999999999"), "from 60 to"),
        (letter(*[b"Received: by a"] * 101), "a loop"),
        (letter(*[b"X: a"] * 501), "header fields"),
        (letter(*[b"X: " + b"a" * 900] * 150), "octets; at most 131072"),
        (letter(body=b"x" * 999 + b"\r\n"), "line 3 has more than 998"),
        (b"From: a@a.example, b@b.example\r\n\r\n", "From: "),
        (b"From: a@evil.example, B <b@a.example>\r\n\r\n", "one mailbox"),
        (b"From: <a@evil.example> <b@a.example>\r\n\r\n", "one mailbox"),
        (b'From: "a@evil.example <b@a.example>\r\n\r\n', "one mailbox"),
        (b'From: "a" \\" <b@a.example>\r\n\r\n', "one mailbox"),
        (b"From: group: a@a.example;\r\n\r\n", "From: "),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_with_its_place(message: bytes, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_letter(message)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("value", "sender", "domain"),
    [
        ("a@A.Example", "a@a.example", "a.example"),
        ("<a@a.example>", "a@a.example", "a.example"),
        ("Dr. A <a@a.example>", "Dr. A <a@a.example>", "a.example"),
        ('"A, B: C" <a@a.example>', "A, B: C <a@a.example>", "a.example"),
        ("=?utf-8?q?Gr=C3=B6=C3=9Fe?= <a@a.example>", "Größe <a@a.example>", "a.example"),
        ("=?nonsense?q?a?= <a@a.example>", "=?nonsense?q?a?= <a@a.example>", "a.example"),
    ],
)
def test_from_is_read_for_people_and_for_its_domain(value: str, sender: str, domain: str) -> None:
    assert read_mailbox(value, "From") == (sender, domain)


@given(st.text(max_size=60))
def test_a_header_value_for_people_is_printable_whatever_it_was(value: str) -> None:
    assert shown(value).isprintable()


@given(st.binary(max_size=300))
def test_no_octets_do_more_than_be_refused(content: bytes) -> None:
    try:
        found = read_letter(content.replace(b"\r", b"").replace(b"\n", b"\r\n"))
    except GatewayError:
        return
    assert found.domains


def test_a_message_is_the_same_when_only_its_trace_differs() -> None:
    first = read_letter(b"Received: by a; today\r\n" + PLAIN)
    again = read_letter(b"Received: by b; tomorrow\r\nDKIM-Signature: v=1; t=2\r\n" + PLAIN)
    assert first.digest == again.digest
    assert first.digest != read_letter(PLAIN.replace(b"Hi.", b"Ho.")).digest
    assert first.digest != read_letter(b"X-Gateway-Stream: marketing\r\n" + PLAIN).digest


def test_recipients_belong_to_the_key_and_their_order_does_not() -> None:
    assert once_key("<1@a>", ["a@a.example", "b@b.example"]) == once_key(
        "<1@a>", ["b@b.example", "a@a.example"]
    )
    assert once_key("<1@a>", ["a@a.example"]) != once_key("<1@a>", ["b@b.example"])
    assert once_key("<1@a>", ["a@a.example"]) != once_key("<2@a>", ["a@a.example"])


def _nested(depth: int) -> bytes:
    head = b"From: a@acme.example\r\nMIME-Version: 1.0\r\n"
    opened = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth)
    )
    return head + opened + b"\r\nhello\r\n" + b"".join(b"--b%d--\r\n" % n for n in reversed(range(depth)))


_HEAD = b"From: a@acme.example\r\nMIME-Version: 1.0\r\n"
_PART = b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (_HEAD + b"X: y\r\n" * 100_000 + b"\r\nhello\r\n", "a header of"),
        (_HEAD + b"X: y\r\n" * 600 + b"\r\nhello\r\n", "header fields; at most"),
        (_HEAD + b"Subject: " + b"a\r\n " * 40_000 + b"\r\n\r\nhello\r\n", "a header of"),
        (_HEAD + b"Subject: " + b"=?utf-8?q?a?= " * 8_000 + b"\r\n\r\nhello\r\n", "octets"),
        (_nested(3_000), ""),
        (_HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + _PART * 100_000 + b"--b--\r\n", ""),
    ],
    ids=["100,000 fields", "600 fields", "40,000 folds", "8,000 encoded-words", "3,000 nested parts", "100,000 parts"],
)  # fmt: skip
def test_a_bomb_is_refused_or_costs_little_more_than_its_size(message: bytes, says: str) -> None:
    tracemalloc.start()
    try:
        if says:
            with pytest.raises(Invalid, match=says):
                read_letter(message)
        else:
            assert read_letter(message).sender == "a@acme.example"
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * len(message) + 1_048_576
