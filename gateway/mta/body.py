"""A text part with gaps, encoded once: what is the same for all recipients costs each of them a join.

Owns the transfer encoding of text (RFC 2045 §6) and its DKIM-relaxed form, piece by piece. Must not know templates, headers or
multiparts (`mta/mime`, `mta/multipart`). Pure.

A part is a sequence of static text and slots (indices into the values of one recipient). Encoded, each static piece is bytes for good,
and in quoted-printable a slot stands on a line of its own between soft line breaks, so that no value moves a static column. A value that
is plain (ASCII, printable, not long, no spaces that the relaxed form would touch) goes in as it is; with any other the parts are
quoted-printable, and the relaxed form is made from the whole.

    7bit              all ASCII, no line over 998 octets, no controls
    quoted-printable  else
    base64            where most of the text is other than ASCII; encoded whole, for each recipient
"""

from __future__ import annotations

from base64 import encodebytes
from binascii import b2a_qp
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.errors import Invalid
from gateway.mta.canonical import relaxed_lines

Part = tuple[str | int, ...]
"""Static text and slots, in order."""

PLAIN_LIMIT: Final = 100
"""Longest plain value, in characters, where nothing else is said of a slot."""

_LINE_LIMIT: Final = 998  # RFC 5322 §2.1.1
_QP_LIMIT: Final = 75  # RFC 2045 §6.7 (5) allows 76, one of which is the soft line break's
_CONTROLS: Final = bytes(b for b in (*range(32), 127) if b not in b"\t\n\r")
_SOFT: Final = b"=\r\n"


class Encoded(msgspec.Struct, frozen=True):
    """A part's pieces in one transfer encoding, static bytes and slots; `relaxed` is their relaxed form, piece by piece.

    `fragile`: slots where an empty value would bring white space together that the relaxed form joins.
    """

    encoding: bytes
    pieces: tuple[bytes | int, ...]
    relaxed: tuple[bytes | int, ...]
    fragile: frozenset[int]


class TextPart:
    """One text, ready for any number of recipients."""

    # Mutable on purpose: the quoted-printable form is made when the first recipient needs it.
    def __init__(self, part: Part, pointer: str, rooms: Sequence[int] = ()) -> None:
        """Take the text; LF, CR and CRLF all end a line, and the last line is ended. `rooms`: longest plain values, by slot.

        Raises:
            Invalid: no Unicode text; names `pointer`.
        """
        self._part = _normalised(part, pointer)
        self.slots: Final = frozenset(piece for piece in self._part if isinstance(piece, int))
        statics = b"".join([piece.encode() for piece in self._part if isinstance(piece, str)])
        self.seven_bit: Final = (
            _seven_bit(self._part) if _fits_seven_bit(self._part, statics, rooms) else None
        )
        self.base64: Final = not statics.isascii() and len(_quoted(statics.decode())) > len(statics) * 3 // 2
        self._quoted: Encoded | None = None

    @property
    def quoted(self) -> Encoded:
        """The part in quoted-printable."""
        if self._quoted is None:
            self._quoted = _encoded(b"quoted-printable", _quoted_pieces(self._part))
        return self._quoted

    def whole(self, values: Sequence[str]) -> bytes:
        """The part in base64, for one recipient."""
        text = "".join([piece if isinstance(piece, str) else _lines(values[piece]) for piece in self._part])
        return encodebytes(text.replace("\n", "\r\n").encode()).replace(b"\n", b"\r\n")


def is_plain(value: str, room: int = PLAIN_LIMIT) -> bool:
    """Whether a value goes into a 7bit part as it is, and touches no relaxed form; `room`: its longest."""
    return (
        len(value) <= room
        and value.isascii()
        and value.isprintable()
        and "  " not in value
        and value[:1] != " "
        and value[-1:] != " "
    )


def quoted_value(value: str) -> bytes:
    """A value in quoted-printable, to stand between soft line breaks; its last line leaves room for one."""
    if len(value) <= _QP_LIMIT and "=" not in value and value.isascii() and value.isprintable():
        return value.encode() if value[-1:] != " " else value[:-1].encode() + b"=20"
    return _with_room(_quoted(_lines(value)))


def _normalised(part: Part, pointer: str) -> Part:
    pieces: list[str | int] = []
    for piece in part:
        if isinstance(piece, int):
            pieces.append(piece)
        elif piece:
            try:
                piece.encode()
            except UnicodeEncodeError as error:
                raise Invalid([(pointer, f"no Unicode text at character {error.start + 1}")]) from error
            pieces.append(_lines(piece))
    last = pieces[-1] if pieces else ""
    if isinstance(last, int) or not last.endswith("\n"):
        pieces.append("\n")
    return tuple(pieces)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _fits_seven_bit(part: Part, statics: bytes, rooms: Sequence[int]) -> bool:
    # bytes.translate finds controls six times faster than a character class does.
    if not statics.isascii() or len(statics.translate(None, _CONTROLS)) != len(statics):
        return False
    text = "".join([piece if isinstance(piece, str) else "x" * rooms[piece] for piece in part])
    return max(map(len, text.split("\n"))) <= _LINE_LIMIT


def _seven_bit(part: Part) -> Encoded:
    return _encoded(
        b"7bit",
        [piece if isinstance(piece, int) else piece.replace("\n", "\r\n").encode() for piece in part],
    )


def _quoted_pieces(part: Part) -> list[bytes | int]:
    pieces: list[bytes | int] = []
    for place, piece in enumerate(part):
        if isinstance(piece, int):
            pieces.append(piece)
            following = part[place + 1] if place + 1 < len(part) else ""
            if isinstance(following, int) or not following.startswith("\n"):
                pieces.append(_SOFT)
            continue
        encoded = _quoted(piece)
        if place + 1 < len(part) and not encoded.endswith(b"\n"):
            encoded = _with_room(encoded) + _SOFT
        pieces.append(encoded)
    return pieces


def _quoted(text: str) -> bytes:
    # b2a_qp breaks lines as the first line end of its input does, with a bare LF where there is none.
    return b2a_qp((text + "\n").replace("\n", "\r\n").encode(), istext=True)[:-2]


def _with_room(quoted: bytes) -> bytes:
    """Quoted-printable whose last line takes a soft break: the line is broken before its last few octets where it is full."""
    start = quoted.rfind(b"\n") + 1
    if len(quoted) - start <= _QP_LIMIT:
        return quoted
    cut = len(quoted) - 3
    while quoted[cut - 1 : cut] == b"=" or quoted[cut - 2 : cut - 1] == b"=":  # not inside an escape
        cut -= 1
    return quoted[:cut] + _SOFT + quoted[cut:]


def _encoded(encoding: bytes, pieces: Sequence[bytes | int]) -> Encoded:
    merged: list[bytes | int] = []
    for piece in pieces:
        if isinstance(piece, bytes) and merged and isinstance(last := merged[-1], bytes):
            merged[-1] = last + piece
        else:
            merged.append(piece)
    fragile: set[int] = set()
    for place, piece in enumerate(merged):
        if isinstance(piece, int):
            before = merged[place - 1] if place else b"\n"
            after = merged[place + 1] if place + 1 < len(merged) else b"\r"
            if isinstance(before, int) or isinstance(after, int) or before[-1:] in (b" ", b"\t"):
                fragile.add(piece)
    relaxed = tuple(piece if isinstance(piece, int) else relaxed_lines(piece) for piece in merged)
    return Encoded(encoding, tuple(merged), relaxed, frozenset(fragile))
