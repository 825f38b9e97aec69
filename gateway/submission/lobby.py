"""What all connections of the SMTP door share: who may come in, how much they may hold together, who shows which key.

Owns the limits and the signing in. Must not know a command of SMTP.
"""

from __future__ import annotations

import math
import ssl
from collections import Counter
from typing import Final

from gateway.errors import Forbidden, GatewayError, StoreUnavailable, Unauthorized
from gateway.feedback.doorkeeper import Doorkeeper
from gateway.store.sites import Holder
from gateway.submission.desk import Desk
from gateway.submission.penalties import Penalties
from gateway.submission.replies import REFUSED_KEY, line, reply_to
from gateway.telemetry import Event, log

MOST_CONNECTIONS: Final = 1_000
MOST_CONNECTIONS_PER_PEER: Final = 250
MOST_STRANGERS: Final = 500
"""Of all connections, those that have shown no key: who has one finds room beside any number of others."""
MOST_STRANGERS_PER_PEER: Final = 100
MOST_HANDSHAKES: Final = 200
MOST_HANDSHAKES_PER_PEER: Final = 50
HANDSHAKE_S: Final = 30
MOST_HELD_BYTES: Final = 128 * 1_048_576
"""Of messages under way, over all connections; they are copied some times on their way to the database."""
SITE_SHARE: Final = 4
"""One site's messages under way hold a quarter of that, or one message, at most."""

SCOPE: Final = "send"


class Lobby:
    """One for all connections of a process."""

    # Mutable on purpose: it counts.
    def __init__(
        self, desk: Desk, tls: ssl.SSLContext | None, *, most_held_bytes: int = MOST_HELD_BYTES
    ) -> None:
        """`tls`: for STARTTLS; None: it is not offered."""
        self.desk, self.tls = desk, tls
        self.hostname = desk.config.mail.bounce_domain
        self.limit_bytes = desk.config.submission.message_limit_bytes
        self.requires_tls = desk.config.submission.require_tls
        self.doorkeeper = Doorkeeper(MOST_CONNECTIONS, MOST_CONNECTIONS_PER_PEER)
        self.strangers = Doorkeeper(MOST_STRANGERS, MOST_STRANGERS_PER_PEER)
        """Who has shown no key yet."""
        self.threshold = Doorkeeper(MOST_HANDSHAKES, MOST_HANDSHAKES_PER_PEER)
        """Who has begun a handshake and not ended it."""
        self.held_bytes = 0
        self.most_held_bytes = most_held_bytes
        self._held_by_site: Counter[int] = Counter()
        self._penalties = Penalties()

    def hold(self, site_id: int, size_bytes: int) -> None:
        """Count what a site's messages under way take more, or less, of the memory."""
        self.held_bytes += size_bytes
        self._held_by_site[site_id] += size_bytes
        if not self._held_by_site[site_id]:
            del self._held_by_site[site_id]

    def is_full_for(self, site_id: int) -> bool:
        """Whether messages under way take more memory than they may: all together, or the site's own."""
        share = max(self.limit_bytes, self.most_held_bytes // SITE_SHARE)
        return self.held_bytes > self.most_held_bytes or self._held_by_site[site_id] > share

    def turn_away(self, peer: str) -> str:
        """Why a peer may show no key now, as a reply; empty: it may."""
        wait_s = self._penalties.wait_s(peer, self.desk.clock.monotonic())
        return f"454 4.7.0 too many wrong keys; try again in {math.ceil(wait_s)} s" if wait_s else ""

    async def sign_in(self, peer: str, token: str) -> Holder | str:
        """Whom a key speaks for, or the reply that refuses it."""
        try:
            return await self.holder(token)
        except StoreUnavailable as error:
            log.error(Event.SUBMISSION_FAILED, site_id=None, problem=str(error))
            return "454 4.7.0 temporarily unavailable; try again later"  # RFC 4954 §6
        except GatewayError as error:
            self._penalties.note(peer, self.desk.clock.monotonic())
            known = isinstance(error, Forbidden)  # a key of ours is told what it lacks; anybody else is not
            reply = line("535 5.7.8", str(error)) if known else REFUSED_KEY
            log.info(Event.SIGN_IN_FAILED, peer=peer, reply=reply)
            return reply

    async def holder(self, token: str) -> Holder:
        """Whom a key speaks for; looked up anew every 2 seconds, so that a revoked one is soon refused.

        Raises:
            Unauthorized: it is unknown or revoked.
            Forbidden: it may not send.
            StoreUnavailable: Postgres does not answer.
        """
        holder = await self.desk.auth.holder(token)
        if holder.site_id is None:
            raise Forbidden("this needs a key of a site, not an operator's")
        if holder.suspended:
            raise Forbidden("this site is suspended")
        if not holder.scopes & {SCOPE, "admin"}:
            raise Forbidden(f"this needs a key with the scope {SCOPE}")
        return holder

    async def check_again(self, token: str) -> str:
        """Why a key that was right may send nothing now, as a reply; empty: it may."""
        try:
            await self.holder(token)
        except Unauthorized:
            return "530 5.7.0 this key is no longer valid; authentication required"
        except GatewayError as error:
            return reply_to(error)
        return ""
