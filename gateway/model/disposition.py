"""What an attempt came to: the words that mta, dispatch, feedback and the store share.

Owns the enums and the `Disposition` Struct. Must not know how a reply is read (`mta/reply.py`), when an attempt is made
again (`dispatch/retry.py`) or what suppresses (`feedback/policy.py`). The values are stored and shown: never rename one.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Stage(StrEnum):
    """Where in the SMTP session a reply or an error belongs, in the order in which a session goes through them.

    `DATA` is the DATA command and the message up to, not including, its final dot. From `DOT` on the receiver may have
    the message: what fails there without a reply is in doubt.
    """

    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"
    QUIT = "quit"


class Outcome(StrEnum):
    """What happens to the delivery next."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    IN_DOUBT = "in_doubt"


class BounceClass(StrEnum):
    """Why; the key of the retry schedules and of the suppression policy."""

    OK = "ok"
    INVALID = "invalid"
    """The address or its domain does not exist. Suppresses, so it is given only where the reply says just that."""
    MAILBOX_FULL = "mailbox_full"
    POLICY = "policy"
    SPAM = "spam"
    AUTH = "auth"
    """SPF, DKIM or DMARC failed in the receiver's eyes."""
    RATE = "rate"
    GREYLIST = "greylist"
    CONTENT = "content"
    SIZE = "size"
    CONNECTION = "connection"
    PROTOCOL = "protocol"
    TIMEOUT = "timeout"
    UNKNOWN = "unknown"
    EXPIRED = "expired"


class Scope(StrEnum):
    """Whom a deferral concerns: this recipient, or the whole lane.

    With `LANE` the attempt does not count for the delivery, and the lane waits. Only deferrals have it.
    """

    RECIPIENT = "recipient"
    LANE = "lane"


class Disposition(msgspec.Struct, frozen=True):
    """What one attempt came to, with the reply (or our own words) that says why."""

    outcome: Outcome
    bounce_class: BounceClass
    code: int
    """SMTP reply code; 0 when no reply was read."""
    enhanced: str | None
    """Enhanced status code (RFC 3463) as the receiver gave it, or ours where we are the one that judges."""
    text: str
    """One escaped line, at most 1,024 characters: safe to log and to store, still hostile to HTML."""
    scope: Scope = Scope.RECIPIENT
