"""An open SMTP session: one message a transaction, pipelined where the server allows it.

Owns the transaction and which reply belongs to which command of which message; the moment before the final dot belongs to the
caller (journal, lease). Must not know lanes, leases or Postgres. RFC 5321 §3.3, §3.8, §4.5.3.2; RFC 1870; RFC 2920; RFC 6152.

States of a transaction: MAIL, RCPT and DATA are sent (together, with PIPELINING) and their replies read in order; after 354
the caller's `before_dot` runs, then content and dot leave in one write; from there on no reply means in doubt. Where the next
message is known by then, its MAIL, RCPT and DATA are in that write too, and their replies say whether the one to the dot is one
(`mta/step.py`).

A receiver that says more or less than it was asked is out of step: what it says then may concern another message. Such a session
ends, and the message is deferred (in doubt, after the dot) whatever the code was.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from gateway.model.disposition import Disposition, Outcome, Scope, Stage
from gateway.mta.channel import REPLY_LIMIT_BYTES, Broken, Channel, Timeouts, Trace
from gateway.mta.greeting import Extensions, HandshakeFailed, SessionFailed, greet
from gateway.mta.reply import ErrorKind, Judge, Reply, classify, from_error
from gateway.mta.step import Step, step_behind
from gateway.mta.tls import TlsPolicy

__all__ = ["REPLY_LIMIT_BYTES", "Mail", "Session", "SessionFailed", "Timeouts", "TlsPolicy", "open_session"]

_OPENING_REPLIES: Final = 3
_PATIENCE: Final = 3
"""How many times longer than `in_step_s` a receiver is heard before its silence means something."""
_ADDRESS_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f<>]")
_QUOTED_LOCAL: Final = re.compile(
    r'"(?:[^\x00-\x1f\x7f"\\]|\\[ -~])*"(?=@)'
)  # RFC 5321 §4.1.2: there, spaces are no harm


class Mail(msgspec.Struct, frozen=True):
    """One transaction: envelope and content. `content` is dot-stuffed and ends with CRLF, without the final dot."""

    sender: str
    recipient: str
    content: bytes


class Session:
    """One connection after EHLO. Not for several tasks at once."""

    # Mutable on purpose: where the present transaction stands.
    def __init__(
        self, channel: Channel, extensions: Extensions, timeouts: Timeouts, judge: Judge = classify
    ) -> None:
        self._channel, self._timeouts, self._judge_reply = channel, timeouts, judge
        self._pipelining, self._smtputf8 = "pipelining" in extensions, "smtputf8" in extensions
        self._8bitmime, self._says_size = "8bitmime" in extensions, "size" in extensions
        limit = extensions.get("size", "").strip()
        self._size_limit = (
            int(limit[:18]) if limit.isascii() and limit.isdigit() else 0
        )  # 0: none (RFC 1870 §4)
        self._must_reset = False
        self._opened: Mail | None = None  # its MAIL, RCPT and DATA have left, its replies have not been read
        self._refused_ahead = False  # its replies are here, and refuse it
        self._spoken = self._heard = False  # in the present transaction: we; the receiver
        self._refusal: Disposition | None = (
            None  # of the present transaction, while replies to its commands are owed
        )
        self.transactions = 0
        self.tls_version, self.tls_cipher = channel.tls_version, channel.tls_cipher  # empty: plaintext
        self.tls_failure = ""  # why it is plaintext though TLS was offered
        # The last transaction found the connection closed, after earlier ones: receivers hang up between two messages though
        # RFC 5321 §3.8 would have them say 421. Nobody refused anything; try it on a new connection.
        self.stale = False
        # What was opened ahead here was answered out of step, or not at all: this receiver wants its messages one by one.
        self.one_by_one = False

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried on it."""
        return self._channel.usable

    @property
    def has_opened(self) -> bool:
        """Whether a transaction was opened ahead and is not begun: another message has no place here before it."""
        return self._opened is not None

    @property
    def refused_ahead(self) -> bool:
        """Whether the replies to what was opened ahead are here and refuse it: it may be told so, though the connection is gone."""
        return self._opened is not None and self._refused_ahead

    @property
    def trace(self) -> Trace | None:
        """Who sees each line as it passes; of content its size. May be set between two transactions."""
        return self._channel.trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        self._channel.trace = trace

    async def transact(
        self,
        mail: Mail,
        before_dot: Callable[[], None],
        turn: Callable[[], Awaitable[None]] | None = None,
        ahead: Callable[[], Mail | None] | None = None,
    ) -> Disposition:
        """Send one message; return what it came to. Never raises for what the server or the network does.

        Args:
            mail: what to send; after a call whose `ahead` gave one, that one.
            before_dot: runs right before content and dot are written; what it raises ends the session unsent and passes on.
            turn: is waited for once the receiver is ready for the content: it says when that may leave.
            ahead: gives the mail of the next call, if it is known. Its MAIL, RCPT and DATA then leave with this one's dot, and
                each message costs one round trip (RFC 2920 §3.1: content may be the first of a group of commands). It is asked
                only where the receiver can be sent its answer.
        """
        self.transactions += 1
        self._spoken = self._heard = self.stale = False
        self._refusal = None
        self._refused_ahead = False
        opened, self._opened = self._opened, None
        if opened is not None and opened is not mail:
            self.abort()
            raise ValueError("another transaction was opened ahead")
        if opened is None and (unfit := self._unfit(mail)) is not None:
            return unfit
        channel = self._channel
        channel.stage = Stage.MAIL
        try:
            self._spoken = opened is not None
            if opened is None:
                channel.require_silence()
                self._spoken = True
                if self._must_reset:
                    await self._reset()
                if self._pipelining:
                    channel.say(self._opening(mail), _OPENING_REPLIES)
            refusal = await (
                self._read_opening(ahead=opened is not None)
                if self._pipelining
                else self._open_in_steps(mail)
            )
            if refusal is not None:
                return refusal
            if turn is not None:
                await turn()
            channel.require_silence()  # else the reply to the dot could be one that was on its way already
            following = ahead() if ahead is not None and self._pipelining and not self.one_by_one else None
            opening = b""
            if following is not None and self._unfit(following) is None:
                opening, self._opened = self._opening(following), following
            try:
                before_dot()
            except BaseException:
                self.abort()
                raise
            channel.stage = Stage.DOT
            reply = await channel.reply_to_message(
                mail.content, self._timeouts, opening, _OPENING_REPLIES if opening else 0
            )
            if opening and not (channel.is_ready or await self._is_of_the_dot(reply)):
                return self._out_of_step(reply)
            return self._judge(reply)
        except Broken as broken:
            return self._judge_broken(broken, opened=opened is not None)

    def quit(self) -> None:
        """End politely: QUIT, and the connection is closed behind it.

        The reply is not waited for (RFC 5321 §4.1.1.10 would have it so): it says nothing, and costs a round trip a connection.
        """
        try:
            self._channel.say(b"QUIT\r\n")
        except Broken:
            self.abort()
        else:
            self._channel.close()

    def abort(self) -> None:
        """Drop the connection; nothing that still stands in a buffer is sent."""
        self._opened = None
        self._channel.abort()

    def _unfit(self, mail: Mail) -> Disposition | None:
        """Refuse what this receiver cannot be sent, before a byte of it is."""
        quoted = _QUOTED_LOCAL.match(mail.recipient)
        unquoted = mail.recipient[quoted.end() :] if quoted else mail.recipient
        if _ADDRESS_FORBIDDEN.search(mail.sender) or _ADDRESS_FORBIDDEN.search(unquoted):
            return Disposition(Outcome.BOUNCED, from_error(ErrorKind.MALFORMED, Stage.MAIL).bounce_class, 0, "5.1.3",
                               "the address has a character that an envelope cannot carry", Scope.RECIPIENT)  # fmt: skip
        if not self._smtputf8 and not (mail.sender.isascii() and mail.recipient.isascii()):
            return from_error(ErrorKind.NO_SMTPUTF8, Stage.RCPT)
        if self._size_limit and len(mail.content) > self._size_limit:
            # RFC 1870 §5: the dots that stuffing added do not count.
            size = len(mail.content) - mail.content.count(b"\r\n.") - mail.content.startswith(b".")
            if size > self._size_limit:
                detail = f"{size} octets; it takes {self._size_limit}"
                return from_error(ErrorKind.TOO_LARGE, Stage.MAIL, detail)
        return None

    def _opening(self, mail: Mail) -> bytes:
        """MAIL, RCPT and DATA."""
        return self._mail_command(mail) + f"RCPT TO:<{mail.recipient}>\r\nDATA\r\n".encode()

    def _mail_command(self, mail: Mail) -> bytes:
        parameters = f" SIZE={len(mail.content)}" if self._says_size else ""
        if not (mail.sender.isascii() and mail.recipient.isascii()):
            parameters += " SMTPUTF8 BODY=8BITMIME"
        elif self._8bitmime and not mail.content.isascii():
            parameters += " BODY=8BITMIME"
        return f"MAIL FROM:<{mail.sender}>{parameters}\r\n".encode()

    async def _reset(self) -> None:
        """Forget the transaction that was refused. RFC 5321 §4.1.1.5."""
        self._channel.say(b"RSET\r\n")
        reply = await self._channel.reply(self._timeouts.mail_s)
        if reply.code == 421:
            self._heard = True
            self._refuse(reply)
        if reply.code >= 300:  # without RSET, a new connection does as well: the session is stale
            raise Broken(ErrorKind.CONNECTION_LOST, f"RSET was answered with {reply.code}")
        self._must_reset = False

    async def _read_opening(self, *, ahead: bool) -> Disposition | None:
        """The replies to MAIL, RCPT and DATA that left in one write (RFC 2920); a refusal, or None after 354."""
        channel, timeouts = self._channel, self._timeouts
        mail_reply = await channel.reply(timeouts.mail_s)
        self._heard = True
        if mail_reply.code >= 400:
            self._refuse(mail_reply)
        elif mail_reply.code >= 300:
            return self._out_of_step(mail_reply)
        if mail_reply.code == 421 or (ahead and mail_reply.code >= 500):
            # Said between two messages: an answer to our MAIL, or a goodbye that had not seen it, or a reply too many to what was
            # before. A 5xx would bounce it: let it be asked of again, as the first.
            self.stale = ahead
            return self._end_refused()
        channel.stage = Stage.RCPT
        rcpt_reply = await channel.reply(timeouts.rcpt_s)
        # A recipient taken after MAIL was refused: that refusal was said of something else.
        if 300 <= rcpt_reply.code < 400 or (mail_reply.code >= 400 and rcpt_reply.code < 300):
            return self._out_of_step(rcpt_reply)
        if rcpt_reply.code >= 400 and self._refusal is None:
            self._refuse(rcpt_reply)
        if rcpt_reply.code == 421:
            return self._end_refused()
        channel.stage = Stage.DATA
        data_reply = await channel.reply(timeouts.data_s)
        if data_reply.code < 400 and data_reply.code != 354:
            return self._out_of_step(data_reply)
        if self._refusal is None and data_reply.code >= 400:
            self._refuse(data_reply)
        if data_reply.code == 421:
            return self._end_refused()
        if self._refusal is not None and data_reply.code == 354:
            channel.say(b".\r\n")  # RFC 2920 §3.1: it takes a message for nobody; give it an empty one
            if (await channel.reply(timeouts.dot_s)).code == 421:
                self.abort()
        return self._refusal

    async def _open_in_steps(self, mail: Mail) -> Disposition | None:
        """MAIL, RCPT and DATA, each after the reply to the one before; a refusal, or None after 354."""
        channel, timeouts = self._channel, self._timeouts
        for stage, command, timeout_s in (
            (Stage.MAIL, self._mail_command(mail), timeouts.mail_s),
            (Stage.RCPT, f"RCPT TO:<{mail.recipient}>\r\n".encode(), timeouts.rcpt_s),
            (Stage.DATA, b"DATA\r\n", timeouts.data_s),
        ):
            channel.stage = stage
            channel.say(command)
            reply = await channel.reply(timeout_s)
            self._heard = True
            if reply.code == 421:
                self._refuse(reply)
                return self._end_refused()
            if reply.code >= 400:
                return self._refuse(reply)
            if (reply.code == 354) != (stage is Stage.DATA) or 300 <= reply.code != 354:
                return self._out_of_step(reply)
        return None

    async def _is_of_the_dot(self, reply: Reply) -> bool:
        """Whether the replies to what was opened behind a message leave it this one; where they do not come in time, they do.

        One too few, and the message is in doubt. One too many is nothing against it: one by one, it would have been taken too.
        Before silence is taken for a missing reply it is heard for longer: hosts that answer the refused slowly take 5 s for each reply
        (Exchange's TarpitInterval), and a message in doubt may be sent twice.
        """
        channel = self._channel
        if channel.early or reply.code == 421 or 300 <= reply.code < 400:
            return True  # judged without them, and the session ends
        codes = await self._codes_behind(self._timeouts.in_step_s)
        if step_behind(codes) is Step.OPEN and channel.broken is None:
            codes = await self._codes_behind(_PATIENCE * self._timeouts.in_step_s)
        step = step_behind(codes)
        if step is Step.OPEN and channel.broken is not None:
            step = Step.IN  # it closed before it could say more
        self._refused_ahead = len(codes) == _OPENING_REPLIES and any(c >= 400 and c != 421 for c in codes)
        if step is not Step.IN or (channel.broken is not None and channel.broken.kind is ErrorKind.MALFORMED):
            self.one_by_one = True
            self.abort()
        if step is Step.OPEN:
            return not codes  # none: it threw away what stood behind the dot
        return step is not Step.TOO_FEW

    async def _codes_behind(self, timeout_s: float) -> list[int]:
        replies = await self._channel.replies_within(_OPENING_REPLIES, timeout_s)
        return [reply.code for reply in replies]

    def _judge(self, reply: Reply) -> Disposition:
        """Judge the reply to content and dot."""
        if self._channel.early or reply.code == 421:
            self.abort()
        if 300 <= reply.code < 400 or (self._channel.early and reply.code < 400):
            # An acceptance of what has not all been sent, or a second 354: not of this message, or not in its right mind.
            return self._out_of_step(reply)
        # A refusal may come early: too large, or a 421. The dot is still in our buffer, and abort() has dropped it.
        return self._judge_reply(reply, Stage.DOT)

    def _judge_broken(self, broken: Broken, *, opened: bool) -> Disposition:
        """Judge what ended without the reply that was waited for; `opened`: ahead, so its MAIL may have been thrown away unread.

        From `before_dot` on it is in doubt, also where part of the content is still in our buffer and the dot with it (a receiver
        that reads too slowly): that no more of it leaves is the word of the event loop, of the TLS layer and of the kernel, and
        the journal, after a crash at this moment, could only say "in doubt". One rule for both, and it errs to the safe side.
        """
        channel = self._channel
        stage = channel.stage
        lost = not self._spoken or broken.kind is ErrorKind.CONNECTION_LOST
        deaf = opened and broken.kind is ErrorKind.TIMEOUT and not self._heard
        self.one_by_one = self.one_by_one or deaf
        self.stale = deaf or (lost and self.transactions > 1 and not self._heard)
        self.abort()
        if self._refusal is not None and broken.kind is not ErrorKind.MALFORMED:
            return self._refusal  # a refusal that was read stands, though the replies behind it were lost
        if channel.farewell is not None and stage is not Stage.DOT:
            return self._judge_reply(channel.farewell, stage)
        return from_error(broken.kind, stage, broken.detail)

    def _refuse(self, reply: Reply) -> Disposition:
        self._must_reset = True
        self._refusal = self._judge_reply(reply, self._channel.stage)
        return self._refusal

    def _end_refused(self) -> Disposition | None:
        self.abort()
        return self._refusal

    def _out_of_step(self, reply: Reply) -> Disposition:
        self.abort()
        detail = f"{reply.code} {reply.text} does not answer what was said"
        return from_error(ErrorKind.MALFORMED, self._channel.stage, detail)


