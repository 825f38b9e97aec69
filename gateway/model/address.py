"""One e-mail address: checked, and in the form in which it goes on the wire.

Owns the syntax of RFC 5321 §4.1.2 (Mailbox) with RFC 6531 (UTF-8) and UTS #46 (domains). Must not know MX records or
which addresses are ours. Pure.

Stricter than the RFC where it protects us: no address literals (`user@[192.0.2.1]` could name any host of our own
network), no comments or display names, no numeric top-level domains, no local part that some reader of a To field would
decode as an encoded-word. Nothing is ever cut off or repaired; a domain is
lower-cased and put into A-labels, a needlessly quoted local part loses its quotes, a UTF-8 one is put into NFC.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import idna
import msgspec

from gateway.errors import GatewayError

_ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
# Nearly every address: possessive, so one pass; labels of letters and digits with single hyphens between.
_COMMON: Final = re.compile(
    rf"([{_ATEXT}]++(?:\.[{_ATEXT}]++)*+)"
    r"@((?:[A-Za-z0-9]++(?:-[A-Za-z0-9]++)*+\.)++[A-Za-z]{2,63}+)"
)
_DOT_ATOM: Final = re.compile(rf"[\u0080-\U0010ffff{_ATEXT}]+(?:\.[\u0080-\U0010ffff{_ATEXT}]+)*")
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*+)"')
_ENCODED_WORD: Final = re.compile(r"=\?[^?]*\?[bBqQ]\?")  # RFC 2047 §2, and more
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

LOCAL_LIMIT_BYTES: Final = 64  # RFC 5321 §4.5.3.1.1
DOMAIN_LIMIT_BYTES: Final = 255  # §4.5.3.1.2
ADDRESS_LIMIT_BYTES: Final = 254  # §4.5.3.1.3: a path of 256 with its angle brackets
_LOOKED_AT: Final = (
    1_000  # UTS #46 may make a domain shorter, but not by so much; looking at 16 MB took seconds
)
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp", "Zs"})
_JOINERS: Final = "\u200c\u200d"  # Indic and Persian words need them


class AddressError(GatewayError):
    """Text that is no address; `position` is the character (from 0) where that shows. The message never repeats it."""

    position: int

    def __init__(self, problem: str, position: int) -> None:
        self.position = position
        super().__init__(f"{problem} (at character {position + 1})")


class Address(msgspec.Struct, frozen=True, gc=False):
    """A checked address. `local` and `domain` are the wire form, `original` is what was given."""

    local: str
    domain: str
    """Lower case, A-labels."""
    original: str

    @property
    def wire(self) -> str:
        """What stands between the angle brackets of MAIL and RCPT."""
        return f"{self.local}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only receivers with SMTPUTF8 (RFC 6531) can take it."""
        return not self.local.isascii()


def parse(text: str) -> Address:
    """Check one address, without display name, comment or angle brackets.

    Raises:
        AddressError: what is wrong, and where.
    """
    common = _COMMON.fullmatch(text) if "=?" not in text else None
    if common and len(text) <= ADDRESS_LIMIT_BYTES and common.end(1) <= LOCAL_LIMIT_BYTES:
        local, domain = common.groups()
        if len(domain) <= 64:  # no label can be longer than 63, and "xn--" never gets here
            return Address(local, domain.lower(), text)
    return _parse_any(text)


def _parse_any(text: str) -> Address:
    if not text:
        raise AddressError("empty; expected local@domain", 0)
    if len(text) > _LOOKED_AT:
        raise AddressError(f"{len(text)} characters long; at most {ADDRESS_LIMIT_BYTES} octets", _LOOKED_AT)
    for position, char in enumerate(text):
        if char < " " or "\x7f" <= char <= "\x9f":
            raise AddressError(f"control character U+{ord(char):04X}", position)
    at = _end_of_quoted(text) if text[0] == '"' else text.find("@")
    if at < 0 or text[at : at + 1] != "@":
        raise AddressError(
            "no @ after the local part; expected local@domain", max(at, 0) if at >= 0 else len(text)
        )
    local = _check_local(text[:at])
    domain = _check_domain(text[at + 1 :], at + 1)
    size_bytes = len(text[:at].encode()) + 1 + len(domain)  # as given: NFC may only have made it shorter
    if size_bytes > ADDRESS_LIMIT_BYTES:
        raise AddressError(f"{size_bytes} octets long; at most {ADDRESS_LIMIT_BYTES}", len(text) - 1)
    return Address(local, domain, text)


