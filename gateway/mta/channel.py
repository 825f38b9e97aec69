"""One connection to a receiver: bytes out, whole replies in, and the proof that they answer what we said.

Owns reading replies in pieces and within bounds, the time-outs of waiting, the receiver's pace while it takes content, and the
count of replies that are owed. A reply that nobody asked for ends the connection: were it kept, it would be taken for the answer
to the next command, and what was said of one message would be told of another. Must not know what a reply means (`mta/reply.py`)
or which command comes next (`mta/greeting.py`, `mta/wire.py`). RFC 5321 §4.2, §4.5.3.2.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, cast

import msgspec

from gateway.model.disposition import Stage
from gateway.mta.reply import ErrorKind, Reply, ReplyMalformed, parse_reply

REPLY_LIMIT_BYTES: Final = 32 * 1024
"""Longest reply that is read, all its lines together."""

Trace = Callable[[str, bytes], None]
"""Sees each line as it passes, without its line end: "C" and what we said, "S" and what the receiver said (hostile bytes), "*" and
what happened where nobody says it: an address that is tried, and how it failed. Must not raise."""

_LOOK_S: Final = 1.0
"""How often the receiver's pace is looked at while it has not taken all of a message."""
_OPENING: Final = 3  # MAIL, RCPT, DATA
_TLS_RECORDS_BYTES: Final = 256
"""What two records of TLS add at most (RFC 8446 §5.2; a CBC suite of RFC 5246 up to 69 each): commands of one transaction lie in no more."""


class Timeouts(msgspec.Struct, frozen=True):
    """How long each stage may take, in seconds (RFC 5321 §4.5.3.2), from first to last byte of a reply."""

    connect_s: float = 30.0
    """The TCP connection, and the TLS handshake."""
    banner_s: float = 300.0
    """The greeting, and each reply to EHLO, HELO and STARTTLS."""
    mail_s: float = 300.0
    rcpt_s: float = 300.0
    data_s: float = 120.0
    data_block_s: float = 180.0
    """How long the receiver may need for the next block of content: `min_transfer_bytes_per_s` × this, or what is left."""
    min_transfer_bytes_per_s: int = 500
    dot_s: float = 600.0
    in_step_s: float = 5.0
    """How long the verdict on a message waits for the replies to what was opened behind it; they mostly come in one packet with its own."""


class Broken(Exception):
    """The connection is of no more use; `kind` says why."""

    def __init__(self, kind: ErrorKind, detail: str = "") -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


