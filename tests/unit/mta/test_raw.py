"""A message that came whole goes out as it came, with our fields above it, and a signature that covers what it should."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Invalid
from gateway.mta.attachment import Attachment, pack_attachments
from gateway.mta.canonical import signed_form
from gateway.mta.keys import generate_rsa_key, public_key_txt
from gateway.mta.raw import RawStencil, join_fields, pack_raw, read_fields, unpack_raw
from gateway.mta.sign import Signer

DATE = datetime(2026, 11, 26, 14, 20, tzinfo=UTC)
OURS = {
    "headers": [("Feedback-ID", "-:site_1:transactional:gateway")],
    "fields": ("X-Gateway-Delivery", "List-Unsubscribe"),
}
VALUES = ("1024", "<https://g.example/u/" + "x" * 120 + ">")

FIELDS = st.lists(
    st.sampled_from([
        b"To: b@b.example", b"Subject:  two  spaces ", b"subject : odd", b"Date: Thu, 26 Nov 2026 14:00:00 +0000", b"DATE: x",
        b"Message-ID: <1@a.example>", b"X-Folded: a\r\n\tb\r\n  c", b"Received: by a", b"Received: by b", b"MIME-Version: 1.0",
        b"Feedback-ID: mine", b"Content-Type: text/plain", b"Empty:",
    ]),
    max_size=8,
)  # fmt: skip
BODIES = st.one_of(
    st.just(b""),
    st.lists(st.sampled_from([b"", b"a", b" a  b\t", b".", b"\xc3\xbc", b"  "]), max_size=6).map(
        lambda lines: b"".join(line + b"\r\n" for line in lines)
    ),
)


def filled(message: bytes) -> tuple[bytes, object]:
    found = RawStencil(message, **OURS).fill(
        to="b@b.example", date=DATE, message_id="dlv_1@g.example", fields=VALUES
    )  # type: ignore[arg-type]
    return found.message, found.form


@given(FIELDS, BODIES)
def test_it_ends_as_it_came_and_is_signed_as_a_whole_message_would_be(
    fields: list[bytes], body: bytes
) -> None:
    came = b"\r\n".join([b"From: a@a.example", *fields, b"", body])
    message, form = filled(came)
    assert message.endswith(came)
    assert form == signed_form(message)


@given(FIELDS, BODIES)
def test_taking_apart_and_joining_changes_nothing(fields: list[bytes], body: bytes) -> None:
    came = b"\r\n".join([b"From: a@a.example", *fields, b"", body])
    assert join_fields(*read_fields(came)) == came


@pytest.mark.parametrize(
    ("has", "missing"),
    [
        (b"Date: Thu, 26 Nov 2026 14:00:00 +0000", b"Message-ID: <dlv_1@g.example>\r\n"),
        (b"message-id: <1@a.example>", b"Date: Thu, 26 Nov 2026 14:20:00 +0000\r\n"),
    ],
)
def test_what_the_app_left_out_is_added_and_nothing_twice(has: bytes, missing: bytes) -> None:
    message, _ = filled(b"From: a@a.example\r\n" + has + b"\r\n\r\nHi.\r\n")
    header = message.partition(b"\r\n\r\n")[0].lower()
    assert missing.lower() in header + b"\r\n"
    assert header.count(b"\r\ndate:") == header.count(b"\r\nmessage-id:") == 1


def test_dkimpy_agrees() -> None:
    key = generate_rsa_key()
    stencil = RawStencil(b"From: a@a.example\r\nSubject: s\r\n\r\n  spaces \r\n\r\n", **OURS)  # type: ignore[arg-type]
    found = stencil.fill(to="b@b.example", date=DATE, message_id="1@g.example", fields=VALUES)
    signature = Signer("a.example", "s1", key).sign_form(found.form, timestamp=1_764_000_000)
    records = {b"s1._domainkey.a.example.": public_key_txt(key).encode()}
    assert dkim.DKIM(signature + found.message).verify(dnsfunc=lambda name, timeout=5: records.get(name))


def test_a_body_alone_and_a_header_alone_are_read() -> None:
    assert read_fields(b"\r\nbody\r\n") == ([], b"body\r\n")
    fields, body = read_fields(b"From: a@a.example\r\n")
    assert ([field.name for field in fields], body) == (["from"], b"")
    fields, body = read_fields(b"From: a@a.example\r\n\r\n")
    assert (len(fields), body) == (1, b"")


def test_a_kept_message_comes_back_and_nothing_else_is_taken_for_one() -> None:
    assert unpack_raw(pack_raw(b"From: a\r\n\r\n")) == b"From: a\r\n\r\n"
    for packed in (None, pack_attachments([Attachment("f", "text/plain", b"x")])):
        with pytest.raises(Invalid):
            unpack_raw(packed)


@given(
    st.lists(st.sampled_from([0, 1, 500, 996, 997, 998, 999, 1_000, 1_998, 3_000]), max_size=12),
    st.booleans(),
)
def test_the_first_line_beyond_the_limit_is_named(lengths: list[int], ended: bool) -> None:
    lines = [b"From: a@a.example", b"", *(b"x" * length for length in lengths)]
    message = b"\r\n".join([*lines, b""] if ended else lines)
    number = next((place for place, line in enumerate(lines, 1) if len(line) > 998), None)
    if number is None:
        read_fields(message)
        return
    with pytest.raises(Invalid, match=rf"^line {number} has more than 998 octets"):
        read_fields(message)


def test_a_message_of_short_lines_takes_no_more_memory_than_its_size() -> None:
    message = b"From: a@a.example\r\n\r\n" + b"ab\r\n" * 100_000
    tracemalloc.start()
    try:
        _, body = read_fields(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(body) == 400_000
    assert peak < 2 * len(message)
