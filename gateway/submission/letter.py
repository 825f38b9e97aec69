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
from gateway.mta.own_headers import is_own
from gateway.mta.raw import RawField, join_fields, read_fields

STREAM: Final = "x-gateway-stream"
EXPIRES_IN: Final = "x-gateway-expires-in"
EXPIRES_IN_S: Final = (60, 2_592_000)
"""Least and most, as in `POST /v1/messages`."""

_PREFIX: Final = "x-gateway-"
_APPS: Final = frozenset({
    "cc", "date", "dkim-signature", "from", "list-unsubscribe", "list-unsubscribe-post", "message-id", "mime-version", "received", "reply-to",
    "sender", "subject", "to",
})  # fmt: skip
_APPS_FAMILY: Final = "content-"
"""Of the gateway's own fields (`mta/own_headers`) those that a whole message brings along; all others are taken out: they are nobody's
business (Bcc), ours to say, or what hosts on the way would have written, and would be believed."""
_OURS_IN_MARKETING: Final = frozenset({"list-unsubscribe", "list-unsubscribe-post"})
_TRACE: Final = frozenset({"received", "dkim-signature"})
"""Kept, but not part of what makes two messages the same: relays on the way may write them anew with each try."""
_ONCE: Final = frozenset({
    "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references", "mime-version",
    "content-type", "content-transfer-encoding", STREAM, EXPIRES_IN,
})  # fmt: skip
_RECEIVED_LIMIT: Final = 100  # RFC 5321 §6.3
_SHOWN_LIMIT: Final = 2_000
_MAILBOX_LIMIT: Final = 1_000
"""Octets of a From or Sender without its folds: an address has 254, and a name of 200 characters in encoded-words fits beside it."""
# What may stand before the address: nothing that separates mailboxes, but in quotes. Possessive: one pass, whatever is unclosed.
_ONE_NAME: Final = re.compile(r'(?:[^,;:@<>()"\[\]\\]|"(?:[^"\\]|\\.)*+")*+')


class Letter(msgspec.Struct, frozen=True):
    """A checked message.

    `sender` and `subject` are for people; `domains` are those of From and, where there is one, of Sender, in lower case; `message_id` as it
    came, or empty; `content` is what is kept; `expires_in_s` 0: as its stream does.
    """

    sender: str
    domains: tuple[str, ...]
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
    sender, domain = read_mailbox(values["from"], "From")
    domains = (domain,)
    if "sender" in values:
        domains = (domain, read_mailbox(values["sender"], "Sender")[1])
    stream = _stream(values.get(STREAM, Stream.TRANSACTIONAL))
    kept = [field for field in fields if not _is_taken_out(field.name, stream)]
    expires_in_s = _seconds(values[EXPIRES_IN]) if EXPIRES_IN in values else 0
    hashed = hashlib.sha256(f"{stream} {expires_in_s}\n".encode())
    hashed.update(join_fields([field for field in kept if field.name not in _TRACE], body))
    return Letter(
        sender=sender,
        domains=domains,
        subject=shown(values.get("subject", "")),
        message_id=values.get("message-id", ""),
        stream=stream,
        expires_in_s=expires_in_s,
        content=join_fields(kept, body),
        digest=hashed.digest(),
    )


def read_mailbox(value: str, field: str) -> tuple[str, str]:
    """Return the mailbox of a From or Sender for people, and its domain in lower case.

    One mailbox: with more, it would not be clear who answers for it.

    Raises:
        Invalid: no mailbox, or more than one; names the `field`.
    """
    if len(value) > _MAILBOX_LIMIT:
        raise Invalid([("", f"{field}: {len(value)} octets; at most {_MAILBOX_LIMIT}")])
    display, address = split_mailbox(value)
    if address != value.strip() and not _ONE_NAME.fullmatch(value.rpartition("<")[0]):
        raise Invalid(
            [("", f'{field}: expected one mailbox; a name with , ; : @ ( ) < > stands in "quotes"')]
        )
    try:
        parsed = parse(address.strip())
    except AddressError as error:
        raise Invalid([("", f"{field}: {error}")]) from error
    name = shown(display).replace("<", "").replace(">", "")[:200]
    return join_mailbox(name.strip(), parsed.wire), parsed.domain


def shown(value: str) -> str:
    """Return the beginning of a header value for people: encoded-words read where they can be, nothing that a terminal would obey."""
    if (
        len(value) > _SHOWN_LIMIT
    ):  # before it is decoded: the standard library's search for encoded-words is quadratic
        value = value[:_SHOWN_LIMIT].rpartition(" ")[0] or value[:_SHOWN_LIMIT]
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


def _is_taken_out(name: str, stream: Stream) -> bool:
    if stream is Stream.MARKETING and name in _OURS_IN_MARKETING:
        return True
    return is_own(name) and name not in _APPS and not name.startswith(_APPS_FAMILY)


def _stream(value: str) -> Stream:
    try:
        return Stream(value.lower())
    except ValueError:
        raise Invalid([("", f"{STREAM}: expected {' or '.join(Stream)}")]) from None


def _seconds(value: str) -> int:
    least, most = EXPIRES_IN_S
    if not value.isdecimal() or len(value) > len(str(most)) or not least <= int(value) <= most:
        raise Invalid([("", f"{EXPIRES_IN}: expected seconds from {least} to {most}")])
    return int(value)
