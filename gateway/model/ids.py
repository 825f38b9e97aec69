"""Ids as the world sees them: `msg_0000000001j4z`, a prefix and 13 characters that sort as the numbers do. Pure.

Owns the alphabet (Crockford's base32, lower case: no i, l, o, u) and the prefixes. Must not know a table.

A number has 63 bits, so the first of 13 characters is at most `7`. A delivery's number is its acceptance's number * 1024 +
its place there; 1,024 is two characters, so the deliveries of one acceptance share their first 11: `delivery_ids` encodes
500 of them at the price of one and 500 concatenations.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from gateway.errors import Invalid

PLACES: Final = 1024
"""Deliveries that one acceptance can hold."""

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH: Final = 13
_MAX: Final = (1 << 63) - 1
_VALUES: Final = {char: value for value, char in enumerate(_ALPHABET)}
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)


class Prefix(StrEnum):
    """What an id names."""

    SITE = "site"
    KEY = "key"
    DOMAIN = "dom"
    CONTACT = "con"
    LIST = "lst"
    IMPORT = "imp"
    TEMPLATE = "tpl"
    BROADCAST = "brd"
    MESSAGE = "msg"
    DELIVERY = "dlv"
    LANE = "lane"


SMALL: Final = frozenset(
    {Prefix.SITE, Prefix.KEY, Prefix.DOMAIN, Prefix.LIST, Prefix.IMPORT, Prefix.TEMPLATE, Prefix.LANE}
)
"""Kinds of which there are few: their numbers have 31 bits."""


def encode(prefix: str, number: int) -> str:
    """Return the id of a number.

    Raises:
        ValueError: the number is negative or has more than 63 bits: a bug of the caller.
    """
    if not 0 <= number <= _MAX:
        raise ValueError(f"{number} is no id; expected 0 to 2^63 - 1")
    return f"{prefix}_{_digits(number)}"


def decode(prefix: str, text: str, pointer: str = "") -> int:
    """Return the number of an id; `pointer` says where it stood.

    Raises:
        Invalid: another prefix, another length, a character that the alphabet does not have, or a number above 63 bits (31 for `SMALL`).
    """
    given, underscore, digits = text.partition("_")
    if not underscore or given != prefix:
        raise Invalid([(pointer, f"expected an id that begins with {prefix}_")])
    if len(digits) != _LENGTH:
        raise Invalid([(pointer, f"expected {_LENGTH} characters after {prefix}_, not {len(digits)}")])
    number = 0
    for position, char in enumerate(digits):
        value = _VALUES.get(char)
        if value is None:
            raise Invalid(
                [(pointer, f"character {len(prefix) + position + 2} of the id is none of {_ALPHABET}")]
            )
        number = number << 5 | value
    bits = 31 if prefix in SMALL else 63
    if number >> bits:
        raise Invalid([(pointer, f"no id: its number has more than {bits} bits")])
    return number


def delivery_ids(acceptance: int, count: int) -> list[str]:
    """Return the ids of the first `count` deliveries of an acceptance, at most 1,024, in the order of their places."""
    if not 0 <= count <= PLACES:
        raise ValueError(f"{count} deliveries in one acceptance; at most {PLACES}")
    shared = encode(Prefix.DELIVERY, acceptance * PLACES)[:-2]
    return [shared + pair for pair in _PAIRS[:count]]


def _digits(number: int) -> str:
    # Ten bits at a time: seven look-ups instead of thirteen.
    return (
        _ALPHABET[number >> 60]
        + _PAIRS[number >> 50 & 1023]
        + _PAIRS[number >> 40 & 1023]
        + _PAIRS[number >> 30 & 1023]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )
