"""A message in bytes: header fields and body, CRLF throughout (RFC 5322, RFC 2045, RFC 2046).

Owns which fields a message has and in which order. Must not know templates, keys or the wire, nor how its parts stand together
(`mta/multipart`). Pure and deterministic: the same content, Message-ID, date and boundary give the same bytes on every attempt.

A `Stencil` holds what all recipients of a message share, encoded and in its DKIM-relaxed form; `fill` adds what is one recipient's.

Bodies are 7bit where they can be, else quoted-printable, or base64 where that is shorter (`mta/body.py`): never 8bit, since the same
bytes have to suit receivers with and without 8BITMIME.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.mta.attachment import Attachment, file_entity
from gateway.mta.body import Encoded, Part, TextPart, is_plain, quoted_value
from gateway.mta.canonical import (
    SignedForm,
    body_hash,
    relaxed_body,
    relaxed_field,
    signed_names_tag,
    signing_order,
)
from gateway.mta.header import date_field, mailbox_field, raw_field, text_field
from gateway.mta.multipart import arrange, encoding_field, text_entity
from gateway.mta.own_headers import check_foreign, is_own

_MESSAGE_ID: Final = re.compile(r"[!-;=?A-~]{1,200}@[!-;=?A-~]{1,255}")
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,64}")
_PLAIN_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/?^_`{|}~=-]{1,64}@[A-Za-z0-9.-]{1,255}")


class MailContent(msgspec.Struct, frozen=True):
    """What recipients see. Mailboxes are `local@domain` or `Display Name <local@domain>`; texts are whole, or parts with slots."""

    sender: str
    subject: str | Part
    text: str | Part = ""
    html: str | Part = ""
    """Without one of the two the message has a single part."""
    reply_to: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Further fields of the site's, in order; none that is ours (`mta/own_headers`)."""
    own: tuple[tuple[str, str], ...] = ()
    """Further fields of ours that are the same for all recipients, behind the site's."""
    fields: tuple[str, ...] = ()
    """Names of our fields whose values `fill` is given."""
    attachments: tuple[Attachment, ...] = ()


class Filled(msgspec.Struct, frozen=True):
    """One recipient's message, unsigned and not dot-stuffed, and what a signature says of it."""

    message: bytes
    form: SignedForm


class _Layout(msgspec.Struct, frozen=True):
    """A stencil in one choice of transfer encodings: what is static, and where the rest goes."""

    header: tuple[bytes, ...]
    header_gaps: tuple[tuple[int, int], ...]  # place in `header` → number of the recipient's field
    signed: tuple[bytes, ...]
    signed_gaps: tuple[tuple[int, int], ...]
    names: bytes
    body: tuple[bytes, ...]
    relaxed: tuple[bytes, ...] | None  # None: made from the whole
    body_gaps: tuple[tuple[int, int], ...]  # place in `body` → number of the value
    quotes: bool  # some of them in quoted-printable
    static_body: bytes | None
    static_hash: bytes
    fragile: frozenset[int]


