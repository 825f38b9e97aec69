"""Header fields by which receivers tell lists and complaints apart: List-ID, List-Unsubscribe, Feedback-ID, CFBL-Address and its kin. Pure.

Owns their values; `mta/mime` writes them. Must not know how a token is made (`mta/verp`). All of these are signed (`mta/sign`).

Feedback-ID holds plain ids and no MAC: Gmail reports only identifiers that it sees in volume, so each part must be the same
for many messages. What is one message's own goes into CFBL-Feedback-ID.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import Invalid
from gateway.model.ids import Prefix, encode
from gateway.model.stream import Stream

_SENDER_ID: Final = re.compile(r"[A-Za-z0-9]{5,15}")
_NONE: Final = "-"


def feedback_id(broadcast_id: int, site_id: int, stream: Stream, sender_id: str) -> tuple[str, str]:
    """Return Feedback-ID: `broadcast:site:stream:SenderId`, the last being the platform's own and the same on all mail.

    A message without broadcast (0) has `-` in its place.

    Raises:
        ValueError: `sender_id` is not 5 to 15 letters and digits, as Gmail wants it.
    """
    if not _SENDER_ID.fullmatch(sender_id):
        raise ValueError(f"{sender_id!r} is no SenderId; expected 5 to 15 letters and digits")
    broadcast = encode(Prefix.BROADCAST, broadcast_id) if broadcast_id else _NONE
    return "Feedback-ID", f"{broadcast}:{encode(Prefix.SITE, site_id)}:{stream}:{sender_id}"


def list_id(number: int, domain: str) -> tuple[str, str]:
    """Return List-ID (RFC 2919 §2); `domain` is the sender's, so that the identifier is the site's own."""
    return "List-ID", f"<{encode(Prefix.LIST, number)}.{domain}>"


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


def cfbl_address(address: str) -> tuple[str, str]:
    """Return CFBL-Address (RFC 9477 §5.1): where complaints go, as ARF (RFC 5965).

    The domain must be that of From, or one with a DKIM signature of its own on the message (§3.1).
    """
    return "CFBL-Address", f"{address}; report=arf"


def cfbl_feedback_id(token: str) -> tuple[str, str]:
    """Return CFBL-Feedback-ID (RFC 9477 §5.2), which comes back with the complaint; `token` is one of `mta/verp`."""
    return "CFBL-Feedback-ID", token
