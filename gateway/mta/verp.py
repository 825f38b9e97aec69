"""Local parts that come back: the return path (VERP), complaints, replies, unsubscription by mail. Pure.

Owns their form: a letter for the purpose, a hyphen, 40 characters of base32, together 42 of the 64 octets that a local part
may have (RFC 5321 §4.5.3.1.1). Must not know the domain, nor what becomes of a message that arrives (`feedback/`).

    b-aeaabq7…   letter of the purpose | key id 1 | delivery 8 | day of issue 2 | MAC 14 octets (112 bits)

Letters may come back in upper case: some receivers fold them. The day is that of the delivery's acceptance, so that all
attempts have the same sender (greylisting goes by it), and the token's age counts from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from struct import Struct
from typing import Final

import msgspec

from gateway.model.token import KeyRing, Purpose, Refusal, day_of, from_base32, is_expired, to_base32

LETTERS: Final = {
    Purpose.VERP: "b",
    Purpose.FBL: "f",
    Purpose.REPLY: "r",
    Purpose.UNSUBSCRIBE_MAIL: "u",
}
"""Which purposes have local parts, and how theirs begin."""

_PURPOSES: Final = {letter: purpose for purpose, letter in LETTERS.items()}
_MAC_BYTES: Final = 14
_BODY: Final = Struct(">QH")
_TEXT_LENGTH: Final = 40


class Returned(msgspec.Struct, frozen=True):
    """What a local part of ours says: the purpose it was made for, the delivery, and the day (since 1970) of its acceptance."""

    purpose: Purpose
    delivery_id: int
    issued_day: int


def local_part(ring: KeyRing, delivery_id: int, accepted_at: datetime) -> str:
    """Return the local part of a delivery for the ring's purpose; the same however often it is asked."""
    day = day_of(accepted_at)
    return f"{LETTERS[ring.purpose]}-{token(ring, delivery_id, day)}"


def token(ring: KeyRing, delivery_id: int, day: int) -> str:
    """Return the 40 characters alone; `day` is `day_of` the delivery's acceptance."""
    return to_base32(ring.issue(day, _BODY.pack(delivery_id, day), _MAC_BYTES))


def read_local_part(rings: Mapping[Purpose, KeyRing], local: str, now: datetime) -> Returned | Refusal:
    """Return what a local part says, if it is one of ours for a purpose that has a ring here and is not too old."""
    purpose = _PURPOSES.get(local[:1].lower()) if local[1:2] == "-" else None
    ring = rings.get(purpose) if purpose else None
    return Refusal.MALFORMED if ring is None else read_token(ring, local[2:], now)


def read_token(ring: KeyRing, text: str, now: datetime) -> Returned | Refusal:
    """Return what the 40 characters say, such as they stand in CFBL-Feedback-ID."""
    octets = from_base32(text) if len(text) == _TEXT_LENGTH else None
    if octets is None:
        return Refusal.MALFORMED
    body = ring.check(octets, _MAC_BYTES)
    if isinstance(body, Refusal):
        return body
    delivery_id, issued_day = _BODY.unpack(body)
    if is_expired(ring.purpose, issued_day, day_of(now)):
        return Refusal.EXPIRED
    return Returned(ring.purpose, delivery_id, issued_day)
