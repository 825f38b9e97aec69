"""The server's side of one SMTP connection, without I/O: bytes in; replies, ledger lines and an ending out. Pure.

Owns the grammar as far as a receiver of load needs it (RFC 5321; PIPELINING, RFC 2920; SIZE, RFC 1870; 8BITMIME, RFC
6152; SMTPUTF8, RFC 6531; ENHANCEDSTATUSCODES, RFC 2034; STARTTLS, RFC 3207) and what each verdict of the world means
for replies and ledger. Knows nothing of sockets, clocks, files and TLS itself.

The shell hands every received chunk to ``receive``, writes ``desk.take_lines()`` to the ledger, then
``take_replies()`` to the peer, and then does what ``ending`` and ``pause_s`` say.

Cost: commands are split at CRLF; content is scanned for CRLF.CRLF chunk by chunk, without work per line. Only the
head of the content is kept, for the two headers that the ledger wants.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Final

from bench.load.desk import Desk
from bench.load.ledger import ACCEPTED, DROPPED, REFUSED, event
from bench.load.world import Act, Answer

MAX_CONTENT_BYTES: Final = 64 << 20
_MAX_LINE_BYTES: Final = 4096  # RFC 5321 §4.5.3.1.4 asks for 512, plus what the extensions add
_MAX_HEAD_BYTES: Final = 64 << 10
_DOT: Final = b"\r\n.\r\n"
_NO_ANSWER: Final = Answer(Act.ACCEPT, 250, b"250 2.0.0 taken")
_WELCOME: Final = (
    b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE %d\r\n250 ENHANCEDSTATUSCODES\r\n"
    % MAX_CONTENT_BYTES
)
_WELCOME_TO_TLS: Final = _WELCOME.replace(b"250-SIZE", b"250-STARTTLS\r\n250-SIZE")
_FOLD: Final = re.compile(rb"\r\n[ \t]+")
_SIGNATURE: Final = re.compile(rb"\r\ndkim-signature:(?:[^\r]*;)?\s*a=([^;\s]+)", re.IGNORECASE)


class Ending(Enum):
    """What the shell does to the connection once the replies are written."""

    OPEN = 0
    CLOSE = 1  # FIN
    RESET = 2  # RST, after what was written had time to arrive
    SECURE = 3  # TLS begins right behind the reply; then call secured()


class Session:
    """One connection.

    ``ehlo`` is the refusal that EHLO gets at this door, or empty for a welcome. ``offers_tls``: STARTTLS is offered; who
    does not want it may go on without.
    """

    __slots__ = (
        "_answer", "_desk", "_ehlo", "_greeted", "_head", "_head_done", "_ids", "_in_content", "_in_mail", "_mute",
        "_offers_tls", "_recipients", "_replies", "_rest", "_size", "_tail", "ending", "pause_s",
    )  # fmt: skip

    def __init__(self, desk: Desk, ehlo: bytes = b"", *, offers_tls: bool = False) -> None:
        self._desk = desk
        self._ehlo = ehlo
        self._offers_tls = offers_tls
        self.ending = Ending.OPEN
        self.pause_s = 0.0  # above 0: call resume() after so long; until then input only piles up
        self._replies: list[bytes] = [b"220 sink ESMTP\r\n"]
        self._rest = b""  # input that is not yet used
        self._greeted = self._mute = False
        self._reset()

    def receive(self, data: bytes, now: float) -> None:
        """Take the next bytes, received at ``now`` (monotonic seconds). Any split of a stream does the same."""
        if self._mute or self.ending is not Ending.OPEN:
            return
        self._rest = self._rest + data if self._rest else data
        if not self.pause_s:
            self._run(now)

    def resume(self, now: float) -> None:
        """The pause is over: take the message, reply, and go on with what was pipelined behind it."""
        self.pause_s = 0.0
        self._take(now, self._answer)
        self._run(now)

    def secured(self) -> None:
        """TLS has begun: the peer starts anew with EHLO, and is not offered it again (RFC 3207 §4.2)."""
        self.ending = Ending.OPEN
        self._offers_tls = self._greeted = False
        self._reset()

    def lost(self, now: float) -> None:
        """The peer is gone. A message whose reply was still being held back had been taken: taken without a reply."""
        if self.pause_s:
            self.pause_s = 0.0
            self._accept(now, replied=False)
        self._mute = True

    def take_replies(self) -> bytes:
        """The replies since the last call, as one run of bytes; empty when there are none."""
        replies = b"".join(self._replies)
        self._replies.clear()
        return replies

    def _reset(self) -> None:
        self._in_mail = self._in_content = False
        self._recipients: list[bytes] = []
        self._answer = _NO_ANSWER
        self._head = self._tail = b"\r\n"  # the CRLF of the DATA line: a first line "." ends the content too
        self._head_done = False
        self._size = 0
        self._ids = (b"", b"")

    def _run(self, now: float) -> None:
        data = self._rest
        at = 0
        while self.ending is Ending.OPEN and not self.pause_s and not self._mute:
            if self._in_content:
                if at == len(data):
                    break
                at = self._content(data, at, now)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                if len(data) - at > _MAX_LINE_BYTES:
                    self._say(b"500 5.5.2 line too long")
                    self.ending = Ending.CLOSE
                break
            self._command(data[at:end], now)
            at = end + 2
        # RFC 3207 §4.2: what came in plaintext behind STARTTLS is nobody's command.
        self._rest = b"" if self.ending is Ending.SECURE else data[at:]

    def _say(self, reply: bytes) -> None:
        self._replies.append(reply + b"\r\n")

    def _command(self, line: bytes, now: float) -> None:
        command = self._COMMANDS.get(line[:4].upper()) if line[4:5] in b" " else None
        if command is not None:
            command(self, line, now)
        elif self._offers_tls and line.upper() == b"STARTTLS":
            self._say(b"220 2.0.0 go ahead")
            self.ending = Ending.SECURE
        else:
            self._say(b"500 5.5.1 unknown command")

    def _hello(self, line: bytes, _now: float) -> None:
        self._reset()
        if self._ehlo:
            self._say(self._ehlo)
        elif line[:4].upper() == b"HELO":
            self._greeted = True
            self._say(b"250 sink")
        else:
            self._greeted = True
            self._replies.append(_WELCOME_TO_TLS if self._offers_tls else _WELCOME)

    def _mail(self, line: bytes, _now: float) -> None:
        if not self._greeted or self._in_mail:
            self._say(b"503 5.5.1 EHLO first, and one MAIL at a time")
        elif line[4:11].upper() != b" FROM:<" or b">" not in line:
            self._say(b"501 5.5.4 say MAIL FROM:<address>")
        elif _declared_bytes(line) > MAX_CONTENT_BYTES:
            self._say(b"552 5.3.4 too big")
        else:
            self._in_mail = True
            self._say(b"250 2.1.0 ok")

    def _rcpt(self, line: bytes, now: float) -> None:
        if not self._in_mail:
            self._say(b"503 5.5.1 MAIL first")
            return
        end = line.rfind(b">")
        if line[4:9].upper() != b" TO:<" or end <= 9:
            self._say(b"501 5.5.4 say RCPT TO:<address>")
            return
        local, at, domain = line[9:end].rpartition(b"@")
        recipient = local + at + domain.lower()
        answer = self._desk.answer(recipient)
        if answer.act is Act.REFUSE_RCPT:
            self._desk.record(event(REFUSED, now, answer.code, recipient))
            self._say(answer.reply)
            if (
                answer.code == 421
            ):  # RFC 5321 §3.8: the channel is closed; the rest of the pipeline goes unread
                self.ending = Ending.CLOSE
            return
        if not self._recipients or (answer.act, answer.delay_s) > (self._answer.act, self._answer.delay_s):
            self._answer = answer
        self._recipients.append(recipient)
        self._say(b"250 2.1.5 ok")

    def _data(self, line: bytes, now: float) -> None:
        if not self._in_mail:
            self._say(b"503 5.5.1 MAIL first")
        elif not self._recipients:
            self._say(b"554 5.5.1 no valid recipients")
        elif self._answer.act is Act.DROP_DATA:
            self._drop(now)
        else:
            self._in_content = True
            self._say(b"354 go on")

    def _rset(self, line: bytes, _now: float) -> None:
        self._reset()
        self._say(b"250 2.0.0 ok")

    def _noop(self, line: bytes, _now: float) -> None:
        self._say(b"250 2.0.0 ok")

    def _vrfy(self, line: bytes, _now: float) -> None:
        self._say(b"252 2.1.5 send it and see")

    def _quit(self, line: bytes, _now: float) -> None:
        self._say(b"221 2.0.0 bye")
        self.ending = Ending.CLOSE

    _COMMANDS: ClassVar[dict[bytes, Callable[[Session, bytes, float], None]]] = {
        b"EHLO": _hello,
        b"HELO": _hello,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"VRFY": _vrfy,
        b"QUIT": _quit,
    }

    def _content(self, data: bytes, at: int, now: float) -> int:
        """Use up content from ``data[at:]``; where the next command, or the next chunk, begins."""
        tail = self._tail
        edge = (tail + data[at : at + len(_DOT) - 1]).find(_DOT)  # a dot that an earlier chunk began
        end = data.find(_DOT, at) if edge < 0 else at + edge - len(tail)
        found = edge >= 0 or end >= 0
        stop = end + 2 if found else len(data)  # the CRLF before the dot is content
        self._size += stop - at  # below 0 when an earlier chunk brought part of the dot
        if not self._head_done:
            self._head += data[at : max(stop, at)]
            self._head_done = len(self._head) > _MAX_HEAD_BYTES or b"\r\n\r\n" in self._head
        if not found:
            self._tail = (tail + data[at:])[1 - len(_DOT) :]
            return stop
        if self._desk.on_dot is not None:
            self._desk.on_dot(now, self._recipients[0].rpartition(b"@")[2])
        self._ids = headers(self._head)
        self._desk.last_head = self._head
        self.pause_s = self._answer.delay_s
        if not self.pause_s:
            self._take(now, self._answer)
        return end + len(_DOT)

    def _take(self, now: float, answer: Answer) -> None:
        """The verdict on a whole message: what the ledger says, what the peer is told."""
        act = answer.act
        if act is Act.ACCEPT or act is Act.RESET:
            self._accept(now, replied=True)
            self._say(answer.reply)
            if act is Act.RESET:
                self.ending = Ending.RESET
        elif act is Act.REFUSE_DOT:
            self._record(REFUSED, now, answer.code, replied=True)
            self._say(answer.reply)
        elif act is Act.DROP_LOST:
            self._drop(now)
        else:  # taken, and nothing that could be read as a 250
            self._accept(now, replied=False)
            if act is Act.BAD_REPLY:
                self._say(answer.reply)
            elif act is Act.HANG:
                self._mute = True
            else:
                self.ending = Ending.CLOSE
        self._reset()

    def _accept(self, now: float, *, replied: bool) -> None:
        self._record(ACCEPTED, now, 250 if replied else 0, replied=replied)

    def _drop(self, now: float) -> None:
        self._record(DROPPED, now, 0, replied=False)
        self.ending = Ending.CLOSE

    def _record(self, kind: bytes, now: float, code: int, *, replied: bool) -> None:
        message_id, delivery = self._ids
        for recipient in self._recipients:
            line = event(
                kind, now, code, recipient,
                replied=replied, size=self._size, message_id=message_id, delivery=delivery,
            )  # fmt: skip
            self._desk.record(line, accepted=kind is ACCEPTED, replied=replied)


def headers(head: bytes) -> tuple[bytes, bytes]:
    """Message-ID without its <>, and X-Gateway-Delivery, of a ``head`` that begins with CRLF; empty when missing."""
    end = head.find(b"\r\n\r\n")
    section = head if end < 0 else head[: end + 2]
    return _header(section, b"\r\nMessage-ID:").strip(b"<>"), _header(section, b"\r\nX-Gateway-Delivery:")


def algorithms(head: bytes) -> list[str]:
    """The algorithm of each DKIM-Signature (RFC 6376 §3.5, ``a=``) in a ``head`` that begins with CRLF, in order."""
    section = _FOLD.sub(b" ", head[: head.find(b"\r\n\r\n") + 2] if b"\r\n\r\n" in head else head)
    return [name.decode("ascii", "replace") for name in _SIGNATURE.findall(section)]


def _header(section: bytes, name: bytes) -> bytes:
    at = section.find(name)
    if at < 0:
        at = section.lower().find(name.lower())
        if at < 0:
            return b""
    at += len(name)
    end = section.find(b"\r\n", at)
    while end >= 0 and section[end + 2 : end + 3] in (b" ", b"\t"):  # folded, RFC 5322 §2.2.3
        end = section.find(b"\r\n", end + 2)
    value = section[at:] if end < 0 else section[at:end]
    return b" ".join(value.split())


def _declared_bytes(line: bytes) -> int:
    at = line.upper().find(b" SIZE=")
    value = line[at + 6 :].split(b" ", 1)[0] if at >= 0 else b""
    return int(value) if value.isdigit() else 0
