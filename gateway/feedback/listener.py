"""The SMTP listener: where bounces and complaints will arrive, and for now `postmaster@` and `abuse@` alone.

Owns who may connect, how much they may send, and which recipients are taken. Never relays: every other recipient is
refused at RCPT with 550 5.7.1. What is taken is kept as a file under `data_dir/mailbox` before its 250 (RFC 5321 §4.5.1 and
RFC 2142 want somebody to read it); when that is full it is refused with 452, nothing is thrown away in silence.

The limits are an SMTP server's own defence (RFC 5321 §4.5.3.1 gives the least that must be taken), not tuning.
"""

from __future__ import annotations

import asyncio
import os
import time
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.config import Config
from gateway.feedback.doorkeeper import Doorkeeper
from gateway.feedback.line_guard import LineGuard
from gateway.telemetry import Event, log

MOST_CONNECTIONS: Final = 1_000
MOST_CONNECTIONS_PER_PEER: Final = 50
SESSION_S: Final = 300.0
IDLE_S: Final = 60.0
LAST_WORD_S: Final = 5.0
"""How long a peer may take to read why we hang up."""
MOST_OF_ONE_COMMAND: Final = 100
MESSAGE_BYTES: Final = 1_048_576
MAILBOX_BYTES: Final = 256 * 1_048_576

_ROLE_ACCOUNTS: Final = ("postmaster", "abuse")
_FLUSH_S: Final = 0.1


class Mailbox:
    """A folder of messages, one file each, up to `limit_bytes` together."""

    def __init__(self, folder: Path, limit_bytes: int = MAILBOX_BYTES) -> None:
        """Make the folder where it is missing, and add up what is there."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._used_bytes = sum(file.stat().st_size for file in folder.iterdir())
        self._number = count()

    def keep(self, content: bytes) -> bool:
        """Write a message durably; False when there is no room for it."""
        if self._used_bytes + len(content) > self._limit_bytes:
            return False
        self._used_bytes += len(content)
        name = f"{time.time_ns()}-{os.getpid()}-{next(self._number)}"
        draft = self._folder / f".{name}"
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._folder / f"{name}.eml")
        return True


class Reception:
    """aiosmtpd's hooks: which recipients are ours, and what becomes of their mail."""

    def __init__(self, domain: str, mailbox: Mailbox) -> None:
        self._ours = {f"{name}@{domain.lower()}" for name in _ROLE_ACCOUNTS} | {"postmaster"}
        self._mailbox = mailbox

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take our own addresses, refuse all others: never an open relay."""
        del server, session, options
        if address.lower() not in self._ours:
            return "550 5.7.1 not one of our addresses, and we do not relay"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the message, and only then say so."""
        del server, session
        content = envelope.content
        assert isinstance(content, bytes)
        kept = await asyncio.to_thread(self._mailbox.keep, content)
        return "250 2.0.0 kept" if kept else "452 4.3.1 the mailbox is full, try again later"

    async def handle_exception(self, error: Exception) -> str:
        """Say nothing about ourselves to the peer."""
        log.error(Event.LIBRARY, logger="aiosmtpd", message=repr(error), exc_info=error)
        return "451 4.3.0 local error, try again later"


class Visit(SMTP):
    """One connection: admitted, guarded byte by byte, and over after `session_s` at the latest."""

    def __init__(
        self,
        reception: object,
        doorkeeper: Doorkeeper,
        visits: set[Visit],
        hostname: str,
        *,
        guard: LineGuard | None = None,
        session_s: float = SESSION_S,
        **options: Any,
    ) -> None:
        """`reception` has aiosmtpd's hooks; `options` are aiosmtpd's, where another door needs others."""
        settings: dict[str, Any] = {
            "data_size_limit": MESSAGE_BYTES,
            "enable_SMTPUTF8": True,
            "timeout": IDLE_S,
            "command_call_limit": MOST_OF_ONE_COMMAND,
            **options,
        }
        super().__init__(
            reception, hostname=hostname, ident="ESMTP", loop=asyncio.get_running_loop(), **settings
        )
        self._doorkeeper = doorkeeper
        self._visits = visits
        self._guard = guard or LineGuard()
        self._session_s = session_s
        self._peer: str | None = None  # None: not admitted, or gone
        self._line: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit or turn away."""
        self._line = cast("asyncio.Transport", transport)
        name: Any = transport.get_extra_info("peername")
        peer = str(name[0]) if name else ""
        if not self.admit(peer):
            self.hang_up(b"421 4.7.0 too many connections")
            return
        self._peer = peer
        self._visits.add(self)
        self._end = self.loop.call_later(self._session_s, self.hang_up, b"421 4.4.2 session took too long")
        super().connection_made(transport)

    def admit(self, peer: str) -> bool:
        """Count a peer in, unless there are too many connections."""
        return self._doorkeeper.admit(peer)

    def leave(self, peer: str) -> None:
        """Count a peer out that was admitted."""
        self._doorkeeper.leave(peer)

    @property
    def is_open(self) -> bool:
        """Whether it was admitted and nobody has hung up."""
        return self._peer is not None and self._line is not None and not self._line.is_closing()

    def data_received(self, data: bytes) -> None:
        """Check before anything is buffered."""
        if not self.is_open:
            return
        if problem := self._guard.check(data):
            self.hang_up(problem)
        else:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        """As aiosmtpd does, for those who came in."""
        return super().eof_received() if self._peer is not None else False

    def connection_lost(self, error: Exception | None) -> None:
        """Count out."""
        if self._peer is None:
            return
        self.leave(self._peer)
        self._peer = None
        self._visits.discard(self)
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(error)

    def hang_up(self, reply: bytes) -> None:
        """Say why, and close; whoever does not read it is cut off after `LAST_WORD_S`.

        What is closing waits until all is written, and a peer with a closed window would keep its place for ever.
        """
        line = self._line
        if line is None:
            return
        if not line.is_closing():
            line.write(reply + b"\r\n")
            line.close()
        self.loop.call_later(LAST_WORD_S, line.abort)

    def _timeout_cb(self) -> None:
        """Hang up where aiosmtpd would only close."""
        self.hang_up(b"421 4.4.2 nothing was said for too long")


async def serve_listener(config: Config, *, stop: asyncio.Event) -> None:
    """Listen on `[listen]` until `stop`; then refuse newcomers and hang up.

    Raises:
        OSError: the address cannot be listened on, or the mailbox cannot be made.
    """
    loop = asyncio.get_running_loop()
    reception = Reception(config.mail.bounce_domain, Mailbox(config.data_dir / "mailbox"))
    doorkeeper = Doorkeeper(MOST_CONNECTIONS, MOST_CONNECTIONS_PER_PEER)
    visits: set[Visit] = set()
    server = await loop.create_server(
        lambda: Visit(reception, doorkeeper, visits, config.mail.bounce_domain),
        config.listen.host,
        config.listen.port,
        reuse_address=True,
    )
    try:
        await stop.wait()
    finally:
        server.close()
        for visit in list(visits):
            visit.hang_up(b"421 4.3.2 shutting down")
        await asyncio.sleep(_FLUSH_S if visits else 0)
