"""What goes in comes out of another parser, and nothing goes in that could become a header of its own."""

import email
import email.utils
import re
from datetime import UTC, datetime, timedelta, timezone
from email.header import decode_header, make_header
from email.message import Message
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Invalid
from gateway.mta.list_headers import unsubscribe_value
from gateway.mta.mime import MailContent, Stencil, build, dot_stuff

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def built(content: MailContent, *, to: str = "b@example.net", url: str = "", mailto: str = "") -> bytes:
    fields: dict[str, str] = {}
    if url:
        fields["List-Unsubscribe"] = unsubscribe_value(url, mailto)
        fields["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    stencil = Stencil(msgspec.structs.replace(content, fields=tuple(fields)), boundary="=_b0undary")
    return stencil.fill(
        to=to, message_id="1.abc@example.org", date=DATE, fields=tuple(fields.values())
    ).message


def mail(**changes: Any) -> MailContent:
    return MailContent(**{"sender": "a@example.org", "subject": "Hi", "text": "Hello", **changes})


def decoded(message: Message, name: str) -> str:
    return str(make_header(decode_header(re.sub(r"\r?\n", "", message[name]))))


def part_text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


def test_a_plain_message_to_the_byte() -> None:
    assert built(mail(sender="A. Sender <a@example.org>", reply_to="r@example.org")) == (
        b'From: "A. Sender" <a@example.org>\r\n'
        b"To: b@example.net\r\n"
        b"Subject: Hi\r\n"
        b"Date: Fri, 02 Jan 2026 03:04:05 +0000\r\n"
        b"Message-ID: <1.abc@example.org>\r\n"
        b"Reply-To: r@example.org\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hello\r\n"
    )


def test_one_click_unsubscribe_and_further_fields() -> None:
    message = email.message_from_bytes(
        built(
            mail(own=(("Feedback-ID", "1:2:marketing:gw"),), headers=(("X-Note", "größer"),)),
            url="https://x.example/u/" + "t" * 200,
            mailto="u@x.example",
        )
    )
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert (
        re.sub(r"\s+", " ", message["List-Unsubscribe"])
        == f"<https://x.example/u/{'t' * 200}>, <mailto:u@x.example>"
    )
    assert (message["Feedback-ID"], decoded(message, "X-Note")) == ("1:2:marketing:gw", "größer")


any_text = st.text(st.characters(codec="utf-8"), max_size=300)
header_text = st.text(st.characters(codec="utf-8", blacklist_categories=["Cc"]), max_size=200)


@settings(max_examples=200, deadline=None)
@given(header_text, header_text, any_text, any_text)
def test_round_trip_through_the_stdlib(subject: str, name: str, text: str, html: str) -> None:
    name = name.strip().replace("<", "").replace(">", "").replace('"', "").replace("\\", "")
    content = mail(
        sender=f"{name} <a@bücher.example>" if name else "a@bücher.example",
        subject=subject,
        text=text,
        html=html,
    )
    raw = built(content)
    assert raw == built(content)
    assert raw.count(b"\n") == raw.count(b"\r") == raw.count(b"\r\n")
    assert raw.endswith(b"\r\n")
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    assert raw.isascii()
    message = email.message_from_bytes(raw)
    assert not message.defects
    assert sorted(message.keys()).count("Subject") == 1
    assert set(message.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type",
    } | (set() if message.is_multipart() else {"Content-Transfer-Encoding"})  # fmt: skip
    assert decoded(message, "Subject") == subject
    shown, address = email.utils.parseaddr(re.sub(r"\r?\n", "", message["From"]))
    assert (str(make_header(decode_header(shown))) if shown else "", address) == (
        name,
        "a@xn--bcher-kva.example",
    )
    wanted = [re.sub(r"\r\n?", "\n", body) for body in (text, html) if body] or [""]
    parts = message.get_payload() if message.is_multipart() else [message]
    assert isinstance(parts, list)
    for part, want in zip(parts, wanted, strict=True):
        assert isinstance(part, Message)
        assert part_text(part).removesuffix("\n") == want.removesuffix("\n")


@pytest.mark.parametrize("evil", ["\r\nBcc: x@example.com", "\nBcc: x", "\r", "\x00", "a\x0bb", "=?utf-8?q?a=0d=0aBcc:_x?=",
                                  "=?utf-8?b?DQpCY2M6IHg=?=", "=?utf-8?Q?=00?="])  # fmt: skip
@pytest.mark.parametrize(
    "field", ["subject", "sender", "to", "reply_to", "unsubscribe_url", "headers", "name"]
)
def test_no_line_end_gets_into_a_header(field: str, evil: str) -> None:
    values: dict[str, object] = {
        "subject": f"Hi {evil}",
        "sender": f"A {evil} <a@example.org>",
        "reply_to": f"{evil}r@example.org",
        "headers": (("X-A", f"a{evil}"),),
    }
    more = {"to": {"to": f"b@example.net{evil}"}, "unsubscribe_url": {"url": f"https://x.example/{evil}"}}
    content = (
        mail(headers=((f"X-{evil}", "a"),))
        if field == "name"
        else mail(**{field: values[field]} if field in values else {})
    )
    with pytest.raises(Invalid) as caught:
        built(content, **more.get(field, {}))
    expected = {
        "headers": "/headers/0",
        "name": "/headers/0",
        "unsubscribe_url": ("/unsubscribe_url", "/fields/List-Unsubscribe"),
    }
    assert caught.value.errors[0][0].startswith(expected.get(field, f"/{field}"))


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (mail(sender="nobody"), "/sender"),
        (mail(headers=(("Subject", "again"),)), "/headers/0"),
        (mail(headers=(("Content-Type", "text/x"),)), "/headers/0"),
        (mail(headers=(("X-A", "b"), ("feedback-id", "1"))), "/headers/1"),
        (mail(headers=(("X A", "b"),)), "/headers/0"),
        (mail(subject="\ud800"), "/subject"),
        (mail(text="\ud800"), "/text"),
    ],
)
def test_what_cannot_be_sent_names_its_field(content: MailContent, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        built(content)
    assert caught.value.errors[0][0] == pointer


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"to": ""}, "/to"),
        ({"to": "a@example.org, b@example.org"}, "/to"),
        ({"url": "javascript:1"}, "/unsubscribe_url"),
        ({"url": "https://x.example/ü"}, "/fields/List-Unsubscribe"),
        ({"url": "https://x.example/" + "t" * 1000}, "/fields/List-Unsubscribe"),
    ],
)
def test_what_cannot_be_sent_to_one_recipient_names_its_field(more: dict[str, str], pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        built(mail(), **more)
    assert caught.value.errors[0][0] == pointer


def test_bodies_are_encoded_by_content() -> None:
    assert b"7bit" in built(mail(text="plain\n" * 100))
    assert b"quoted-printable" in built(mail(text="eine größere Nachricht"))
    assert b"quoted-printable" in built(mail(text="x" * 2000))
    assert b"base64" in built(mail(text="用户" * 200))
    assert b"base64" not in built(mail(text="<p>" + "plain words " * 100 + "ü</p>"))


def test_a_header_line_of_any_length_is_folded() -> None:
    for subject in ("word " * 400, "x" * 3000, "ü" * 500):
        raw = built(mail(subject=subject.strip()))
        assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
        assert decoded(email.message_from_bytes(raw), "Subject") == subject.strip()
    assert all(len(line) <= 78 for line in built(mail(subject="ü" * 500)).split(b"\r\n"))


def test_the_callers_own_mistakes_are_errors() -> None:
    for change in ({"message_id": "<1@x>"}, {"date": datetime(2026, 1, 1)}, {"boundary": "a b"}):  # noqa: DTZ001
        arguments: dict[str, Any] = {
            "to": "b@example.net",
            "message_id": "1@x",
            "date": DATE,
            "boundary": "b",
        } | change
        with pytest.raises(ValueError, match="expected"):
            build(mail(html="<p>"), **arguments)
    for named in ({"own": (("X-Note", "a"),)}, {"fields": ("X-Note",)}):
        with pytest.raises(ValueError, match="a site may set X-Note"):
            Stencil(mail(**named), boundary="b")
    with pytest.raises(ValueError, match="boundary occurs"):
        build(mail(text="--ba", html="<p>"), to="b@example.net", message_id="1@x", date=DATE, boundary="b")


def test_dates_are_told_in_utc() -> None:
    raw = build(
        mail(),
        to="b@example.net",
        message_id="1@x",
        date=DATE.astimezone(timezone(timedelta(hours=5))),
        boundary="b",
    )
    assert b"Date: Fri, 02 Jan 2026 03:04:05 +0000\r\n" in raw


@given(st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a", b"a.b"]), max_size=8))
def test_dot_stuffing_is_undone_by_the_receiver(lines: list[bytes]) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    stuffed = dot_stuff(message)
    received = [line[1:] if line.startswith(b".") else line for line in stuffed.split(b"\r\n")]
    assert b"\r\n".join(received) == (message or b"\r\n")
    assert not any(line == b"." for line in stuffed.split(b"\r\n"))


def test_dot_stuffing_ends_the_last_line() -> None:
    assert dot_stuff(b"a") == b"a\r\n"
