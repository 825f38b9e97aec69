"""The token of an unsubscribe link, `/u/<token>`: whom it unsubscribes, sealed. Pure.

Owns what it holds. Must not know the page behind it, nor what unsubscribing does.

    key id 1 | AES-SIV (RFC 5297): tag 16 | site 4 | list 4 | delivery 8 | address         base64url: 44 and 4/3 of the address

It never expires, and must work when the delivery's records are gone, when the contact was deleted and imported anew, for mail
that no contact was behind, and while Postgres is down. So it names the recipient itself: suppressions go by address. No URL may
show an address (security 20): without the key it shows only how long the address is. SIV gives the same token on every
attempt, needs no nonce, and authenticates: a changed token does not open. 1.6 µs (2026-11-26).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from gateway.model.token import KeyRing, Refusal, from_base64url, to_base64url

_HEAD: Final = Struct(">IIQ")
_TAG_BYTES: Final = 16


class OptOut(msgspec.Struct, frozen=True):
    """Who opts out of what: `list_id` is 0 where no list was behind the message, `delivery_id` where no delivery was."""

    site_id: int
    list_id: int
    delivery_id: int
    address: str


class SealRing:
    """The keys of one purpose (`unsubscribe`, or `resubscribe` for the links back), ready to seal; immutable."""

    def __init__(self, ring: KeyRing) -> None:
        """Take the keys of a ring."""
        self._ring = ring
        self._ciphers = {
            key.id: (AESSIV(key.secret), [f"{ring.purpose}/{key.id}".encode()]) for key in ring.keys
        }

    def seal(self, day: int, opt_out: OptOut) -> str:
        """Return the token; `day` is `day_of` the delivery's acceptance. The same for the same day and opt-out."""
        key_id = self._ring.key_of(day).id
        cipher, purpose = self._ciphers[key_id]
        body = _HEAD.pack(opt_out.site_id, opt_out.list_id, opt_out.delivery_id) + opt_out.address.encode()
        return to_base64url(key_id.to_bytes(1, "big") + cipher.encrypt(body, purpose))

    def open(self, text: str) -> OptOut | Refusal:
        """Return what a token says, if it is one of ours."""
        octets = from_base64url(text)
        if octets is None or len(octets) <= 1 + _TAG_BYTES + _HEAD.size:
            return Refusal.MALFORMED
        found = self._ciphers.get(octets[0])
        if found is None:
            return Refusal.UNKNOWN_KEY
        cipher, purpose = found
        try:
            body = cipher.decrypt(octets[1:], purpose)
        except InvalidTag:
            return Refusal.WRONG_MAC
        site_id, list_id, delivery_id = _HEAD.unpack_from(body)
        return OptOut(site_id, list_id, delivery_id, body[_HEAD.size :].decode())
