"""The answers to single commands that aiosmtpd asks of a handler: EHLO, AUTH, MAIL, RCPT, VRFY.

Owns what is offered and who is taken as a recipient. Stateless: what is known of a connection is in its `Conversation`. RFC 6409,
RFC 4954, RFC 1870, RFC 2920, RFC 2034.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiosmtpd.smtp import MISSING, Envelope, Session

from gateway.model.address import AddressError, parse
from gateway.submission.replies import OUTAGE, line
from gateway.telemetry import Event, log

if TYPE_CHECKING:
    from gateway.submission.conversation import Conversation

RECIPIENTS_LIMIT: Final = 1_000


class Hooks:
    """One for all connections."""

    async def handle_EHLO(
        self, server: Conversation, session: Session, envelope: Envelope, hostname: str, offered: list[str]
    ) -> list[str]:
        """Offer what holds on this connection."""
        del envelope, offered
        session.host_name = hostname
        lobby = server.lobby
        words = [
            lobby.hostname, f"SIZE {lobby.limit_bytes}", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES",
            *["STARTTLS"] * (lobby.tls is not None and not server.is_encrypted),
            *["AUTH PLAIN LOGIN"] * server.may_sign_in,
        ]  # fmt: skip
        return [*(f"250-{word}" for word in words), "250 HELP"]

    async def handle_AUTH(
        self, server: Conversation, session: Session, envelope: Envelope, args: list[str]
    ) -> Any:
        """Refuse before a key is shown where it could be read on the way, or where too many wrong ones were."""
        del session, envelope, args
        if not server.may_sign_in:
            return "538 5.7.11 encryption required: STARTTLS first"
        return server.lobby.turn_away(server.peer) or MISSING

    async def handle_MAIL(
        self, server: Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Begin a message of whoever signed in; the address is not used: bounces come to us."""
        del session
        if refusal := await server.refusal():
            return refusal
        if server.lobby.is_full_for(server.site_id):
            return "452 4.3.1 too much mail at a time; try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient; one that came before is taken once."""
        del session, options
        try:
            recipient = parse(address)
        except AddressError as error:
            return line("553 5.1.3", str(error))
        if len(server.recipients) >= RECIPIENTS_LIMIT and recipient.wire not in server.recipients:
            return f"452 4.5.3 too many recipients; at most {RECIPIENTS_LIMIT} in one message"
        server.recipients[recipient.wire] = recipient
        envelope.rcpt_tos.append(recipient.wire)
        return "250 2.1.5 OK"

    async def handle_VRFY(
        self, server: Conversation, session: Session, envelope: Envelope, address: str
    ) -> str:
        """Say nothing about an address (RFC 5321 §3.5.3)."""
        del server, session, envelope, address
        return "252 2.5.2 cannot tell; send it and see"

    async def handle_exception(self, error: Exception) -> str:
        """Log a bug; say nothing about ourselves to the peer."""
        log.error(Event.LIBRARY, logger="aiosmtpd", message=repr(error), exc_info=error)
        return OUTAGE
