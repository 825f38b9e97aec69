"""Errors as SMTP replies: the one place that knows which error is which code (RFC 5321 §4.2, RFC 3463). Pure.

Owns the table. Must not know a command. What is temporary is 4xx, so that a client that keeps its mail tries again; what will not
be better tomorrow is 5xx, with what would be right.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import GatewayError, Problem, StoreUnavailable

OUTAGE: Final = "451 4.3.0 temporarily unavailable, nothing was taken; try again later"
REFUSED_KEY: Final = "535 5.7.8 authentication credentials invalid"

_TEXT_LIMIT: Final = 400  # RFC 5321 §4.5.3.1.5: 512 octets with code and CRLF
_CODES: Final[dict[str, str]] = {
    "invalid": "550 5.6.0",
    "unauthorized": "535 5.7.8",
    "forbidden": "550 5.7.1",
    "domain_unverified": "550 5.7.1",
    "suppressed": "550 5.7.1",
    "campaigns_disabled": "550 5.7.1",
    "idempotency_mismatch": "550 5.6.0",
    "quota_messages": "452 4.7.1",
    "rate_limited": "451 4.7.1",
    "unavailable": "451 4.3.0",
}


def reply_to(error: GatewayError) -> str:
    """Return the reply, one line of ASCII; an outage is not described to the peer."""
    if isinstance(error, StoreUnavailable) or not isinstance(error, Problem):
        return OUTAGE
    return line(_CODES.get(error.type, "554 5.0.0"), str(error))


def line(code: str, text: str) -> str:
    """Return code and text as one line that fits, whatever the text holds."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    return f"{code} {plain[:_TEXT_LIMIT]}"
