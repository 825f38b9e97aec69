"""What suppresses: one policy for an in-session 550 and for a DSN that comes a day later.

Owns the decision, not the list (`store/suppressions`) and not the reading of replies and reports. Pure.
Source: docs/deliverability "What suppresses".
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway.model.disposition import BounceClass, Disposition, Outcome


class SuppressionReason(StrEnum):
    """Why an address is on the list; stored and shown."""

    HARD_BOUNCE = "hard_bounce"
    MAILBOX_FULL = "mailbox_full"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    MANUAL = "manual"


class SuppressionScope(StrEnum):
    """Which mail the suppression holds back."""

    ALL = "all"
    """Both streams."""
    MARKETING = "marketing"


class Suppression(msgspec.Struct, frozen=True):
    """An entry to make for the recipient of a delivery."""

    reason: SuppressionReason
    scope: SuppressionScope


def suppresses(disposition: Disposition) -> Suppression | None:
    """Return the suppression that a disposition calls for, or None.

    Only "address or domain does not exist" does, at once and for both streams (S29). Policy, spam, rate, authentication
    and content refusals never do, and neither does a single full mailbox (that takes 3 failures over 14 days).
    """
    if disposition.outcome is Outcome.BOUNCED and disposition.bounce_class is BounceClass.INVALID:
        return Suppression(SuppressionReason.HARD_BOUNCE, SuppressionScope.ALL)
    return None
