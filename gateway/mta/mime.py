"""A message in bytes: header fields, text and HTML, attachments and inline images, CRLF throughout (RFC 5322, RFC 2045, RFC 2046).

Owns which fields a message has and how its parts stand together. Must not know templates, keys or the wire. Pure and deterministic:
the same content, Message-ID, date and boundary give the same bytes on every attempt.

A `Stencil` holds what all recipients of a message share, encoded and in its DKIM-relaxed form; `fill` adds what is one recipient's.

    multipart/mixed        with attachments
      multipart/alternative  with text and HTML
        text/plain
        multipart/related      with inline images
          text/html
          image/…
      application/…

Bodies are 7bit where they can be, else quoted-printable, or base64 where that is shorter (`mta/body.py`): never 8bit, since the same
bytes have to suit receivers with and without 8BITMIME.
"""

from __future__ import annotations

import re
from base64 import encodebytes
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import msgspec

from gateway.errors import Invalid
from gateway.mta.body import Encoded, Part, TextPart, is_plain, quoted_value
from gateway.mta.canonical import (
    SignedForm,
    body_hash,
    fields_of,
    relaxed_body,
    relaxed_header,
    relaxed_lines,
    signed_names_tag,
    signing_order,
)
from gateway.mta.header import check_value, mailbox_field, raw_field, text_field
from gateway.mta.own_headers import check_foreign, is_own

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MESSAGE_ID: Final = re.compile(r"[!-;=?A-~]{1,200}@[!-;=?A-~]{1,255}")
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,64}")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_CONTENT_ID: Final = re.compile(r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~.@-]{1,200}")
_PLAIN_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/?^_`{|}~=-]{1,64}@[A-Za-z0-9.-]{1,255}")
_FILENAME_LIMIT: Final = 200


class Attachment(msgspec.Struct, frozen=True):
    """A file that comes along. With a `content_id` it is shown in the HTML, where `cid:…` names it."""

    filename: str
    content_type: str
    """`type/subtype`, lower case, without parameters."""
    data: bytes
    content_id: str = ""


def pack_attachments(attachments: Sequence[Attachment]) -> bytes:
    """Return files as one value, to be kept with a message; `unpack_attachments` reads it."""
    return msgspec.msgpack.encode(attachments)


def unpack_attachments(packed: bytes | None) -> tuple[Attachment, ...]:
    """Return the files of a kept value; none for None."""
    return msgspec.msgpack.decode(packed, type=tuple[Attachment, ...]) if packed else ()


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
        self._inline = [
            _attachment(a, f"/attachments/{i}") for i, a in enumerate(content.attachments) if a.content_id
        ]
        self._attached = [
            _attachment(a, f"/attachments/{i}") for i, a in enumerate(content.attachments) if not a.content_id
        ]
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
            b"To: %b\r\n" % to.encode() if _PLAIN_ADDRESS.fullmatch(to) else mailbox_field("To", to, "/to"),
            b""
            if isinstance(self._subject, str)
            else text_field("Subject", _joined(self._subject, values), "/subject"),
            b"Date: %b\r\n" % _format_date(date),
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
            signed[place] = _relaxed_field(own[number])
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
        texts = {part: self._encoded(part, plain=plain) for part in self._texts}
        fields, encoded = self._entity(texts)
        if encoded.encoding:
            fields.append(b"Content-Transfer-Encoding: " + encoded.encoding + b"\r\n")
        head = [*self._head, *fields]
        header, header_gaps = _with_gaps(head)
        names = [_lower_name(piece) if isinstance(piece, bytes) else self._own_name(piece) for piece in head]
        order = signing_order(names)
        signed, signed_gaps = _with_gaps(
            [_relaxed_field(piece) if isinstance(piece := head[place], bytes) else piece for place in order]
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

    def _entity(self, texts: dict[TextPart, Encoded]) -> tuple[list[bytes], Encoded]:
        """The Content-Type fields of the whole, and its body; an encoding only where it is a single part."""
        shown = self._multipart("related", "r", [_text_entity("html", texts[self._html]), *self._inline]) if (
            self._html is not None and self._inline) else _text_entity("html", texts[self._html]) if self._html else None  # fmt: skip
        told = _text_entity("plain", texts[self._text]) if self._text else None
        # RFC 2046 §5.1.4: the best form comes last.
        forms = [entity for entity in (told, shown) if entity is not None]
        main = forms[0] if len(forms) == 1 else self._multipart("alternative", "a", forms)
        loose = self._attached if self._html is not None else [*self._inline, *self._attached]
        return main if not loose else self._multipart("mixed", "m", [main, *loose])

    def _multipart(
        self, subtype: str, mark: str, entities: Sequence[tuple[list[bytes], Encoded]]
    ) -> tuple[list[bytes], Encoded]:
        boundary = (self._boundary + mark).encode("ascii")
        delimiter = b"--" + boundary
        pieces: list[bytes | int] = []
        relaxed: list[bytes | int] = []
        fragile: set[int] = set()
        for fields, encoded in entities:
            if any(isinstance(piece, bytes) and delimiter in piece for piece in encoded.pieces):
                raise ValueError("the boundary occurs in a part; expected one that nobody can guess")
            encoding = (
                b"Content-Transfer-Encoding: " + encoded.encoding + b"\r\n" if encoded.encoding else b""
            )
            head = delimiter + b"\r\n" + b"".join(fields) + encoding + b"\r\n"
            # The CRLF before a delimiter belongs to it: each part brings its own and loses none.
            pieces += [head, *encoded.pieces, b"\r\n"]
            relaxed += [relaxed_lines(head), *encoded.relaxed, b"\r\n"]
            fragile |= encoded.fragile
        end = delimiter + b"--\r\n"
        fields = [b"Content-Type: multipart/" + subtype.encode() + b';\r\n boundary="' + boundary + b'"\r\n']
        return fields, Encoded(b"", (*pieces, end), (*relaxed, end), frozenset(fragile))


def build(content: MailContent, *, to: str, message_id: str, date: datetime, boundary: str) -> bytes:
    """Return one whole message, unsigned and not dot-stuffed.

    Raises:
        Invalid: names the field of `MailContent` (or `/to`) that cannot go into a message.
        ValueError: Message-ID or boundary of the caller's making is wrong.
    """
    return Stencil(content, boundary=boundary).fill(to=to, date=date, message_id=message_id).message


def unsubscribe_value(url: str, mailto: str = "") -> str:
    """Return the value of List-Unsubscribe (RFC 2369 §3.2) for an http(s) URL, a mail address, or both.

    Raises:
        Invalid: no URL, or one with spaces or angle brackets.
    """
    forms = [form for form in (url, f"mailto:{mailto}" if mailto else "") if form]
    if url and not url.startswith(("https://", "http://")):
        raise Invalid([("/unsubscribe_url", "expected an http(s) URL")])
    if any(char in form for form in forms for char in "<> \t"):
        raise Invalid([("/unsubscribe_url", "expected a URL without spaces or angle brackets")])
    return ", ".join(f"<{form}>" for form in forms)


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


def _relaxed_field(field: bytes) -> bytes:
    name, _, value = field.partition(b": ")
    if b"\r\n" not in value[:-2] and b"  " not in value and b"\t" not in value and value[-3:-2] != b" ":
        return name.lower() + b":" + value  # as all but folded ones are
    return b"".join([relaxed_header(name, value) + b"\r\n" for name, value in fields_of(field[:-2])])


def _own_field(name: str, value: str) -> bytes:
    if len(name) + len(value) < 76 and value.isascii() and value.isprintable() and "=?" not in value:
        return f"{name}: {value}\r\n".encode()
    return raw_field(name, value, f"/fields/{name}")


def _text_entity(subtype: str, encoded: Encoded) -> tuple[list[bytes], Encoded]:
    return [b"Content-Type: text/" + subtype.encode() + b"; charset=utf-8\r\n"], encoded


def _attachment(attachment: Attachment, pointer: str) -> tuple[list[bytes], Encoded]:
    kind = attachment.content_type
    if not _MEDIA_TYPE.fullmatch(kind) or kind.startswith(("multipart/", "message/")):
        raise Invalid(
            [
                (
                    f"{pointer}/content_type",
                    "expected type/subtype in lower case, neither multipart nor message",
                )
            ]
        )
    fields = [
        b"Content-Type: " + kind.encode() + b"\r\n",
        _disposition(
            "inline" if attachment.content_id else "attachment", attachment.filename, f"{pointer}/filename"
        ),
    ]
    if attachment.content_id:
        if not _CONTENT_ID.fullmatch(attachment.content_id):
            raise Invalid(
                [(f"{pointer}/content_id", "expected 1 to 200 ASCII characters without spaces or brackets")]
            )
        fields.append(f"Content-ID: <{attachment.content_id}>\r\n".encode())
    data = encodebytes(attachment.data).replace(b"\n", b"\r\n")
    return fields, Encoded(b"base64", (data,), (data,), frozenset())


def _disposition(kind: str, filename: str, pointer: str) -> bytes:
    """Content-Disposition (RFC 2183); a name beyond ASCII, or a long one, in the form of RFC 2231 §3 and §4."""
    check_value(filename, pointer)
    if not 1 <= len(filename) <= _FILENAME_LIMIT or "/" in filename or "\\" in filename:
        raise Invalid(
            [(pointer, f"expected a file name of 1 to {_FILENAME_LIMIT} characters without slashes")]
        )
    # What looks like an encoded-word is decoded by some readers, though none may stand in quotes (RFC 2047 §5).
    plain = filename.isascii() and "=?" not in filename and " ".join(filename.split()) == filename
    if plain and len(filename) <= 60:
        escaped = filename.replace('"', '\\"')
        return f'Content-Disposition: {kind};\r\n filename="{escaped}"\r\n'.encode()
    lines = [f"Content-Disposition: {kind}"]
    piece, pieces = "", list[str]()
    for char in "utf-8''", *(quote(c, safe="") for c in filename):
        if piece and len(piece) + len(char) > 60:
            pieces.append(piece)
            piece = ""
        piece += char
    pieces.append(piece)
    if len(pieces) == 1:
        lines.append(f" filename*={pieces[0]}")
    else:
        lines += [f" filename*{number}*={piece}" for number, piece in enumerate(pieces)]
    return (";\r\n".join(lines) + "\r\n").encode("ascii")


@lru_cache(maxsize=1_024)  # a broadcast's deliveries are accepted together
def _format_date(date: datetime) -> bytes:
    if date.tzinfo is None:
        raise ValueError("a date without time zone; expected an aware datetime")
    utc = date.astimezone(UTC)
    return (
        f"{_DAYS[utc.weekday()]}, {utc.day:02} {_MONTHS[utc.month - 1]} {utc.year:04}"
        f" {utc.hour:02}:{utc.minute:02}:{utc.second:02} +0000"
    ).encode("ascii")