def _end_of_quoted(text: str) -> int:
    quoted = _QUOTED.match(text)
    if quoted is None:
        raise AddressError("a quoted local part that does not end or holds what it must not", 0)
    return quoted.end()


def _check_local(local: str) -> str:
    if not local:
        raise AddressError("nothing before the @", 0)
    if word := _ENCODED_WORD.search(local):
        raise AddressError("what looks like an encoded-word", word.start())
    if not local.isascii():
        local = _check_unicode(local)
    if len(local.encode()) > LOCAL_LIMIT_BYTES:
        raise AddressError(
            f"local part of {len(local.encode())} octets; at most {LOCAL_LIMIT_BYTES}", LOCAL_LIMIT_BYTES
        )
    if local[0] == '"' and (quoted := _QUOTED.fullmatch(local)):
        content = re.sub(r"\\(.)", r"\1", quoted[1])
        # RFC 5321 §4.1.2: "a"@x and a@x are the same mailbox, and the unquoted form is to be preferred.
        return content if _DOT_ATOM.fullmatch(content) else '"' + re.sub(r'(["\\])', r"\\\1", content) + '"'
    if not _DOT_ATOM.fullmatch(local):
        position, problem = _where_not_dot_atom(local)
        raise AddressError(problem, position)
    return local


def _where_not_dot_atom(local: str) -> tuple[int, str]:
    for position, char in enumerate(local):
        if char == "." and (position in (0, len(local) - 1) or local[position - 1] == "."):
            return position, "a dot that does not stand between two characters"
        if char != "." and not _DOT_ATOM.fullmatch(char):
            return position, f"{char!r} is not allowed in an unquoted local part"
    raise AssertionError("called for a valid local part")


def _check_unicode(local: str) -> str:
    for position, char in enumerate(local):
        unsafe = unicodedata.category(char) in _UNSAFE_CATEGORIES and char not in _JOINERS
        if not char.isascii() and (unsafe or 0xFDD0 <= ord(char) <= 0xFDEF):
            raise AddressError(f"unsafe character U+{ord(char):04X}", position)
    if unicodedata.combining(local[0]):
        raise AddressError("begins with a combining character", 0)
    return unicodedata.normalize("NFC", local)  # RFC 6532 §3.1


def _check_domain(domain: str, offset: int) -> str:
    if not domain:
        raise AddressError("nothing after the @", offset)
    if domain[0] == "[":
        raise AddressError("address literals are not accepted; expected a domain name", offset)
    lowered = domain.lower()
    if not lowered.isascii() or "--" in lowered:
        lowered = _to_a_labels(lowered, offset)
    position = offset
    for label in lowered.split("."):
        if not _LABEL.fullmatch(label):
            if not label:
                raise AddressError("an empty label (two dots, or one at the end)", position)
            if len(label) > 63:
                raise AddressError(f"label of {len(label)} octets; at most 63", position)
            raise AddressError("a domain has letters, digits and inner hyphens only", position)
        position += len(label) + 1
    if len(lowered) > DOMAIN_LIMIT_BYTES:
        raise AddressError(f"domain of {len(lowered)} octets; at most {DOMAIN_LIMIT_BYTES}", offset)
    if lowered.rpartition(".")[2].isdecimal():
        raise AddressError("the last label is a number; expected a domain name", offset)
    return lowered


def _to_a_labels(domain: str, offset: int) -> str:
    try:
        encoded = idna.encode(domain, uts46=True, std3_rules=True, transitional=False).decode("ascii")
        # A label that came as xn-- must be what its own U-label encodes to.
        for label in encoded.split("."):
            if label.startswith("xn--"):
                idna.ulabel(label)
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError(f"no valid domain name: {error}", offset) from error
    return encoded
