"""A message that came whole, over SMTP: its MIME is the app's and goes out as it came, with our fields above it. Pure.

Owns the reading of its header, how it is kept, and the `RawStencil` that stands where `mime.Stencil` does for messages that we
build: the same `fill`, so that dispatch need not know which it has. Must not know which fields an app may set
(`submission/letter`). RFC 5322 §2.1, §2.2, §3.6.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Final

import msgspec

from gateway.errors import Invalid
from gateway.mta.attachment import Attachment, pack_attachments, unpack_attachments
from gateway.mta.canonical import (
    SIGNED,
    SignedForm,
    body_hash,
    relaxed_body,
    relaxed_header,
    signed_names_tag,
    signing_order,
)
from gateway.mta.header import raw_field
from gateway.mta.mime import Filled

RAW: Final = "raw"
"""In place of a template's name: the message came whole."""

HEADER_LIMIT_BYTES: Final = 131_072
FIELDS_LIMIT: Final = 500
LINE_LIMIT: Final = 998  # RFC 5322 §2.1.1, without CRLF

_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
_KIND: Final = "message/rfc822"


class RawField(msgspec.Struct, frozen=True, gc=False):
    """One header field as it came: `name` in lower case, `line` with its folds and final CRLF."""

    name: str
    line: bytes

    @property
    def value(self) -> bytes:
        """What stands behind the colon, unfolded, without white space around it."""
        return self.line.partition(b":")[2].replace(b"\r\n", b"").strip(b" \t")


def read_fields(message: bytes) -> tuple[list[RawField], bytes]:
    """Take a message apart: its fields, and its body, which may be empty. Line ends are CRLF.

    Raises:
        Invalid: a line that is no field, a header beyond its limits, or a line beyond 998 octets; says which.
    """
    if message.startswith(b"\r\n"):
        return [], message[2:]
    header, _, body = message.partition(b"\r\n\r\n")
    header = header.removesuffix(b"\r\n")
    if len(header) > HEADER_LIMIT_BYTES:
        raise Invalid([("", f"a header of {len(header)} octets; at most {HEADER_LIMIT_BYTES}")])
    if (start := _start_of_long_line(message)) >= 0:
        number = message.count(b"\r\n", 0, start) + 1
        raise Invalid(
            [("", f"line {number} has more than {LINE_LIMIT} octets; expected quoted-printable or base64")]
        )
    starts: list[tuple[str, list[bytes]]] = []
    for number, line in enumerate(header.split(b"\r\n"), 1):
        if line[:1] in (b" ", b"\t"):
            if not starts or not line.strip(b" \t"):
                raise Invalid(
                    [("", f"line {number} of the header continues nothing, or is white space alone")]
                )
            starts[-1][1].append(line)
        elif found := _FIELD.match(line):
            starts.append((found[1].decode("ascii").lower(), [line]))
        else:
            raise Invalid([("", f"line {number} of the header is no field; expected a name and a colon")])
    if len(starts) > FIELDS_LIMIT:
        raise Invalid([("", f"{len(starts)} header fields; at most {FIELDS_LIMIT}")])
    return [RawField(name, b"\r\n".join([*lines, b""])) for name, lines in starts], body


def _start_of_long_line(message: bytes) -> int:
    """Return where the first line beyond `LINE_LIMIT` begins, or -1.

    In strides, each to the last line end that a line from its beginning may have: a list of all lines takes 16 times the message, and a
    regular expression looks at each octet as often as its line is long.
    """
    start = 0
    while len(message) - start > LINE_LIMIT:
        end = message.rfind(b"\r\n", start, start + LINE_LIMIT + 2)
        if end < 0:
            return start
        start = end + 2
    return -1


def join_fields(fields: Sequence[RawField], body: bytes) -> bytes:
    """Return the message of fields and body."""
    return b"".join([*(field.line for field in fields), b"\r\n", body])


def pack_raw(message: bytes) -> bytes:
    """Return a whole message as one value, to be kept where a message's files are: it is its one file."""
    return pack_attachments([Attachment("", _KIND, message)])


def unpack_raw(packed: bytes | None) -> bytes:
    """Return the message of a kept value.

    Raises:
        Invalid: there is none in it.
    """
    match unpack_attachments(packed):
        case (Attachment(content_type="message/rfc822", data=message),):
            return message
        case _:
            raise Invalid([("/attachments", "a raw message is kept without its content")])


class RawStencil:
    """A message of all recipients as it came, with room above it for what is one recipient's.

    Only what the app left out is added of Date and Message-ID.
    """

    def __init__(self, message: bytes, *, headers: Sequence[tuple[str, str]], fields: Sequence[str]) -> None:
        """Read and hash what is shared. `headers`: ours, with their values; `fields`: names of ours that `fill` is given.

        Raises:
            Invalid: the message cannot be read, or a value of ours cannot stand in a header.
        """
        kept, body = read_fields(message)
        names = [field.name.encode() for field in kept]
        self._fixed = [raw_field(name, value, f"/headers/{name}") for name, value in headers]
        self._fields = tuple(fields)
        self._has_date, self._has_id = b"date" in names, b"message-id" in names
        ours = [name.lower().encode() for name, _ in headers] + [name.lower().encode() for name in fields]
        ours += [b"date"] * (not self._has_date) + [b"message-id"] * (not self._has_id)
        self._rest = join_fields(kept, body)
        # Fields of one name are signed from the bottom up, so what is the app's comes before what is ours.
        order = signing_order(names)
        self._signed = b"".join(_relaxed(kept[place].line) for place in order)
        self._own_order = [place for place in range(len(ours) - 1, -1, -1) if ours[place] in SIGNED]
        self._names = signed_names_tag(
            [names[place] for place in order] + [ours[place] for place in self._own_order]
        )
        self._hash = body_hash(relaxed_body(body))

    def fill(
        self,
        *,
        to: str,
        date: datetime,
        message_id: str,
        values: Sequence[str] = (),
        fields: Sequence[str] = (),
    ) -> Filled:
        """Return one recipient's message; as `mime.Stencil.fill`, of which `to` and `values` have no place here.

        Raises:
            Invalid: a value of ours cannot stand in a header.
        """
        del to, values
        own = [
            *self._fixed,
            *(
                raw_field(name, value, f"/fields/{name}")
                for name, value in zip(self._fields, fields, strict=True)
            ),
        ]
        if not self._has_date:
            own.append(b"Date: %b\r\n" % format_datetime(date).encode())
        if not self._has_id:
            own.append(b"Message-ID: <%b>\r\n" % message_id.encode())
        signed = self._signed + b"".join(_relaxed(own[place]) for place in self._own_order)
        return Filled(b"".join([*own, self._rest]), SignedForm(self._names, signed, self._hash))


def _relaxed(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    return relaxed_header(name, value.removesuffix(b"\r\n")) + b"\r\n"
