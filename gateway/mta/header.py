"""Header fields in bytes: checked, encoded (RFC 2047), folded (RFC 5322 §2.2.3).

Owns the one place where text becomes a header line, so that CR, LF and NUL have one door to be stopped at. Must not know
which fields a message has (`mta/mime.py`). Pure.

The stdlib's EmailMessage is not used: on Python 3.11.7 it turned an encoded-word into a real Bcc field.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import a2b_base64, a2b_qp
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from gateway.errors import Invalid
from gateway.model.address import AddressError, parse

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FOLD_AT: Final = 78
_LINE_LIMIT: Final = 998
_WORD_LIMIT: Final = 75  # RFC 2047 §2
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
# More than RFC 2047 §2 allows, since readers take more: spaces in it, no end, any charset. One may stand in another, so what it
# holds is only looked at (up to the next question mark) and not passed over.
_ENCODED_WORD: Final = re.compile(r"=\?([^?\s]*)\?([bBqQ])\?(?=([^?]*))")
_LINE_END_IN_Q: Final = re.compile(r"=0[0AD]", re.IGNORECASE)
# In these an octet below 0x80 is its ASCII character. In others (UTF-7, UTF-16, EBCDIC) a line end may look like anything.
_CHARSET: Final = re.compile(
    r"(?:utf-?8|(?:us-)?ascii|iso-8859-\d{1,2}|windows-\d{3,4}|cp125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(?:jp|kr)|shift_jis"
    r"|iso-2022-(?:jp|kr))(?:\*[a-z0-9-]*)?",  # RFC 2231 §5: a language may follow
    re.IGNORECASE,
)
_NESTED_LIMIT: Final = 3
_NO_BASE64: Final = re.compile(r"[^A-Za-z0-9+/]")
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,60}")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')  # RFC 5322 §3.2.4
_PLAIN_PHRASE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_Q_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q: Final = [chr(b) if b in _Q_SAFE else "_" if b == 0x20 else f"={b:02X}" for b in range(256)]


def text_field(name: str, value: str, pointer: str) -> bytes:
    """Return an unstructured field (Subject and its kin) with its CRLF; `value` reads back exactly as given.

    Raises:
        Invalid: controls in the value, also inside an encoded-word it brings along; no field name. Names `pointer`.
    """
    check_name(name, pointer)
    check_value(value, pointer)
    plain = value.isascii() and "=?" not in value and "\t" not in value and "  " not in value
    if plain and value.strip(" ") == value:
        folded = _fold(f"{name}: ", value.split(" ")) if value else f"{name}: "
        if max(map(len, folded.split("\r\n"))) <= _LINE_LIMIT:
            return folded.encode("ascii") + b"\r\n"
    return _fold(f"{name}: ", _encoded_words(value, _WORD_LIMIT - len(name) - 2)).encode("ascii") + b"\r\n"


def raw_field(name: str, value: str, pointer: str) -> bytes:
    """Return a structured field whose value is ASCII already, folded at its spaces.

    Raises:
        Invalid: controls, other than ASCII, or a word too long for a line.
    """
    check_name(name, pointer)
    check_value(value, pointer)
    folded = _fold(f"{name}: ", value.split(" "))
    if not value.isascii() or max(map(len, folded.split("\r\n"))) > _LINE_LIMIT:
        raise Invalid([(pointer, f"expected ASCII words of at most {_LINE_LIMIT} characters")])
    return folded.encode("ascii") + b"\r\n"


def mailbox_field(name: str, value: str, pointer: str) -> bytes:
    """Return an address field of one mailbox, given as `local@domain` or `Display Name <local@domain>`.

    The domain goes out in A-labels; a UTF-8 local part as it is (RFC 6532).

    Raises:
        Invalid: no mailbox, or controls in the display name.
    """
    check_value(value, pointer)
    display, address = split_mailbox(value)
    try:
        wire = parse(address).wire
    except AddressError as error:
        raise Invalid([(pointer, str(error))]) from error
    if not display:
        return f"{name}: {wire}\r\n".encode()
    if _PLAIN_PHRASE.fullmatch(display) and "=?" not in display:
        words = display.split(" ")
    elif display.isascii() and "=?" not in display and "\t" not in display and len(display) < 60:
        words = [_quoted(display)]
    else:
        words = _encoded_words(display, _WORD_LIMIT - len(name) - 2)
    return _fold(f"{name}: ", [*words, f"<{wire}>"]).encode() + b"\r\n"


@lru_cache(maxsize=1_024)  # a broadcast's deliveries are accepted together
def date_field(name: str, date: datetime) -> bytes:
    """Return a date field (RFC 5322 §3.3), in UTC.

    Raises:
        ValueError: `date` is not aware.
    """
    if date.tzinfo is None:
        raise ValueError("a date without time zone; expected an aware datetime")
    utc = date.astimezone(UTC)
    return (
        f"{name}: {_DAYS[utc.weekday()]}, {utc.day:02} {_MONTHS[utc.month - 1]} {utc.year:04}"
        f" {utc.hour:02}:{utc.minute:02}:{utc.second:02} +0000\r\n"
    ).encode("ascii")


def split_mailbox(value: str) -> tuple[str, str]:
    """Split `Display Name <local@domain>` into display name (unquoted) and address; the first may be empty."""
    value = value.strip(" \t")
    if not value.endswith(">") or "<" not in value:
        return "", value
    display, _, address = value[:-1].rpartition("<")
    display = display.strip(" \t")
    if quoted := _QUOTED.fullmatch(display):
        display = re.sub(r"\\(.)", r"\1", quoted[1])
    return display, address


def join_mailbox(display: str, address: str) -> str:
    """Return display name (without `<` and `>`) and address as one text, which `split_mailbox` splits into the same."""
    if _QUOTED.fullmatch(display):
        display = _quoted(display)
    return f"{display} <{address}>" if display else address


def check_name(name: str, pointer: str) -> None:
    """Raise Invalid unless `name` is a field name; narrower than RFC 5322 §3.6.8, as all names in use are."""
    if not _NAME.fullmatch(name):
        raise Invalid([(pointer, "expected a header name of letters, digits and hyphens")])


def check_value(value: str, pointer: str) -> None:
    """Raise Invalid if `value` holds a control other than tab, as it is or inside an encoded-word, or is no Unicode.

    An encoded-word in a charset that could hide a line end is refused, too.
    """
    if control := _CONTROL.search(value):
        raise Invalid(
            [(pointer, f"control character U+{ord(control[0]):04X} at character {control.start() + 1}")]
        )
    if "=?" in value and (word := _hostile_word(value)) is not None:
        raise Invalid([(pointer, f"{word[1]} in an encoded-word at character {word[0] + 1}")])
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Invalid([(pointer, f"no Unicode text at character {error.start + 1}")]) from error


def _hostile_word(value: str, depth: int = 0) -> tuple[int, str] | None:
    """Return where an encoded-word stands that might become a line end for some reader, and what is wrong with it.

    In time proportional to the value: of what Q encodes, everything to the end of the value is looked at, once.
    """
    in_q = False
    for word in _ENCODED_WORD.finditer(value):
        at, (charset, encoding, inside) = word.start(), word.groups()
        if not _CHARSET.fullmatch(charset):
            return at, "an unknown charset"
        if encoding in "qQ":
            if not in_q and _LINE_END_IN_Q.search(value, word.end()):
                return at, "line end or NUL"
            in_q = True
            decoded = [a2b_qp(inside.encode("utf-8", "replace"), header=True)]
        else:
            decoded = _decoded_base64(inside)
        for raw in decoded:
            if b"\r" in raw or b"\n" in raw or b"\0" in raw:
                return at, "line end or NUL"
            if b"=?" in raw:  # for readers that decode twice
                if depth == _NESTED_LIMIT:
                    return at, "another encoded-word"
                if (inner := _hostile_word(raw.decode("utf-8", "replace"), depth + 1)) is not None:
                    return at, inner[1]
    return None


def _decoded_base64(text: str) -> list[bytes]:
    """Decode as readers do: what is no base64 is passed over, padding may be missing; after padding they stop, or go on anew."""
    found: list[bytes] = []
    for piece in text.split("="):
        clean = _NO_BASE64.sub("", piece)
        clean = clean[: len(clean) - (len(clean) % 4 == 1)]
        found.append(a2b_base64(clean + "=" * (-len(clean) % 4)))
    return found


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _fold(head: str, words: list[str]) -> str:
    """Join words with spaces, folding before the one that would pass 78 characters; never an empty line."""
    lines, line = list[str](), head
    fresh = True  # nothing but the name or the fold stands on the line
    for word in words:
        if fresh:
            line += word
        elif len(line) + 1 + len(word) > _FOLD_AT:
            lines.append(line)
            line = " " + word
        else:
            line += " " + word
        fresh = False
    return "\r\n".join([*lines, line])


def _encoded_words(text: str, first_limit: int) -> list[str]:
    """Return UTF-8 encoded-words, whole characters each; white space between them vanishes when they are read."""
    as_q = sum(len(_Q[b]) for b in text.encode()) <= len(text.encode()) * 4 / 3
    words: list[str] = []
    limit, piece, size = first_limit - 12, "", 0
    for char in text:
        raw = char.encode()
        cost = sum(len(_Q[b]) for b in raw) if as_q else len(raw)
        if piece and size + cost > (limit if as_q else limit * 3 // 4):
            words.append(_encoded_word(piece, as_q))
            limit, piece, size = _WORD_LIMIT - 12, "", 0
        piece, size = piece + char, size + cost
    return [*words, _encoded_word(piece, as_q)]


def _encoded_word(text: str, as_q: bool) -> str:
    raw = text.encode()
    return (
        f"=?utf-8?q?{''.join(_Q[b] for b in raw)}?="
        if as_q
        else f"=?utf-8?b?{b64encode(raw).decode('ascii')}?="
    )