class Stencil:
    """The message of all recipients, with gaps for one."""

    # Mutable on purpose: the second layout is made when a recipient needs it.
    def __init__(self, content: MailContent, *, boundary: str, rooms: Sequence[int] = ()) -> None:
        """Check and encode what is shared. `rooms`: longest plain value of each slot; `boundary`: nobody can guess it.

        Raises:
            Invalid: names the field of `MailContent` that cannot go into a message (CR, LF or NUL in a header first of all).
            ValueError: a boundary of the caller's making is wrong, or a field of ours has a name that a site may use.
        """
        if not _BOUNDARY.fullmatch(boundary):
            raise ValueError("no boundary; expected 1 to 64 characters of RFC 2046 §5.1.1")
        self._slots, self._rooms, self._boundary = len(rooms), tuple(rooms), boundary
        self._subject: str | Part = content.subject
        self._text = (
            TextPart(_as_part(content.text), "/text", rooms) if content.text or not content.html else None
        )
        self._html = TextPart(_as_part(content.html), "/html", rooms) if content.html else None
        self._texts = [part for part in (self._text, self._html) if part is not None]
        files = [(a, file_entity(a, f"/attachments/{i}")) for i, a in enumerate(content.attachments)]
        self._inline = [entity for file, entity in files if file.content_id]
        self._attached = [entity for file, entity in files if not file.content_id]
        self._whole = [part for part in self._texts if part.base64 and part.seven_bit is None]
        self._fields = content.fields
        static: list[bytes | int] = [mailbox_field("From", content.sender, "/sender"), 0]
        if isinstance(content.subject, str):
            static.append(text_field("Subject", content.subject, "/subject"))
        else:
            static.append(1)
        static += [2, 3]
        if content.reply_to:
            static.append(mailbox_field("Reply-To", content.reply_to, "/reply_to"))
        for index, (name, value) in enumerate(content.headers):
            check_foreign(name, f"/headers/{index}")
            static.append(text_field(name, value, f"/headers/{index}"))
        for name in (*[name for name, _ in content.own], *content.fields):
            if not is_own(name):
                raise ValueError(f"a site may set {name}, too; expected a name of mta/own_headers")
        static += [
            text_field(name, value, f"/own/{index}") for index, (name, value) in enumerate(content.own)
        ]
        static += range(4, 4 + len(content.fields))
        static.append(b"MIME-Version: 1.0\r\n")
        self._head = static
        self._plain = self._layout(plain=True)
        self._quoted: _Layout | None = None

    def fill(
        self,
        *,
        to: str,
        date: datetime,
        message_id: str,
        values: Sequence[str] = (),
        fields: Sequence[str] = (),
    ) -> Filled:
        """Return one recipient's message. `values`: by slot; `fields`: values of `MailContent.fields`, ASCII.

        `message_id` comes without angle brackets, `date` is aware.

        Raises:
            Invalid: what is the recipient's cannot go into a header.
            ValueError: a Message-ID of the caller's making is wrong.
        """
        if not _MESSAGE_ID.fullmatch(message_id):
            raise ValueError("no Message-ID; expected local@domain in ASCII, without angle brackets")
        own = [
            b"To: %b\r\n" % to.encode()
            if _PLAIN_ADDRESS.fullmatch(to) and "=?" not in to
            else mailbox_field("To", to, "/to"),
            b""
            if isinstance(self._subject, str)
            else text_field("Subject", _joined(self._subject, values), "/subject"),
            date_field("Date", date),
            b"Message-ID: <%b>\r\n" % message_id.encode(),
            *[_own_field(name, value) for name, value in zip(self._fields, fields, strict=True)],
        ]
        plain = all(map(is_plain, values, self._rooms))
        layout = self._plain if plain else self._quoted_layout()
        header = list(layout.header)
        for place, number in layout.header_gaps:
            header[place] = own[number]
        signed = list(layout.signed)
        for place, number in layout.signed_gaps:
            signed[place] = relaxed_field(own[number])
        if layout.static_body is not None:
            body, digest = layout.static_body, layout.static_hash
        else:
            body, digest = self._fill_body(layout, values, plain)
        header.append(b"\r\n")
        header.append(body)
        return Filled(b"".join(header), SignedForm(layout.names, b"".join(signed), digest))

    def _fill_body(self, layout: _Layout, values: Sequence[str], plain: bool) -> tuple[bytes, bytes]:
        filling = [value.encode() for value in values] if plain else [b""] * len(values)
        filling += map(quoted_value, values) if layout.quotes else filling
        filling += [part.whole(values) for part in self._whole]
        pieces = list(layout.body)
        for place, number in layout.body_gaps:
            pieces[place] = filling[number]
        body = b"".join(pieces)
        if layout.relaxed is None or not plain or not all(values[slot] for slot in layout.fragile):
            return body, body_hash(relaxed_body(body))
        if layout.relaxed is layout.body:
            return body, body_hash(body)
        pieces = list(layout.relaxed)
        for place, number in layout.body_gaps:
            pieces[place] = filling[number]
        return body, body_hash(b"".join(pieces))

    def _quoted_layout(self) -> _Layout:
        if self._quoted is None:
            self._quoted = self._layout(plain=False)
        return self._quoted

    def _layout(self, *, plain: bool) -> _Layout:
        fields, encoded = arrange(
            text_entity("plain", self._encoded(self._text, plain=plain)) if self._text else None,
            text_entity("html", self._encoded(self._html, plain=plain)) if self._html else None,
            self._inline, self._attached, self._boundary,
        )  # fmt: skip
        if encoding := encoding_field(encoded):
            fields.append(encoding)
        head = [*self._head, *fields]
        header, header_gaps = _with_gaps(head)
        names = [_lower_name(piece) if isinstance(piece, bytes) else self._own_name(piece) for piece in head]
        order = signing_order(names)
        signed, signed_gaps = _with_gaps(
            [relaxed_field(piece) if isinstance(piece := head[place], bytes) else piece for place in order]
        )
        body, body_gaps = _with_gaps(encoded.pieces)
        static = b"".join(body) if not body_gaps else None
        same = encoded.pieces == encoded.relaxed
        multipart = not encoded.encoding
        return _Layout(
            header=header, header_gaps=header_gaps, signed=signed, signed_gaps=signed_gaps,
            names=signed_names_tag([names[place] for place in order]), body=body,
            # The end of a single part may be empty lines, which are left out: that is looked at each time.
            relaxed=None if not multipart else body if same else _with_gaps(encoded.relaxed)[0],
            body_gaps=body_gaps, quotes=any(number >= self._slots for _, number in body_gaps), static_body=static,
            static_hash=b"" if static is None else body_hash(relaxed_body(static)), fragile=encoded.fragile,
        )  # fmt: skip

    def _own_name(self, number: int) -> bytes:
        return (b"to", b"subject", b"date", b"message-id", *[name.lower().encode() for name in self._fields])[
            number
        ]

    def _encoded(self, part: TextPart, *, plain: bool) -> Encoded:
        """A text's pieces; slots count from 0 as ASCII, from `slots` on as quoted-printable, then come the whole ones."""
        if part.seven_bit is not None and (plain or not part.slots):
            return part.seven_bit
        if part.base64:
            place = 2 * self._slots + self._whole.index(part)
            pieces: tuple[bytes | int, ...] = (place,) if part.slots else (part.whole(()),)
            return Encoded(b"base64", pieces, pieces, frozenset())
        found = part.quoted
        return Encoded(
            found.encoding,
            tuple(piece + self._slots if isinstance(piece, int) else piece for piece in found.pieces),
            tuple(piece + self._slots if isinstance(piece, int) else piece for piece in found.relaxed),
            frozenset(),
        )