class Channel(asyncio.Protocol):
    """One connection. Not for several tasks at once. The greeting is owed from the start."""

    # Mutable on purpose: what has been read and what is owed are a connection's whole life.
    def __init__(self, trace: Trace | None = None) -> None:
        self.stage = Stage.CONNECT
        self.broken: Broken | None = None
        self.farewell: Reply | None = None  # a 421 that nobody asked for (RFC 5321 §3.8)
        self.early = False  # the reply to a message came before all of it had left us
        self.last_lines: list[bytes] = []  # of the last reply, as they came
        self.tls_version = self.tls_cipher = ""
        self._transport = cast(asyncio.Transport, None)
        self._below_tls: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.trace = trace  # may be set at any time
        self._rest = b""  # a line that has not ended
        self._lines: list[bytes] = []  # a reply that has not ended
        self._reply_bytes = 0
        self._owed = 1
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._sending = False
        self._behind_bytes = (
            0  # of what was written last: commands of the next transaction, behind the final dot
        )

    @property
    def usable(self) -> bool:
        """Whether something may be said."""
        return self.broken is None and not self._transport.is_closing()

    def say(self, data: bytes, replies: int = 1, shown: bytes | None = None) -> None:
        """Write commands that so many replies are owed for; `shown`: what the trace sees in place of `data`.

        Raises:
            Broken: the connection is lost, or the receiver has spoken before we have.
        """
        self.require_silence()
        self._owed = replies
        if self.trace is not None:
            for line in (shown if shown is not None else data).splitlines():
                self.trace("C", line)
        self._transport.write(data)

    def require_silence(self) -> None:
        """Make sure that everything is answered and not a byte more has come: what comes now answers what is said now.

        Raises:
            Broken: it is not so, or the connection is lost.
        """
        if self.broken is None:
            if self._transport.is_closing():
                self._fail(Broken(ErrorKind.CONNECTION_LOST, "the connection was lost"))
            elif self._owed or self._replies or self._rest or self._lines:
                self._fail(Broken(ErrorKind.MALFORMED, "more replies than commands"))
        if self.broken is not None:
            raise self.broken

    async def reply(self, timeout_s: float) -> Reply:
        """Return the next reply; `timeout_s` holds for the whole of it, however it comes.

        Raises:
            Broken: there is none.
        """
        if not self._replies:
            if self.broken is not None:
                raise self.broken
            timer = self._loop.call_later(timeout_s, self._time_out, timeout_s)
            try:
                self._waiter = self._loop.create_future()
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            if not self._replies:
                raise self.broken or Broken(ErrorKind.CONNECTION_LOST)
        return self._replies.popleft()

    async def reply_to_message(
        self, content: bytes, timeouts: Timeouts, ahead: bytes = b"", ahead_replies: int = 0
    ) -> Reply:
        """Write content and final dot in one, and return the reply; `early` then says whether it came too soon to be one.

        `ahead`: commands of the next transaction, in the same write; so many replies are owed for them, which are read later.

        Raises:
            Broken: there is none, or the receiver took the content too slowly.
        """
        self.early = False
        self._behind_bytes = len(ahead) + (_TLS_RECORDS_BYTES if ahead and self._below_tls is not None else 0)
        shown = b"[content, %d bytes]\n.\n" % len(content) + ahead if self.trace else None
        self.say(content + b".\r\n" + ahead, 1 + ahead_replies, shown)
        if self._content_unsent():
            await self._taken(timeouts)
        return await self.reply(timeouts.dot_s)

    @property
    def is_ready(self) -> bool:
        """Whether the replies to MAIL, RCPT and DATA are here, and content may follow: as it mostly is behind a dot."""
        replies = self._replies
        return (
            len(replies) == _OPENING
            and 200 <= replies[0].code < 300
            and 200 <= replies[1].code < 300
            and replies[2].code == 354
            and not self.early
        )

    async def replies_within(self, count: int, timeout_s: float) -> list[Reply]:
        """Wait until so many replies are there, until the time is over or the connection ends; they stay to be read by `reply`."""
        deadline = self._loop.time() + timeout_s
        while (
            len(self._replies) < count
            and self.broken is None
            and (left_s := deadline - self._loop.time()) > 0
        ):
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(left_s, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        return list(self._replies)

    async def start_tls(self, context: ssl.SSLContext, server_name: str, timeout_s: float) -> None:
        """Go on under TLS; every byte that came before belongs to the time before.

        Raises:
            Broken: bytes came before the handshake (RFC 3207 §6, response injection), or the connection is lost.
            OSError: the handshake failed; the connection is closed.
        """
        self.require_silence()
        below = self._transport
        upgraded = await self._loop.start_tls(below, self, context, server_hostname=server_name, ssl_handshake_timeout=timeout_s)  # fmt: skip
        if upgraded is None:
            raise ConnectionResetError("the connection was lost in the handshake")
        self._transport, self._below_tls = upgraded, below
        secured = cast(ssl.SSLObject, upgraded.get_extra_info("ssl_object"))
        self.tls_version, self.tls_cipher = secured.version() or "", (secured.cipher() or ("",))[0]
        if self.trace is not None:
            self.trace("C", f"[{self.tls_version} {self.tls_cipher}]".encode())

    def abort(self) -> None:
        """Drop the connection; nothing that still stands in a buffer is sent."""
        self._fail(Broken(ErrorKind.CONNECTION_LOST, "closed by us"))

    def close(self) -> None:
        """End the connection once what was written has left; what comes meanwhile is not read."""
        if self.broken is None:
            self.broken = Broken(ErrorKind.CONNECTION_LOST, "closed by us")
        self._transport.close()

    async def _taken(self, timeouts: Timeouts) -> None:
        """Wait until the receiver has taken content and dot, or has replied; end it when a block takes it too long."""
        block_s, mark = timeouts.data_block_s, self._content_unsent()
        block_bytes = max(1, int(timeouts.min_transfer_bytes_per_s * block_s))
        deadline = self._loop.time() + block_s
        self._sending = True
        try:
            while not self._replies and (unsent := self._content_unsent()):
                now = self._loop.time()
                if mark - unsent >= block_bytes:
                    mark, deadline = unsent, now + block_s
                if now >= deadline:
                    self._fail(
                        Broken(
                            ErrorKind.TOO_SLOW, f"took {mark - unsent} bytes in {block_s:g} s, {unsent} left"
                        )
                    )
                if self.broken is not None:
                    raise self.broken
                self._waiter = self._loop.create_future()
                timer = self._loop.call_later(min(_LOOK_S, block_s / 8, deadline - now), self._wake)
                try:
                    await self._waiter
                finally:
                    timer.cancel()
                    self._waiter = None
        finally:
            self._sending = False

    def _unsent(self) -> int:
        """Bytes that the kernel has not taken from us; those above and below TLS are counted each where they stand."""
        unsent = self._transport.get_write_buffer_size()
        return unsent if self._below_tls is None else unsent + self._below_tls.get_write_buffer_size()

    def _content_unsent(self) -> int:
        """The same without the commands behind the final dot: a receiver may well answer the dot before it has taken those."""
        return max(0, self._unsent() - self._behind_bytes)

    def _time_out(self, timeout_s: float) -> None:
        self._fail(Broken(ErrorKind.TIMEOUT, f"no reply in {timeout_s:g} s"))

    def _fail(self, why: Broken) -> None:
        """End the connection; what was answered before stays readable."""
        if self.broken is None:
            self.broken = why
        self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio's callback)."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read reply lines; a whole reply wakes who waits for it (asyncio's callback)."""
        if self.broken is not None:
            return
        if self._rest:
            data = self._rest + data
        start = 0
        while (end := data.find(b"\n", start) + 1) > 0:
            line = data[start:end]
            start = end
            if self.trace is not None:
                self.trace("S", line.rstrip(b"\r\n"))
            self._lines.append(line)
            self._reply_bytes += len(line)
            if self._reply_bytes > REPLY_LIMIT_BYTES:
                break
            if line[3:4] == b"-" and line[:3].isdigit():
                continue
            if not self._take(self._lines):
                return
            self._lines, self._reply_bytes = [], 0
        self._rest = data[start:]
        if self._reply_bytes + len(self._rest) > REPLY_LIMIT_BYTES:
            self._fail(Broken(ErrorKind.MALFORMED, f"a reply longer than {REPLY_LIMIT_BYTES} octets"))
        elif not self._owed and (self._rest or self._lines):
            self._fail(Broken(ErrorKind.MALFORMED, "more replies than commands"))

    def _take(self, lines: list[bytes]) -> bool:
        """Take one whole reply; False when nothing more can be read here."""
        try:
            reply = parse_reply(lines)
        except ReplyMalformed as error:
            self._fail(Broken(ErrorKind.MALFORMED, str(error)))
            return False
        if not self._owed:
            if reply.code == 421:
                self.farewell = reply
                self._fail(Broken(ErrorKind.CONNECTION_LOST, f"421 {reply.text}"))
            else:
                self._fail(
                    Broken(ErrorKind.MALFORMED, f"a reply that nobody asked for: {reply.code} {reply.text}")
                )
            return False
        self._owed -= 1
        if self._sending and self._content_unsent():
            self.early = True
        self.last_lines = lines
        self._replies.append(reply)
        self._wake()
        return True

    def eof_received(self) -> bool:
        """Take the peer's end of the connection (asyncio's callback)."""
        self._fail(Broken(ErrorKind.CONNECTION_LOST, "the receiver closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the loss of the connection (asyncio's callback)."""
        self._fail(Broken(ErrorKind.CONNECTION_LOST, str(exc) if exc else "the connection was lost"))
