"""What an app's own message must be, and what is kept of it. Pure.

Owns which header fields are the app's and which are ours, the `X-Gateway-` fields by which an app says more than SMTP can, and
the key under which a message is known again. Must not know sockets, the database, or how it is sent (`mta/raw`). RFC 6409 §8,
RFC 5322 §3.6.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Final

import msgspec

from gateway.errors import Invalid
from gateway.model.address import AddressError, parse
from gateway.model.stream import Stream
from gateway.mta.header import check_value, join_mailbox, split_mailbox
from gateway.mta.raw import RawField, join_fields, read_fields

STREAM: Final = "x-gateway-stream"
EXPIRES_IN: Final = "x-gateway-expires-in"
EXPIRES_IN_S: Final = (60, 2_592_000)
"""Least and most, as in `POST /v1/messages`."""

_PREFIX: Final = "x-gateway-"
_OURS: Final = frozenset({"bcc", "resent-bcc", "return-path", "feedback-id", "x-gateway-delivery"})
"""Taken out: they are nobody's business, or ours to say."""
_OURS_IN_MARKETING: Final = frozenset({"list-unsubscribe", "list-unsubscribe-post"})
_TRACE: Final = frozenset({"received", "dkim-signature", "arc-seal", "arc-message-signature", "arc-authentication-results", "authentication-results"})  # fmt: skip
"""Kept, but not part of what makes two messages the same: relays on the way may write them anew with each try."""
_ONCE: Final = frozenset({
    "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references", "mime-version",
    "content-type", "content-transfer-encoding", STREAM, EXPIRES_IN,
})  # fmt: skip
_RECEIVED_LIMIT: Final = 100  # RFC 5321 §6.3
_SHOWN_LIMIT: Final = 2_000
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_AMBIGUOUS: Final = re.compile(r'[,;:@<>()"\[\]\\]')


class Letter(msgspec.Struct, frozen=True):
    """A checked message.

    `sender` and `subject` are for people, `domain` is that of From in lower case; `message_id` as it came, or empty;
    `content` is what is kept; `expires_in_s` 0: as its stream does.
    """

    sender: str
    domain: str
    subject: str
    message_id: str
    stream: Stream
    expires_in_s: int
    content: bytes
    digest: bytes


def read_letter(message: bytes) -> Letter:
    """Check a whole message (CRLF line ends) and take out what is not to be sent.

    Raises:
        Invalid: says which field or line, and what would be right.
    """
    fields, body = read_fields(message)
    values = _checked_values(fields)
    if "from" not in values:
        raise Invalid([("", "no From field; expected one, with an address of a verified domain")])
    sender, domain = read_from(values["from"])
    stream = _stream(values.get(STREAM, Stream.TRANSACTIONAL))
    gone = _OURS | _OURS_IN_MARKETING if stream is Stream.MARKETING else _OURS
    kept = [field for field in fields if field.name not in gone and not field.name.startswith(_PREFIX)]
    expires_in_s = _seconds(values[EXPIRES_IN]) if EXPIRES_IN in values else 0
    hashed = hashlib.sha256(f"{stream} {expires_in_s}\n".encode())
    hashed.update(join_fields([field for field in kept if field.name not in _TRACE], body))
    return Letter(
        sender=sender,
        domain=domain,
        subject=shown(values.get("subject", "")),
        message_id=values.get("message-id", ""),
        stream=stream,
        expires_in_s=expires_in_s,
        content=join_fields(kept, body),
        digest=hashed.digest(),
    )


def read_from(value: str) -> tuple[str, str]:
    """Return From for people and its domain in lower case. One mailbox: with more, it would not be clear who answers for it.

    Raises:
        Invalid: no mailbox, or more than one.
    """
    display, address = split_mailbox(value)
    outside = _QUOTED.sub("", value.rpartition("<")[0]) if address != value.strip() else ""
    if _AMBIGUOUS.search(outside):
        raise Invalid([("", 'From: expected one mailbox; a name with , ; : @ ( ) < > stands in "quotes"')])
    try:
        parsed = parse(address.strip())
    except AddressError as error:
        raise Invalid([("", f"From: {error}")]) from error
    name = shown(display).replace("<", "").replace(">", "")[:200]
    return join_mailbox(name.strip(), parsed.wire), parsed.domain


def shown(value: str) -> str:
    """Return a header value for people: encoded-words read where they can be, nothing that a terminal would obey."""
    if "=?" in value:
        with suppress(HeaderParseError, LookupError, ValueError):
            value = str(make_header(decode_header(value)))
    value = value.encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() else " " for char in value)[:_SHOWN_LIMIT]


def once_key(message_id: str, recipients: Sequence[str]) -> str:
    """Return the key under which a message is known again: its Message-ID to these recipients, in whatever order.

    The recipients belong to it: a client that splits a long list over several transactions gives each the same Message-ID.
    """
    known = "\n".join([message_id, *sorted(recipients)])
    return f"message-id:{hashlib.sha256(known.encode()).hexdigest()}"


def _checked_values(fields: Sequence[RawField]) -> dict[str, str]:
    """Values by name; of fields that may come more than once, the last."""
    values: dict[str, str] = {}
    for field in fields:
        try:
            value = field.value.decode("ascii")
        except UnicodeDecodeError:
            raise Invalid(
                [("", f"{field.name}: octets beyond ASCII; expected encoded words (RFC 2047)")]
            ) from None
        try:
            check_value(value, "")
        except Invalid as error:
            raise Invalid([("", f"{field.name}: {error}")]) from error
        values[field.name] = value
    counts = Counter(field.name for field in fields)
    for name in _ONCE & counts.keys():
        if counts[name] > 1:
            raise Invalid(
                [("", f"{name} stands there {counts[name]} times; at most once (RFC 5322 section 3.6)")]
            )
    if counts["received"] > _RECEIVED_LIMIT:
        raise Invalid([("", f"{counts['received']} Received fields: a loop")])
    for name in counts:
        if name.startswith(_PREFIX) and name not in (STREAM, EXPIRES_IN, "x-gateway-delivery"):
            raise Invalid([("", f"{name} is not known; there are {STREAM} and {EXPIRES_IN}")])
    return values


def _stream(value: str) -> Stream:
    try:
        return Stream(value.lower())
    except ValueError:
        raise Invalid([("", f"{STREAM}: expected {' or '.join(Stream)}")]) from None


def _seconds(value: str) -> int:
    least, most = EXPIRES_IN_S
    if not value.isdecimal() or not least <= int(value[:9]) <= most:
        raise Invalid([("", f"{EXPIRES_IN}: expected seconds from {least} to {most}")])
    return int(value)
