"""Tokens in links and pixels: `/c/<token>` and `/o/<token>.gif`. Pure.

Owns what they hold. Must not know hosts and paths in front of them, nor whether a human came (`deliverability.md`, Opens and
clicks). The text is base64url; nothing in it expires.

    click, a link of the message     key id 1 | delivery 8 | number 2 | fingerprint 6 | MAC 10     36 characters
    click, a link of the recipient   key id 1 | delivery 8 | number 2, top bit set | URL | MAC 10  28 and 4/3 of the URL
    open                             key id 1 | delivery 8 | MAC 12                                28

The first kind finds its URL among the links of the delivery's message, by fingerprint, so that a plan that numbers its links
anew sends nobody elsewhere; the second, where Liquid made the URL, brings it along. The MAC covers both, and is checked
before anything is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

import msgspec

from gateway.campaigns.destination import FINGERPRINT_BYTES, clean
from gateway.campaigns.links import Link
from gateway.model.token import KeyRing, Refusal, from_base64url, to_base64url

_CLICK_MAC_BYTES: Final = 10
_OPEN_MAC_BYTES: Final = 12
_CARRIES_URL: Final = 0x8000
_HEAD: Final = Struct(">QH")
_DELIVERY: Final = Struct(">Q")


class Click(msgspec.Struct, frozen=True):
    """What a click token says: the link's number in its message, and where it leads: the URL or its fingerprint."""

    delivery_id: int
    number: int
    destination: str
    """Empty: to be found by `destination_of`."""
    fingerprint: bytes


def click_token(ring: KeyRing, day: int, delivery_id: int, link: Link, destination: str) -> str:
    """Return the token for a link of a delivery; `day` is `day_of` its acceptance, `destination` is clean."""
    if link.static:
        body = _HEAD.pack(delivery_id, link.number) + link.fingerprint
    else:
        body = _HEAD.pack(delivery_id, link.number | _CARRIES_URL) + destination.encode()
    return to_base64url(ring.issue(day, body, _CLICK_MAC_BYTES))


def read_click(ring: KeyRing, text: str) -> Click | Refusal:
    """Return what a click token says; a changed one is refused, and nobody is redirected."""
    octets = from_base64url(text)
    if octets is None:
        return Refusal.MALFORMED
    body = ring.check(octets, _CLICK_MAC_BYTES)
    if isinstance(body, Refusal):
        return body
    if len(body) < _HEAD.size:
        return Refusal.MALFORMED
    delivery_id, number = _HEAD.unpack_from(body)
    rest = body[_HEAD.size :]
    if not number & _CARRIES_URL:
        return Click(delivery_id, number, "", rest) if len(rest) == FINGERPRINT_BYTES else Refusal.MALFORMED
    destination = clean(rest.decode("utf-8", "replace"))  # ours, as the MAC says; and still http(s) alone
    return Click(delivery_id, number & ~_CARRIES_URL, destination, b"") if destination else Refusal.MALFORMED


def destination_of(click: Click, links: Iterable[Link]) -> str | None:
    """Return where a click leads, given the links of its message; None if no such link is there."""
    if click.destination:
        return click.destination
    return next(
        (link.destination for link in links if link.static and link.fingerprint == click.fingerprint), None
    )


def open_token(ring: KeyRing, day: int, delivery_id: int) -> str:
    """Return the token for the pixel of a delivery; `day` is `day_of` its acceptance."""
    return to_base64url(ring.issue(day, _DELIVERY.pack(delivery_id), _OPEN_MAC_BYTES))


def read_open(ring: KeyRing, text: str) -> int | Refusal:
    """Return the delivery of a pixel's token (without `.gif`)."""
    octets = from_base64url(text)
    if octets is None or len(octets) != 1 + _DELIVERY.size + _OPEN_MAC_BYTES:
        return Refusal.MALFORMED
    body = ring.check(octets, _OPEN_MAC_BYTES)
    return body if isinstance(body, Refusal) else int(_DELIVERY.unpack(body)[0])
