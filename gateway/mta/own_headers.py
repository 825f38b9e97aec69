"""Which header fields are the gateway's own: those that nobody who submits a message may add. Pure.

Owns the list, and the words of the refusal. Must not know their values (`mta/mime`, `mta/list_headers`, `mta/sign`). Most of these may
stand once in a message (RFC 5322 §3.6); of two, each receiver believes the one it likes, and both would be signed.

Three kinds: what the message's content says already (From, Subject …); what the gateway tells of the mail or of itself (Feedback-ID,
X-Gateway-…); and what hosts on the way write (Received, Authentication-Results …), which nobody can know before the mail has left.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import Invalid

OWN_NAMES: Final = (
    "Authentication-Results", "Bcc", "Cc", "Date", "Delivered-To", "DKIM-Signature", "DomainKey-Signature", "Feedback-ID", "From",
    "List-Unsubscribe", "List-Unsubscribe-Post", "Message-ID", "MIME-Version", "Received", "Received-SPF", "Reply-To", "Return-Path",
    "Sender", "Subject", "To",
)  # fmt: skip
"""The names, as they are spelled; compare them by `is_own`."""

OWN_PREFIXES: Final = ("ARC-", "CFBL-", "Content-", "Resent-", "X-Gateway-")
"""What all names begin with that are ours as a family."""

_NAMES: Final = frozenset(name.lower() for name in OWN_NAMES)
_PREFIXES: Final = tuple(prefix.lower() for prefix in OWN_PREFIXES)
_LIST: Final = f"{', '.join(OWN_NAMES)}, and all that begin with {', '.join(OWN_PREFIXES)}"


def is_own(name: str) -> bool:
    """Whether a field of this name is the gateway's; case does not count (RFC 5322 §1.2.2)."""
    lower = name.lower()
    return lower in _NAMES or lower.startswith(_PREFIXES)


def check_foreign(name: str, pointer: str) -> None:
    """Raise Invalid if a field of somebody else has a name of ours; names `pointer`, and which names are ours."""
    if is_own(name):
        raise Invalid([(pointer, f"{name} is set by the gateway alone; its own are {_LIST}")])
