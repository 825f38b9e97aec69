"""What leaves, to the octet: line ends made canonical, then signed, then dot-stuffed; and what the signature covers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import dkim
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config
from gateway.dispatch.content import Contents
from gateway.dispatch.message import Unsendable, names_of
from gateway.model.delivery import Leased
from gateway.mta.keys import generate_rsa_key, public_key_txt, seal

MASTER = b"k" * 32
NOW = datetime.now(UTC)  # the verifier looks at x=
OVERSIGNED = ("from", "to", "cc", "subject", "date", "reply-to", "message-id")
LEFT_OUT = {"x-own", "x-gateway-delivery"}
"""What relays may change, and what means nothing to a receiver."""


@cache
def key() -> bytes:
    return generate_rsa_key()


def made(variables: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """The content of one delivery, as DATA has it, without the final dot."""
    row: dict[str, Any] = {
        "id": 1, "site_id": 1, "broadcast_id": None, "stream": "transactional", "sender": "Größe <a@a.example>", "reply_to": "", "subject": "s",
        "html": "", "text": "t", "headers": None, "template": "" if variables is None else "inline", "attachments": None, "domain_id": 1,
        "domain": "a.example", "selector": "s1", "algorithm": "rsa-sha256", "private_key_sealed": seal(key(), MASTER, "a.example"),
        "further_keys": "[]",
    }  # fmt: skip
    contents = Contents(names_of(Config()), MASTER)
    contents.add([1], [row | changes])
    return contents.make(
        Leased(
            id=1_024, epoch=1, lane_id=1, site_id=1, message_id=1, broadcast_id=0, priority=0, attempts=0, crashes=0, doubts=0,
            recipient="b@c.example", variables=None if variables is None else msgspec.json.encode(variables).decode(), accepted_at=NOW,
            expires_at=NOW + timedelta(days=2), suppressed=False, planned_at=0.0, late_at=0.0, last_moment=0.0,
        )
    ).content  # fmt: skip


def received(content: bytes) -> bytes:
    """What a receiver has after it has undone the stuffing (RFC 5321 §4.5.2)."""
    return b"\r\n".join([line[1:] if line.startswith(b".") else line for line in content.split(b"\r\n")])


def verifies(message: bytes) -> bool:
    txt = public_key_txt(key()).encode()
    return bool(
        dkim.verify(
            message, dnsfunc=lambda name, timeout=5: txt if name == b"s1._domainkey.a.example." else None
        )
    )


def signature_of(message: bytes) -> dict[str, str]:
    """The tags of the one signature."""
    unfolded = re.sub(rb"\r\n[ \t]+", b"", message.partition(b"\r\n\r\n")[0]).decode()
    (field,) = [line for line in unfolded.split("\r\n") if line.startswith("DKIM-Signature:")]
    return {
        name.strip(): value
        for name, _, value in (tag.partition("=") for tag in field[15:].split(";"))
        if value
    }


def names_of_fields(message: bytes) -> list[str]:
    header = message.partition(b"\r\n\r\n")[0]
    return [
        line.partition(b":")[0].lower().decode()
        for line in header.split(b"\r\n")
        if line[:1] not in (b" ", b"\t")
    ]


# Lines that could end DATA for some receiver (CVE-2023-51764 and its kin), and what stands around them.
SMUGGLED = st.lists(
    st.sampled_from(
        ["\n.\n", "\r.\r", "\n.\r\n", "\r\n.\r\n", "\r\n.\n", ".", "..", ".\r", "a", " ", "=\r\n.", "ü", "\0", "\x85.\u2028", "x" * 90]
    ),
    max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(text=SMUGGLED, html=SMUGGLED, value=SMUGGLED)
def test_line_ends_are_made_canonical_then_signed_then_dots_are_stuffed(
    text: str, html: str, value: str
) -> None:
    content = made({"v": value}, text=f"{text}{{{{ v }}}}", html=f"{html}<p>{{{{ v }}}}</p>")
    assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n"), "no bare CR or LF"
    assert content.endswith(b"\r\n")
    assert b"\r\n.\r\n" not in content, "nothing ends DATA but our own dot"
    assert not content.startswith(b".")
    assert all(line.startswith(b"..") for line in content.split(b"\r\n") if line.startswith(b"."))
    assert verifies(received(content)), "the signature is over what the receiver sees, not over the stuffing"


def test_a_line_of_dots_is_signed_as_it_was_and_stuffed_on_the_way() -> None:
    content = made(text=".hidden\n..\nend")
    assert b"\r\n..hidden\r\n...\r\nend\r\n" in content
    assert b"\r\n.hidden\r\n..\r\nend\r\n" in received(content)
    assert verifies(received(content))
    assert not verifies(content)


@pytest.mark.parametrize("stream", ["transactional", "marketing"])
def test_what_is_signed_and_oversigned_and_never_a_length(stream: str) -> None:
    message = received(
        made(
            stream=stream, reply_to="r@a.example", html="<p>ü</p>", headers='{"X-Own": "x", "List-Id": "<l.a.example>", "In-Reply-To": "<1@b>"}'
        )
    )  # fmt: skip
    tags = signature_of(message)
    assert "l" not in tags
    assert (tags["a"], tags["c"], tags["d"]) == ("rsa-sha256", "relaxed/relaxed", "a.example")
    assert int(tags["x"]) > (NOW + timedelta(days=2)).timestamp(), "a little beyond the delivery's expiry"
    there = [name for name in names_of_fields(message) if name != "dkim-signature"]
    signed = tags["h"].split(":")
    assert {name: signed.count(name) for name in {*there, *signed}} == {
        name: 0 if name in LEFT_OUT else there.count(name) + (name in OVERSIGNED)
        for name in {*there, *signed}
    }
    assert set(OVERSIGNED) < set(signed)
    if stream == "marketing":
        assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(signed)


@pytest.mark.parametrize("added", ["From", "To", "Cc", "Subject", "Date", "Reply-To", "Message-ID"])
def test_no_field_can_be_added_behind_our_back(added: str) -> None:
    message = received(made(stream="marketing"))
    assert verifies(message)
    assert not verifies(f"{added}: x@y.example\r\n".encode() + message)
    assert not verifies(message + b"more\r\n")


EVIL: Sequence[str] = (
    "a\r\nBcc: x@y.example",
    "a\nBcc: x",
    "\r",
    "=?utf-8?q?=0D=0ABcc:_x?=",
    "=?utf-8?b?DQo?=",
)


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize(
    "subject",
    ["Hi {{ v }}", "Hi {{ v | append: '!' }}", "{% if v %}{{ v }}{% endif %}", "{% assign w = v %}{{ w }}"],
)
def test_a_recipients_values_cannot_become_a_header(subject: str, evil: str) -> None:
    with pytest.raises(Unsendable, match="subject") as caught:
        made({"v": evil}, subject=subject)
    assert caught.value.for_good
    assert "Bcc" not in str(caught.value)


@pytest.mark.parametrize("subject", ["{{ '%0D%0ABcc:%20x' | url_decode }}", "{{ 'DQpCY2M6IHg=' | base64_decode }}", "{{ '=' }}?utf-8?q?=0D=0A?="])  # fmt: skip
def test_a_template_cannot_make_itself_a_header(subject: str) -> None:
    with pytest.raises(Unsendable, match="subject"):
        made({}, subject=subject)


@settings(max_examples=30, deadline=None)
@given(
    value=st.text(st.sampled_from("aü=?:,;<>\"'()@\\ \t._-QqbB8tfu0ADd\u2028\u0085")),
    sender=st.text(st.sampled_from("aü=?:,;\"'()@\\ _qQ80D"), max_size=30),
)
def test_whatever_is_taken_adds_no_field(value: str, sender: str) -> None:
    try:
        message = made(
            {"v": value},
            subject="S {{ v }}",
            sender=f"{sender} <a@a.example>",
            headers=msgspec.json.encode({"X-Own": value}).decode(),
        )
    except Unsendable:
        return
    names = names_of_fields(message)
    assert names == [
        "dkim-signature", "from", "to", "subject", "date", "message-id", "x-own", "feedback-id", "x-gateway-delivery", "mime-version",
        "content-type", "content-transfer-encoding",
    ]  # fmt: skip
    assert message.partition(b"\r\n\r\n")[0].isascii()
    assert verifies(message)
