"""An SMTP server that says exactly what a test wrote down, and keeps what it was told.

A script is a list of steps: bytes are sent; `Until(b"…")` reads until the client has sent that; `Drip` sends byte by byte, `Sip`
reads a little at a time; `Hold` waits for the test's event, reading nothing; `Endless` sends until nobody is there; `StartTls` goes on
under TLS; `Relay` becomes another server; `Close` and `Reset` end the connection. Each connection plays the next script, the last one
again and again, until the test says what all later ones play.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

GREETING = b"220 mx.example ESMTP\r\n"
EHLO_PIPELINING = b"250-mx.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
EHLO_PLAIN = b"250 mx.example\r\n"


@dataclass(frozen=True)
class Until:
    """Read until the client has sent this."""

    marker: bytes


class Close:
    """Close the connection."""


class Reset:
    """Reset the connection (RST)."""


@dataclass(frozen=True)
class Drip:
    """Send this a byte at a time, each in a packet of its own."""

    data: bytes
    pause_s: float = 0.0


@dataclass(frozen=True)
class Sip:
    """Read so many bytes at a time, with a pause after each, until the end."""

    size: int
    pause_s: float = 0.01


@dataclass(frozen=True)
class Hold:
    """Wait for the event, or until the server is closed; nothing is read meanwhile."""

    event: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Endless:
    """Send this again and again, until the client is gone."""

    data: bytes


@dataclass(frozen=True)
class Relay:
    """Pass on what both sides say, to and from the server on this port of loopback.

    `until`: once the client says this, the other server answers what belongs to earlier messages and is left; the transaction with it
    is not passed on, and the script goes on.
    `greeted`: the client has had its greeting already; the other server's is left out.
    """

    port: int
    until: bytes = b""
    greeted: bool = False


@dataclass(frozen=True)
class StartTls:
    """Take the client's handshake."""

    context: ssl.SSLContext


Step = bytes | Until | Close | Reset | Drip | Sip | Hold | Endless | Relay | StartTls
OPENING: tuple[Step, ...] = (GREETING, Until(b"EHLO"), EHLO_PIPELINING)
TAKEN: tuple[Step, ...] = (Until(b"DATA\r\n"), b"250 ok\r\n250 ok\r\n354 go\r\n", Until(b"\r\n.\r\n"))


@dataclass
class ScriptedServer:
    """What the fixture gives: where it listens, and what each connection told it."""

    port: int = 0
    heard: list[bytearray] = field(default_factory=list[bytearray])
    later: Sequence[Step] | None = None
    """What every connection from now on plays."""


@asynccontextmanager
async def scripted(
    *scripts: Sequence[Step], host: str = "127.0.0.1", port: int = 0, window_bytes: int | None = None
) -> AsyncIterator[ScriptedServer]:
    """Serve the scripts on an address of loopback, on a free port unless one is named.

    `window_bytes`: how much the kernel may take in for a connection that does not read.
    """
    told = ScriptedServer()
    tasks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = told.later or scripts[min(len(told.heard), len(scripts) - 1)]
        heard = bytearray()
        told.heard.append(heard)
        seen = 0
        with contextlib.suppress(ConnectionError):
            for step in script:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                elif isinstance(step, Until):
                    while (at := heard.find(step.marker, seen)) < 0:
                        data = await reader.read(65_536)
                        if not data:
                            return writer.close()
                        heard += data
                    seen = at + len(step.marker)
                elif isinstance(step, Drip):
                    for byte in step.data:
                        if writer.is_closing():
                            return None
                        writer.write(bytes([byte]))
                        await asyncio.sleep(step.pause_s)
                elif isinstance(step, Sip):
                    while data := await reader.read(step.size):
                        heard += data
                        await asyncio.sleep(step.pause_s)
                elif isinstance(step, Hold):
                    await step.event.wait()
                elif isinstance(step, Endless):
                    while not writer.is_closing():
                        writer.write(step.data)
                        await writer.drain()
                elif isinstance(step, Relay):
                    if not await _relay(step, reader, writer, heard):
                        return writer.close()
                    seen = len(heard)
                elif isinstance(step, StartTls):
                    await writer.start_tls(step.context)
                elif isinstance(step, Reset):
                    raw: socket.socket = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return writer.transport.abort()
                else:
                    return writer.close()
            while data := await reader.read(65_536):
                heard += data
            writer.close()
        return None

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(play(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = socket.create_server((host, port))
    if window_bytes is not None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)  # its connections inherit it
    server = await asyncio.start_server(connected, sock=listening)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _relay(
    step: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray
) -> bool:
    """Whether the client said what the script waits for; else one of the two has ended."""
    start = len(heard)
    leaving = False
    theirs, to_them = await asyncio.open_connection("127.0.0.1", step.port)

    async def back() -> None:
        if step.greeted:
            await theirs.readuntil(b"\r\n")
        with contextlib.suppress(ConnectionError):
            while data := await theirs.read(65_536):
                goodbye = data.find(b"221 ") if leaving else -1
                writer.write(data if goodbye < 0 else data[:goodbye])
                await writer.drain()
        if not leaving:
            writer.close()

    answering = asyncio.create_task(back())
    try:
        while data := await reader.read(65_536):
            heard += data
            if step.until and step.until in heard[start:]:
                leaving = True
                # The opening of the next message may come with the end of this one (RFC 2920).
                to_them.write(data[: max(data.find(b"MAIL FROM:"), 0)] + b"QUIT\r\n")
                await answering
                return True
            to_them.write(data)
            await to_them.drain()
        return False
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        to_them.close()
