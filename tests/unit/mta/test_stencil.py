"""A stencil gives each recipient what a message made for them alone would be, and the signature says the same of both."""

from __future__ import annotations

import email
import email.policy
import re
import secrets
from datetime import UTC, datetime
from email.message import Message

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import Invalid
from gateway.mta.attachment import Attachment
from gateway.mta.body import TextPart, is_plain, quoted_value
from gateway.mta.canonical import signed_form
from gateway.mta.mime import MailContent, Stencil

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BOUNDARY = "=_0123456789abcdef"
SLOTS = 3

texts = st.one_of(
    st.text(st.sampled_from(" \t\n\r.-=aé用"), max_size=40),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.sampled_from(
        [
            "",
            "x" * 73,
            "x" * 75,
            "x" * 76,
            "é" * 25,
            " ",
            "a b",
            "-" + BOUNDARY[1:],
            "=41",
            "<p>\n  ",
        ]
    ),
)
part = st.lists(st.one_of(texts, st.integers(0, SLOTS - 1)), max_size=8).map(tuple)
recipient = st.lists(texts, min_size=SLOTS, max_size=SLOTS)


def filled(content: MailContent, values: list[str]) -> tuple[bytes, bytes]:
    """The message, and that its signed form is what the whole message's would be."""
    stencil = Stencil(
        content, boundary="=_" + secrets.token_hex(12), rooms=[100] * SLOTS
    )  # nobody can guess it
    got = stencil.fill(to="b@example.net", date=DATE, message_id="1@example.org", values=values)
    assert got.form == signed_form(got.message)
    again = stencil.fill(to="b@example.net", date=DATE, message_id="1@example.org", values=values)
    assert again == got
    return got.message, got.form.body_hash


def read(message: Message) -> str:
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def joined(pieces: tuple[str | int, ...], values: list[str]) -> str:
    """What is to be read: the last line is ended, where a slot is last in any case."""
    # Each text brings its own line ends: a CR at the end of one and a LF at the start of the next are two.
    text = "".join([lines_of(p if isinstance(p, str) else values[p]) for p in pieces])
    last = next((p for p in reversed(pieces) if p != ""), "")
    return text if isinstance(last, str) and lines_of(last).endswith("\n") else text + "\n"


def lines_of(text: str) -> str:
    return re.sub(r"\r\n?", "\n", text)


@settings(max_examples=400, deadline=None)
@given(part, part, recipient)
@example(("Hello ", 0, " \n"), (0, 1), ["", "", ""])
@example(("a  b", 0, "  ", 1, " \n\n\n"), ("<p>", 2), ["x", "", "y"])
@example((0,), (), ["", "", ""])
@example(("é", 0), ("用" * 30, 0), ["x" * 80, "", ""])
def test_what_is_filled_in_is_read_as_if_it_had_stood_there(
    text: tuple[str | int, ...], html: tuple[str | int, ...], values: list[str]
) -> None:
    message, _ = filled(MailContent(sender="a@example.org", subject="Hi", text=text, html=html), values)
    assert message.isascii()
    assert message.count(b"\n") == message.count(b"\r") == message.count(b"\r\n")
    assert all(len(line) <= 998 for line in message.split(b"\r\n"))
    assert all(len(line) <= 76 for line in message.split(b"\r\n")) or b"7bit" in message
    parsed = email.message_from_bytes(message)
    assert not parsed.defects
    bodies = [read(p) for p in parsed.walk() if not p.is_multipart()]
    wanted = [joined(p, values) for p in (text, html) if p] or ["\n"]
    assert [lines_of(body) for body in bodies] == wanted


@settings(max_examples=200, deadline=None)
@given(part, recipient)
def test_a_single_part_is_signed_right_however_it_ends(
    text: tuple[str | int, ...], values: list[str]
) -> None:
    filled(MailContent(sender="a@example.org", subject="Hi", text=text), values)


@given(texts)
def test_a_quoted_value_leaves_room_for_a_soft_line_break(value: str) -> None:
    quoted = quoted_value(value)
    assert all(len(line) <= 76 for line in quoted.split(b"\r\n"))
    assert len(quoted.split(b"\r\n")[-1]) <= 75
    message = email.message_from_bytes(
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + quoted + b"=\r\n."
    )
    assert read(message).replace("\r\n", "\n") == lines_of(value) + "."