def build(content: MailContent, *, to: str, message_id: str, date: datetime, boundary: str) -> bytes:
    """Return one whole message, unsigned and not dot-stuffed.

    Raises:
        Invalid: names the field of `MailContent` (or `/to`) that cannot go into a message.
        ValueError: Message-ID or boundary of the caller's making is wrong.
    """
    return Stencil(content, boundary=boundary).fill(to=to, date=date, message_id=message_id).message


def dot_stuff(message: bytes) -> bytes:
    """Return the message as DATA wants it (RFC 5321 §4.5.2): dots at line starts doubled, ending in CRLF.

    The final `.CRLF` is not added: the caller writes it after its last look at the lease.
    """
    if b"\r\n." in message:
        message = message.replace(b"\r\n.", b"\r\n..")
    if message[:1] == b".":
        message = b"." + message
    return message if message.endswith(b"\r\n") else message + b"\r\n"


def _as_part(text: str | Part) -> Part:
    return (text,) if isinstance(text, str) else text


def _joined(part: Part, values: Sequence[str]) -> str:
    return "".join([piece if isinstance(piece, str) else values[piece] for piece in part])


def _with_gaps(pieces: Sequence[bytes | int]) -> tuple[tuple[bytes, ...], tuple[tuple[int, int], ...]]:
    """Neighbours that are static as one; and where the gaps are, with their numbers."""
    merged: list[bytes] = []
    gaps: list[tuple[int, int]] = []
    open_ = False
    for piece in pieces:
        if isinstance(piece, int):
            gaps.append((len(merged), piece))
            merged.append(b"")
            open_ = False
        elif open_:
            merged[-1] += piece
        else:
            merged.append(piece)
            open_ = True
    return tuple(merged), tuple(gaps)


def _lower_name(field: bytes) -> bytes:
    return field.partition(b":")[0].lower()


def _own_field(name: str, value: str) -> bytes:
    if len(name) + len(value) < 76 and value.isascii() and value.isprintable() and "=?" not in value:
        return f"{name}: {value}\r\n".encode()
    return raw_field(name, value, f"/fields/{name}")
