"""From a receiver's reply, or from the lack of one, to a disposition.

Owns reading reply lines (escaped, capped) and judging them: the enhanced code first, then the text, then the bare code,
by the tables of `mta/reply_rules.py`. Pure. Must not know sockets, lanes or retries. RFC 5321 §4.2, RFC 3463, RFC 5248.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from gateway.errors import GatewayError
from gateway.model.disposition import BounceClass, Disposition, Outcome, Scope, Stage
from gateway.mta import reply_rules as rules

TEXT_LIMIT: Final = 1_024
"""Longest reply text kept, in characters; a whole reply is capped by the wire (32 KiB)."""

_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[\s:,;-]+|$)")
# qmail and its kin put the enhanced code in brackets behind the text: "sorry, no mailbox here (#5.1.1)".
_TRAILING_ENHANCED: Final = re.compile(r"#([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
# Controls, line separators and bidirectional overrides: whatever could forge a log line or a terminal's output.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_BEFORE_MAIL: Final = frozenset({Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.STARTTLS})
_OF_THE_RECIPIENT: Final = frozenset({Stage.RCPT, Stage.DATA, Stage.DOT})
_OF_THE_LANE: Final = frozenset({BounceClass.RATE, BounceClass.CONNECTION})


class Reply(msgspec.Struct, frozen=True):
    """One SMTP reply. `text` is one line, its lines joined by a space, without codes, escaped and capped."""

    code: int
    enhanced: str | None
    text: str


class ReplyMalformed(GatewayError):
    """Bytes that are no SMTP reply: the connection cannot be trusted any more."""


class ErrorKind(StrEnum):
    """Why there is no reply to judge."""

    CONNECTION_LOST = "connection lost"
    CONNECTION_REFUSED = "connection refused"
    TIMEOUT = "time-out"
    TOO_SLOW = "receiver too slow"
    TLS_FAILED = "TLS handshake failed"
    TLS_REQUIRED = "TLS required but not offered"
    MALFORMED = "malformed reply"
    DNS_TEMPORARY = "DNS look-up failed for now"
    NO_DOMAIN = "domain does not exist"
    NULL_MX = "domain does not accept mail (null MX)"
    NO_ROUTE = "no usable MX host"
    NO_SMTPUTF8 = "receiver does not take UTF-8 addresses"
    TOO_LARGE = "message is larger than the receiver takes"
    EXPIRED = "expired before it could be delivered"


def parse_reply(lines: Sequence[bytes]) -> Reply:
    """Read the lines of one reply, with or without their line ends, the last one included.

    The code is the last line's (RFC 5321 §4.2.1 wants them equal; some receivers' are not). Invalid UTF-8, NUL and other
    controls come out as backslash escapes, and the text is cut at `TEXT_LIMIT` characters.

    Raises:
        ReplyMalformed: no line, or a last line that does not begin with a code between 200 and 599.
    """
    if not lines:
        raise ReplyMalformed("no reply line; expected a three-digit code")
    last = lines[-1].rstrip(b"\r\n")
    head = last[:3]
    if not (head.isdigit() and b"200" <= head <= b"599" and len(head) == 3) or last[3:4] not in (
        b" ",
        b"",
        b"-",
    ):
        raise ReplyMalformed(f"reply begins with {last[:16]!r}; expected a code from 200 to 599 and a space")
    code = int(head)
    if len(lines) == 1:
        text = _escape(last[4:])
        enhanced, text = _split_enhanced(text)
    else:
        enhanced, parts = None, list[str]()
        for line in lines:
            if sum(map(len, parts)) > TEXT_LIMIT:
                break
            found, part = _split_enhanced(_escape(line.rstrip(b"\r\n")[4:]))
            enhanced = enhanced or found
            if part:
                parts.append(part)
        text = " ".join(parts)[:TEXT_LIMIT]
    if enhanced is None and code >= 400 and (trailing := _TRAILING_ENHANCED.search(text)):
        enhanced = trailing[1]
    return Reply(code, enhanced, text)


def classify(reply: Reply, stage: Stage) -> Disposition:
    """Judge a reply that ends an attempt: a refusal at any stage, or whatever answers the final dot.

    Only a 2xx at `Stage.DOT` delivers. A 2xx or 3xx elsewhere means that the caller had no reason to stop there (a 250
    where DATA wanted 354): it is a deferral of class protocol.
    """
    code = reply.code
    if code < 400:
        if stage is Stage.DOT and code < 300:
            return Disposition(Outcome.DELIVERED, BounceClass.OK, code, reply.enhanced, reply.text)
        return _as(Outcome.DEFERRED, BounceClass.PROTOCOL, reply, Scope.RECIPIENT)
    bounce_class = _bounce_class(reply, stage)
    if stage in _BEFORE_MAIL:
        # Nobody has judged the message yet: even a 554 banner (RFC 5321 §3.1) is the host's refusal, not the recipient's.
        if bounce_class in (BounceClass.UNKNOWN, BounceClass.INVALID):
            bounce_class = BounceClass.CONNECTION if code < 500 else BounceClass.POLICY
        return _as(Outcome.DEFERRED, bounce_class, reply, Scope.LANE)
    if code >= 500:
        # RFC 5321 §4.5.3.1.10: 552 for too many recipients is to be read as 452.
        if code == 552 and bounce_class is BounceClass.RATE and stage is Stage.RCPT:
            return _as(Outcome.DEFERRED, bounce_class, reply, Scope.RECIPIENT)
        return _as(Outcome.BOUNCED, bounce_class, reply, Scope.RECIPIENT)
    of_lane = code == 421 or (bounce_class in _OF_THE_LANE and not _one_mailbox_only(reply))
    return _as(Outcome.DEFERRED, bounce_class, reply, Scope.LANE if of_lane else Scope.RECIPIENT)


def from_error(kind: ErrorKind, stage: Stage, detail: str = "") -> Disposition:
    """Judge an attempt that ended without a reply; `detail` (bytes seen, exception text) is escaped and capped.

    Once the final dot may have left, the receiver may have the message: in doubt. RFC 5321 §4.5.3.2.6, §6.1.
    """
    outcome, bounce_class, enhanced, scope = _ERRORS[kind]
    if stage is Stage.DOT and outcome is Outcome.DEFERRED:
        outcome, scope = Outcome.IN_DOUBT, Scope.RECIPIENT
    text = f"{kind.value} at {stage.value}" + (
        f": {_escape(detail.encode('utf-8', 'backslashreplace'))}" if detail else ""
    )
    return Disposition(outcome, bounce_class, 0, enhanced, text[:TEXT_LIMIT], scope)


_LANE_WAITS: Final = (Outcome.DEFERRED, BounceClass.CONNECTION, None, Scope.LANE)
_ERRORS: Final[dict[ErrorKind, tuple[Outcome, BounceClass, str | None, Scope]]] = {
    ErrorKind.CONNECTION_LOST: _LANE_WAITS,
    ErrorKind.CONNECTION_REFUSED: _LANE_WAITS,
    ErrorKind.TIMEOUT: (Outcome.DEFERRED, BounceClass.TIMEOUT, "4.4.2", Scope.LANE),
    ErrorKind.TOO_SLOW: (Outcome.DEFERRED, BounceClass.TIMEOUT, "4.4.2", Scope.LANE),
    ErrorKind.TLS_FAILED: (Outcome.DEFERRED, BounceClass.CONNECTION, "4.7.5", Scope.LANE),
    ErrorKind.TLS_REQUIRED: (Outcome.DEFERRED, BounceClass.CONNECTION, "4.7.10", Scope.LANE),
    # A lane-wide wait for one odd reply would let one message stop a destination: this one counts.
    ErrorKind.MALFORMED: (Outcome.DEFERRED, BounceClass.PROTOCOL, "4.5.0", Scope.RECIPIENT),
    ErrorKind.DNS_TEMPORARY: (Outcome.DEFERRED, BounceClass.CONNECTION, "4.4.3", Scope.LANE),
    ErrorKind.NO_DOMAIN: (Outcome.BOUNCED, BounceClass.INVALID, "5.1.2", Scope.RECIPIENT),
    ErrorKind.NULL_MX: (Outcome.BOUNCED, BounceClass.INVALID, "5.1.10", Scope.RECIPIENT),  # RFC 7505 §4.2
    ErrorKind.NO_ROUTE: (Outcome.DEFERRED, BounceClass.CONNECTION, "4.4.4", Scope.LANE),
    ErrorKind.NO_SMTPUTF8: (Outcome.BOUNCED, BounceClass.CONTENT, "5.6.7", Scope.RECIPIENT),  # RFC 6531 §3.5
    ErrorKind.TOO_LARGE: (Outcome.BOUNCED, BounceClass.SIZE, "5.3.4", Scope.RECIPIENT),  # RFC 1870 §6.1
    ErrorKind.EXPIRED: (Outcome.BOUNCED, BounceClass.EXPIRED, "4.4.7", Scope.RECIPIENT),
}


def _as(outcome: Outcome, bounce_class: BounceClass, reply: Reply, scope: Scope) -> Disposition:
    return Disposition(outcome, bounce_class, reply.code, reply.enhanced, reply.text, scope)


def _bounce_class(reply: Reply, stage: Stage) -> BounceClass:
    detail = reply.enhanced[2:] if reply.enhanced is not None else ""
    if firm := rules.FIRM_CODES.get(detail):
        return firm
    text = reply.text.lower()
    for bounce_class, pattern in rules.PROTECTS:
        if pattern.search(text):
            return bounce_class
    told = next((bounce_class for bounce_class, pattern in rules.TELLS if pattern.search(text)), None)
    if told is BounceClass.INVALID or (
        detail in rules.NO_SUCH_CODES and told is not BounceClass.MAILBOX_FULL
    ):
        return _if_of_the_recipient(reply, stage)
    if told is not None:
        return told
    if detail:
        return rules.LOOSE_CODES.get(detail) or rules.SUBJECTS.get(detail[0], BounceClass.UNKNOWN)
    if reply.code == 552 and stage is not Stage.RCPT:
        return BounceClass.SIZE
    bare = rules.BARE_CODES.get(reply.code, BounceClass.UNKNOWN)
    return _if_of_the_recipient(reply, stage) if bare is BounceClass.INVALID else bare


def _if_of_the_recipient(reply: Reply, stage: Stage) -> BounceClass:
    """`INVALID` suppresses: only a permanent reply to what concerns a recipient may say it."""
    if reply.code < 500:
        return BounceClass.UNKNOWN
    return BounceClass.INVALID if stage in _OF_THE_RECIPIENT else BounceClass.POLICY


def _one_mailbox_only(reply: Reply) -> bool:
    """Gmail's 450 4.2.1 "is receiving mail at a rate": one user's limit, not the destination's."""
    return reply.enhanced is not None and reply.enhanced.startswith("4.2.")


def _split_enhanced(text: str) -> tuple[str | None, str]:
    if text[1:2] != ".":
        return None, text
    match = _ENHANCED.match(text)
    return (match[1], text[match.end() :]) if match else (None, text)


def _escape(raw: bytes) -> str:
    text = raw[: TEXT_LIMIT * 4].decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = _UNSAFE.sub(lambda unsafe: f"\\x{ord(unsafe[0]):02x}", text)
    return text[:TEXT_LIMIT].strip()