def test_plain_recipients_share_a_7bit_text_and_others_get_quoted_printable() -> None:
    content = MailContent(
        sender="a@example.org", subject="Hi", text=("Dear ", 0, ",\n"), html=("<p>", 0, "</p>")
    )
    stencil = Stencil(content, boundary=BOUNDARY, rooms=[100])
    for name, encoding in (
        ("Ann", b"7bit"),
        ("Zoë", b"quoted-printable"),
        ("Ann", b"7bit"),
        ("A\nB", b"quoted-printable"),
    ):
        message = stencil.fill(to="b@example.net", date=DATE, message_id="1@x", values=[name]).message
        assert message.count(b"Content-Transfer-Encoding: " + encoding) == 2
    assert is_plain("a=b")
    assert not is_plain("a  b")
    assert TextPart(("用" * 50, 0), "/text", [100]).base64


def test_text_html_an_image_and_two_files_stand_where_readers_look_for_them() -> None:
    content = MailContent(
        sender="Größer <a@example.org>",
        subject=("Rechnung für ", 0),
        text=("Hallo ", 0),
        html=("<p>Hallo ", 0, "<img src='cid:logo@x'></p>"),
        attachments=(
            Attachment("logo.png", "image/png", b"\x89PNG", content_id="logo@x"),
            Attachment("Rechnung für März – 2026.pdf", "application/pdf", b"%PDF" * 100),
            Attachment('a "quoted" name.txt', "text/plain", b"words\n"),
        ),
    )
    message, _ = filled(content, ["Zoë", "", ""])
    parsed = email.message_from_bytes(message)
    assert [(p.get_content_type(), p.get_filename()) for p in parsed.walk()] == [
        ("multipart/mixed", None), ("multipart/alternative", None), ("text/plain", None), ("multipart/related", None), ("text/html", None),
        ("image/png", "logo.png"), ("application/pdf", "Rechnung für März – 2026.pdf"), ("text/plain", 'a "quoted" name.txt'),
    ]  # fmt: skip
    image = next(p for p in parsed.walk() if p.get_content_type() == "image/png")
    assert (image["Content-ID"], image.get_content_disposition()) == ("<logo@x>", "inline")
    assert image.get_payload(decode=True) == b"\x89PNG"


@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\\"),
        min_size=1,
        max_size=120,
    )
)
def test_a_file_keeps_its_name(name: str) -> None:
    content = MailContent(
        sender="a@example.org", subject="", text="-", attachments=(Attachment(name, "image/png", b"x"),)
    )
    parsed = email.message_from_bytes(filled(content, [""] * SLOTS)[0])
    [file] = [p for p in parsed.walk() if p.get_content_type() == "image/png"]
    assert file.get_filename() == name.strip()  # which the parser does


@pytest.mark.parametrize("name", ["=?utf-8?q?x?=", "=?utf-8?b?eA==?=.pdf", "a =?b"])
def test_a_file_name_is_not_taken_for_an_encoded_word(name: str) -> None:
    content = MailContent(
        sender="a@example.org", subject="", text="-", attachments=(Attachment(name, "image/png", b"x"),)
    )
    parsed = email.message_from_bytes(filled(content, [""] * SLOTS)[0], policy=email.policy.default)
    [file] = [p for p in parsed.walk() if p.get_content_type() == "image/png"]
    assert file.get_filename() == name  # a reader that decodes what RFC 2047 §5 does not let stand in quotes
    assert not file["Content-Disposition"].defects


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"filename": "a\r\nX: y"}, "/attachments/0/filename"),
        ({"filename": "../x"}, "/attachments/0/filename"),
        ({"filename": ""}, "/attachments/0/filename"),
        ({"content_type": "text/plain; charset=x"}, "/attachments/0/content_type"),
        ({"content_type": "multipart/mixed"}, "/attachments/0/content_type"),
        ({"content_id": "a>b"}, "/attachments/0/content_id"),
    ],
)
def test_a_file_that_cannot_come_along_names_its_field(change: dict[str, str], pointer: str) -> None:
    file = msgspec.structs.replace(Attachment("a.png", "image/png", b""), **change)
    with pytest.raises(Invalid) as caught:
        Stencil(
            MailContent(sender="a@example.org", subject="", text="-", attachments=(file,)), boundary=BOUNDARY
        )
    assert caught.value.errors[0][0] == pointer


def test_a_subject_of_one_recipient_cannot_become_a_header() -> None:
    stencil = Stencil(
        MailContent(sender="a@example.org", subject=("Hi ", 0), text="-"), boundary=BOUNDARY, rooms=[100]
    )
    with pytest.raises(Invalid, match="control"):
        stencil.fill(to="b@example.net", date=DATE, message_id="1@x", values=["x\r\nBcc: y@example.com"])
