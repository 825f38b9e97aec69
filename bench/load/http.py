"""A client that costs little: HTTP/1.1 keep-alive on a bare asyncio protocol, requests encoded beforehand.

It shares the machine with the server that it loads, so it does no more than it must: writes bytes, finds the status and the
end of the answer by its Content-Length. Not for servers that chunk their answers.

A `Load` is closed: each connection asks again when it was answered, so that a slow server is asked less. A `SteadyLoad` is open: each
request has its moment whatever became of the others, and its latency counts from that moment (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from bench.load.accepting import Answers, Connection


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


class HttpAnswers(Answers):
    """What came back: `status` is what every answer must have."""

    status: bytes = b"202"

    def answered(self, status: bytes, answer: bytes, took_s: float) -> None:
        """Count an answer."""
        if status == self.status:
            self.latencies_s.append(took_s)
        else:
            self.refused(answer[-500:])


class Load(HttpAnswers, kw_only=True):
    """A closed load. Mutable: all connections of one run count in it.

    `most`: how many requests are sent in all; 0: one after another, again from the first, until `stopping`.
    """

    requests: Sequence[bytes]
    next: int = 0
    most: int = 0

    @property
    def is_over(self) -> bool:
        """Whether no further request is to be sent."""
        return self.stopping or 0 < self.most <= self.next

    def ready(self, client: Client) -> None:
        """Give the next request at once."""
        if self.is_over:
            client.close()
            return
        number = self.next
        self.next = number + 1
        client.send(self.requests[number % len(self.requests)], time.perf_counter())


class SteadyLoad(HttpAnswers, kw_only=True):
    """An open load. `run` plans; a request whose connections are all busy waits for one, and that counts.

    `late_s`: how much later than planned a request was written though a connection was free: what this process itself added.
    """

    requests: Sequence[bytes]
    late_s: list[float] = msgspec.field(default_factory=list[float])
    most_waiting: int = 0
    _free: deque[Client] = msgspec.field(default_factory=deque)
    _waiting: deque[tuple[bytes, float]] = msgspec.field(default_factory=deque)

    def ready(self, client: Client) -> None:
        """Give what waits for a connection, or keep it for what comes."""
        if self._waiting:
            client.send(*self._waiting.popleft())
        elif self.stopping:
            client.close()
        else:
            self._free.append(client)

    async def run(self, per_s: float, seconds: float) -> None:
        """Send so many requests a second, evenly, then stop: connections close when they have been answered."""
        began = time.perf_counter()
        for number in range(round(per_s * seconds)):
            planned = began + number / per_s
            if (pause_s := planned - time.perf_counter()) > 0:
                await asyncio.sleep(pause_s)
            request = self.requests[number % len(self.requests)]
            if self._free:
                self.late_s.append(time.perf_counter() - planned)
                self._free.popleft().send(request, planned)
            else:
                self._waiting.append((request, planned))
                self.most_waiting = max(self.most_waiting, len(self._waiting))
        self.stopping = True
        while self._free:
            self._free.popleft().close()


async def open_clients(load: Load | SteadyLoad, port: int, count: int) -> list[Client]:
    """So many connections to a port of this machine."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Client(load), "127.0.0.1", port))[1] for _ in range(count)]


async def all_closed(clients: Sequence[Client]) -> None:
    """Wait for the end of connections."""
    await asyncio.gather(*(client.closed for client in clients))


class Client(Connection):
    """One connection: one request after another, as its source gives them."""

    def __init__(self, load: Load | SteadyLoad) -> None:
        super().__init__(load)
        self._load = load
        self._buffer = bytearray()
        self._wanted = -1  # bytes of the answer, head and body; -1: the head is not whole yet
        self._status = b""
        self._began_at = 0.0

    def send(self, request: bytes, began_at: float) -> None:
        """Write a request, whose latency counts from `began_at` (`time.perf_counter`). Only when it is ready."""
        self._began_at = began_at
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first request."""
        super().connection_made(transport)
        self._load.ready(self)

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer; when it is whole, tell and go on."""
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
        self._load.answered(self._status, bytes(buffer), time.perf_counter() - self._began_at)
        buffer.clear()
        self._wanted = -1
        self._load.ready(self)
