"""A client that costs little: HTTP/1.1 keep-alive on a bare asyncio protocol, requests encoded beforehand.

It shares the machine with the server that it loads, so it does no more than it must: writes bytes, finds the status and the
end of the answer by its Content-Length. Not for servers that chunk their answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

import msgspec


class Load(msgspec.Struct):
    """What all connections of one run share. Mutable: they count in it.

    `most`: how many requests are sent in all; 0: one after another, again from the first, until `stopping`. `status`: what every answer
    must have.
    """

    requests: Sequence[bytes]
    latencies_s: list[float] = []
    first_errors: list[bytes] = []
    next: int = 0
    stopping: bool = False
    most: int = 0
    status: bytes = b"202"

    @property
    def is_over(self) -> bool:
        """Whether no further request is to be sent."""
        return self.stopping or 0 < self.most <= self.next


def post(path: str, key: str, body: bytes) -> bytes:
    """A request with an API key, whole."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def get(path: str, key: str) -> bytes:
    """A request for something, with an API key."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n".encode("ascii")


def answer_length(head: bytes) -> int:
    """The length of an answer's body. Raises ValueError when the head does not say it."""
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError("an answer without Content-Length")
    return int(head[at + 17 :].split(b"\r\n", 1)[0])


class Client(asyncio.Protocol):
    """One connection: one request after another, until the load stops."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray()
        self._wanted = -1  # bytes of the answer, head and body; -1: the head is not whole yet
        self._status = b""
        self._sent_at = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        if self._load.is_over:
            self._transport.close()
        else:
            self._send()

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer; when it is whole, count it and go on."""
        buffer = self._buffer
        buffer += data
        if self._wanted < 0:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._status = bytes(buffer[9:12])
            self._wanted = end + 4 + answer_length(bytes(buffer[: end + 2]))
        if len(buffer) < self._wanted:
            return
        load = self._load
        if self._status == load.status:
            load.latencies_s.append(time.perf_counter() - self._sent_at)
        elif len(load.first_errors) < 5:
            load.first_errors.append(bytes(buffer[-500:]))
        buffer.clear()
        self._wanted = -1
        if load.is_over:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """The load is over for this connection."""
        if exc is not None and not self._load.stopping:
            self._load.first_errors.append(repr(exc).encode())
        if not self.closed.done():
            self.closed.set_result(None)

    def _send(self) -> None:
        load = self._load
        number = load.next
        load.next = number + 1
        self._sent_at = time.perf_counter()
        self._transport.write(load.requests[number % len(load.requests)])
