"""From nothing to a session that may send: connect, greeting, EHLO or HELO, STARTTLS, EHLO again.

Owns the order of these and what their failures mean: nobody has judged a message yet, so all of it is the destination's doing.
All replies are read by `mta/channel.py`; aiosmtplib reads what EHLO lists (docs/adr/0007). Must not know envelopes or messages.
RFC 5321 §3.1, §3.2, §4.1.1.1; RFC 3207.
"""

from __future__ import annotations

import asyncio
import socket

from aiosmtplib.esmtp import parse_esmtp_extensions

from gateway.model.disposition import Disposition, Stage
from gateway.mta.channel import Broken, Channel, Timeouts, Trace
from gateway.mta.reply import ErrorKind, Judge, Reply, from_error
from gateway.mta.tls import TlsPolicy, client_context

Extensions = dict[str, str]
"""What EHLO lists: keyword in lower case → its parameters, which may be empty."""


class SessionFailed(Exception):
    """No session came about; `disposition` says why, as a deferral (or refusal) at connect, greeting, EHLO or STARTTLS."""

    def __init__(self, disposition: Disposition) -> None:
        super().__init__(disposition.text)
        self.disposition = disposition


class HandshakeFailed(SessionFailed):
    """TLS was offered and did not come about: a new connection without it might do, where the policy allows that."""


async def greet(
    host: str, port: int, helo_name: str, timeouts: Timeouts, *, tls: TlsPolicy, server_name: str, trace: Trace | None,
    judge: Judge,
) -> tuple[Channel, Extensions]:  # fmt: skip
    """Open a connection up to where MAIL may be said; return it with the extensions offered there.

    Raises:
        SessionFailed: with the disposition of what went wrong.
        HandshakeFailed: in the TLS handshake.
    """
    if trace is None:
        return await _greet(host, port, helo_name, timeouts, tls, server_name, trace, judge)
    named = f" ({server_name})" if server_name != host else ""
    trace("*", f"connecting to {host} port {port}{named}".encode())
    try:
        return await _greet(host, port, helo_name, timeouts, tls, server_name, trace, judge)
    except SessionFailed as failed:
        trace("*", f"no session: {failed}".encode())
        raise


async def _greet(
    host: str, port: int, helo_name: str, timeouts: Timeouts, tls: TlsPolicy, server_name: str, trace: Trace | None, judge: Judge,
) -> tuple[Channel, Extensions]:  # fmt: skip
    channel = await _connect(host, port, timeouts, trace)
    try:
        channel.stage = Stage.BANNER
        banner = await channel.reply(timeouts.banner_s)
        if banner.code != 220:
            raise _refused(channel, banner, judge)
        extensions = await _hello(channel, helo_name, timeouts, judge)
        if tls is not TlsPolicy.NONE and await _secure(
            channel, extensions, server_name, timeouts, tls, judge
        ):
            # RFC 3207 §4.2: what was offered in plaintext, somebody else may have offered.
            extensions = await _hello(channel, helo_name, timeouts, judge)
    except Broken as broken:
        channel.abort()
        if channel.farewell is not None:
            raise _refused(channel, channel.farewell, judge) from broken
        if channel.stage is Stage.STARTTLS and broken.kind is ErrorKind.CONNECTION_LOST:
            raise HandshakeFailed(from_error(ErrorKind.TLS_FAILED, channel.stage, broken.detail)) from broken
        raise SessionFailed(from_error(broken.kind, channel.stage, broken.detail)) from broken
    except BaseException:
        channel.abort()
        raise
    return channel, extensions


async def _connect(host: str, port: int, timeouts: Timeouts, trace: Trace | None) -> Channel:
    try:
        async with asyncio.timeout(timeouts.connect_s):
            _, channel = await asyncio.get_running_loop().create_connection(
                lambda: Channel(trace), host, port
            )
    except TimeoutError as error:
        detail = f"no connection in {timeouts.connect_s:g} s"
        raise SessionFailed(from_error(ErrorKind.TIMEOUT, Stage.CONNECT, detail)) from error
    except OSError as error:
        if isinstance(error, socket.gaierror):
            kind = ErrorKind.DNS_TEMPORARY
        elif isinstance(error, ConnectionRefusedError):
            kind = ErrorKind.CONNECTION_REFUSED
        else:
            kind = ErrorKind.CONNECTION_LOST
        raise SessionFailed(from_error(kind, Stage.CONNECT, str(error))) from error
    return channel


async def _hello(channel: Channel, helo_name: str, timeouts: Timeouts, judge: Judge) -> Extensions:
    channel.stage = Stage.EHLO
    channel.say(f"EHLO {helo_name}\r\n".encode())
    reply = await channel.reply(timeouts.banner_s)
    if reply.code == 250:
        lines = [line[4:].decode("ascii", "replace") for line in channel.last_lines]
        return parse_esmtp_extensions("\n".join(lines))[0]
    if reply.code == 421 or reply.code < 400:  # a second greeting, say: no answer to EHLO
        raise _refused(channel, reply, judge)
    channel.say(f"HELO {helo_name}\r\n".encode())
    reply = await channel.reply(timeouts.banner_s)
    if reply.code != 250:
        raise _refused(channel, reply, judge)
    return {}


async def _secure(
    channel: Channel,
    extensions: Extensions,
    server_name: str,
    timeouts: Timeouts,
    tls: TlsPolicy,
    judge: Judge,
) -> bool:
    """Go on under TLS; False: it cannot be had, and the policy does not mind."""
    channel.stage = Stage.STARTTLS
    required = tls is TlsPolicy.REQUIRE
    if "starttls" not in extensions:
        if required:
            raise SessionFailed(from_error(ErrorKind.TLS_REQUIRED, channel.stage))
        return False
    channel.say(b"STARTTLS\r\n")
    reply = await channel.reply(timeouts.banner_s)
    if reply.code == 421:
        raise _refused(channel, reply, judge)
    if reply.code != 220:
        if required or reply.code < 400:
            detail = f"{reply.code} {reply.text}"
            raise SessionFailed(from_error(ErrorKind.TLS_FAILED, channel.stage, detail))
        return False  # RFC 3207 §4: 454, and the session goes on as it was
    try:
        await channel.start_tls(client_context(), server_name, timeouts.connect_s)
    except OSError as error:
        detail = str(error) or type(error).__name__
        raise HandshakeFailed(from_error(ErrorKind.TLS_FAILED, channel.stage, detail)) from error
    return True


def _refused(channel: Channel, reply: Reply, judge: Judge) -> SessionFailed:
    return SessionFailed(judge(reply, channel.stage))
