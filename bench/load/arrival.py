"""Connections whose input carries the moment at which the kernel took it from the network.

A receiver that has no processor for some milliseconds reads everything of these milliseconds at once: by its own clock a
sender's even stream arrives in heaps. The kernel's stamp (SO_TIMESTAMPNS, socket(7)) is taken when the bytes arrive, whoever
has the processor. Of bytes that one read takes together it is the stamp of the last. Linux only; elsewhere the time of reading.

It is for measuring: a peer that does not read its replies is cut off, and there is no TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h; Python has no name for it
_STAMP: Final = struct.Struct("@ll")  # struct timespec
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_STAMP.size)
_READ_BYTES: Final = 256 * 1024


class Receiver(Protocol):
    """What a connection's input is given to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""

    def arrived(self, data: bytes, at: float) -> None:
        """Take input; `at`: when it arrived (monotonic seconds)."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection."""


def listen(
    loop: asyncio.AbstractEventLoop, listening: socket.socket, receiver: Callable[[], Receiver]
) -> None:
    """Take connections of a bound, listening socket until `loop.remove_reader` is called for it."""
    listening.setblocking(False)
    with contextlib.suppress(OSError):  # inherited by what is accepted
        listening.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                StampedTransport(loop, connection, receiver())

    loop.add_reader(listening, accept)


class StampedTransport(asyncio.Transport):
    """The least transport that a sink needs."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: socket.socket, receiver: Receiver
    ) -> None:
        super().__init__({"socket": connection})
        self._loop, self._connection, self._receiver = loop, connection, receiver
        self._closing = False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        receiver.connection_made(self)
        loop.add_reader(connection, self._read)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send; a peer whose window is closed is cut off."""
        try:
            if self._connection.send(data) == len(data):
                return
        except OSError:
            pass
        self.abort()

    def is_closing(self) -> bool:
        """Whether it is at its end."""
        return self._closing

    def close(self) -> None:
        """End it; everything written has been sent."""
        self._end(None)

    def abort(self) -> None:
        """End it."""
        self._end(None)

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._loop.remove_reader(self._connection)

    def resume_reading(self) -> None:
        """Read again."""
        if not self._closing:
            self._loop.add_reader(self._connection, self._read)

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._connection.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if not data:
            self._end(None)
            return
        at = time.monotonic()
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) >= _STAMP.size:
                seconds, nanoseconds = _STAMP.unpack_from(value)
                at -= max(0.0, time.time() - (seconds + nanoseconds / 1e9))  # its clock is the wall's
        self._receiver.arrived(data, at)

    def _end(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._connection)
            self._connection.close()
            self._loop.call_soon(self._receiver.connection_lost, error)