async def open_session(
    host: str, port: int, helo_name: str, timeouts: Timeouts, *, tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC, server_name: str = "",
    trace: Trace | None = None, judge: Judge = classify,
) -> Session:  # fmt: skip
    """Connect, read the greeting, say EHLO (HELO where that is refused) and STARTTLS as `tls` wants it.

    Where the handshake fails, `OPPORTUNISTIC` connects once more and stays in plaintext; `REQUIRE` never does.

    Args:
        host: name or address of the MX host.
        port: its port.
        helo_name: our name in EHLO.
        timeouts: for the whole session.
        tls: the policy.
        server_name: the MX host's name, where `host` is its address (SNI).
        trace: sees each line as it passes; of content it sees the size. Also where it connects to, and why that failed.
        judge: says what a refusal means, of the greeting and of each message.

    Raises:
        SessionFailed: with the disposition of what went wrong.
    """
    server_name = server_name or host
    failure = ""
    try:
        channel, extensions = await greet(host, port, helo_name, timeouts, tls=tls, server_name=server_name, trace=trace, judge=judge)  # fmt: skip
    except HandshakeFailed as failed:
        if tls is not TlsPolicy.OPPORTUNISTIC:
            raise
        failure = failed.disposition.text
        channel, extensions = await greet(host, port, helo_name, timeouts, tls=TlsPolicy.NONE, server_name=server_name, trace=trace, judge=judge)  # fmt: skip
    session = Session(channel, extensions, timeouts, judge)
    session.tls_failure = failure
    return session
