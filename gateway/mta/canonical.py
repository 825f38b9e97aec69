"""What a DKIM signature sees of a message: which fields are signed, and the relaxed forms (RFC 6376 §3.4.2, §3.4.4, §5.4).

Owns these rules. Must not know keys, or how a message is built. Pure.
"""

from __future__ import annotations

import hashlib
import re
from binascii import b2a_base64
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

# Listed once more than they occur, so that nobody can add another one behind our back (RFC 6376 §8.15).
OVERSIGNED: Final = (b"from", b"to", b"cc", b"subject", b"date", b"reply-to", b"message-id")
# Signed as often as they occur; CFBL headers have to be (RFC 9477 §3.1), and so has List-Unsubscribe (RFC 8058 §4).
SIGNED: Final = frozenset({
    *OVERSIGNED, b"sender", b"in-reply-to", b"references", b"mime-version", b"content-type", b"content-id",
    b"content-transfer-encoding", b"content-description", b"content-disposition", b"content-language",
    b"list-id", b"list-help", b"list-unsubscribe", b"list-unsubscribe-post", b"list-subscribe", b"list-post",
    b"list-owner", b"list-archive", b"feedback-id", b"cfbl-address", b"cfbl-feedback-id", b"auto-submitted",
})  # fmt: skip

_WSP: Final = re.compile(rb"[ \t]+")
_LINE_LIMIT: Final = 76


class SignedForm(msgspec.Struct, frozen=True):
    """What is signed of a message but for the signature's own field.

    `names`: the `h=` tag, a space where it may be folded; `header`: the signed fields in relaxed form, each with its CRLF;
    `body_hash`: SHA-256 of the relaxed body, in base64.
    """

    names: bytes
    header: bytes
    body_hash: bytes


def relaxed_header(name: bytes, value: bytes) -> bytes:
    """Return `name:value` in relaxed form without CRLF (RFC 6376 §3.4.2); `value` may be folded."""
    if b"\r\n" in value:
        value = value.replace(b"\r\n", b"")
    if b"  " in value or b"\t" in value:
        value = _WSP.sub(b" ", value)
    return name.rstrip(b" \t").lower() + b":" + value.strip(b" \t")


def relaxed_field(field: bytes) -> bytes:
    """Return one field as we write it, `Name: value` and its CRLF, in relaxed form with CRLF."""
    name, _, value = field.partition(b": ")
    if b"\r\n" not in value[:-2] and b"  " not in value and b"\t" not in value and value[-3:-2] != b" ":
        return name.lower() + b":" + value  # as all but folded ones are
    return b"".join([relaxed_header(name, value) + b"\r\n" for name, value in fields_of(field[:-2])])


def relaxed_lines(text: bytes) -> bytes:
    """Return body text in relaxed form but for what its end asks (RFC 6376 §3.4.4 a): each line's white space.

    White space at the very end stays as one space: what follows decides whether it stands before a line end.
    """
    if b"  " in text or b"\t" in text:
        text = _WSP.sub(b" ", text)
    return text.replace(b" \r\n", b"\r\n") if b" \r\n" in text else text


def relaxed_body(body: bytes) -> bytes:
    """Return the body in relaxed form (RFC 6376 §3.4.4)."""
    body = relaxed_lines(body)
    end = len(body)
    if body[end - 1 : end] == b" ":
        end -= 1
    while body[end - 2 : end] == b"\r\n":
        end -= 2
    return body[:end] + b"\r\n" if end else b""


def fields_of(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield lower-case name and folded value of each field, from the top; `header` has no empty line."""
    if b"\r\n " in header or b"\r\n\t" in header:
        header = header.replace(b"\r\n ", b"\0 ").replace(b"\r\n\t", b"\0\t")
    for field in header.split(b"\r\n"):
        name, _, value = field.partition(b":")
        yield name.rstrip(b" \t").lower(), value.replace(b"\0", b"\r\n") if b"\0" in value else value


def signing_order(names: Sequence[bytes]) -> list[int]:
    """Return which of the fields (lower-case names, from the top) are signed, in the order of `h=`.

    Several fields of one name are taken from the bottom (RFC 6376 §5.4.2).
    """
    return [place for place in range(len(names) - 1, -1, -1) if names[place] in SIGNED]


def signed_names_tag(names: Sequence[bytes]) -> bytes:
    """Return the `h=` tag of these signed fields, the oversigned ones added, as lines of some 76 octets joined by single spaces.

    A fold after a colon is FWS (§3.5); a space stands where a line ends, so that folding does not change the relaxed form.
    """
    lines: list[bytes] = []
    line = b"h="
    for name in (*names, *OVERSIGNED):
        if len(line) + len(name) + 1 > _LINE_LIMIT:
            lines.append(line)
            line = b""
        line += name + b":"
    return b" ".join([*lines, line[:-1] + b";"])


def signed_form(message: bytes) -> SignedForm:
    """Return the relaxed form of a whole message.

    Raises:
        ValueError: no From field, or no empty line between header and body.
    """
    header, separator, body = message.partition(b"\r\n\r\n")
    if not separator:
        raise ValueError("no empty line between header and body; a message ends its header with CRLF CRLF")
    fields = list(fields_of(header))
    order = signing_order([name for name, _ in fields])
    names = [fields[place][0] for place in order]
    if b"from" not in names:
        raise ValueError("no From field; RFC 6376 §5.4 wants it signed")
    return SignedForm(
        signed_names_tag(names),
        b"".join([relaxed_header(*fields[place]) + b"\r\n" for place in order]),
        body_hash(relaxed_body(body)),
    )


def body_hash(relaxed: bytes) -> bytes:
    """Return the `bh=` value of a body in relaxed form."""
    return b2a_base64(hashlib.sha256(relaxed).digest(), newline=False)
