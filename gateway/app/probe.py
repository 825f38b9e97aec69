"""The address where a node says how it is: `/metrics`, `/healthz`, `/readyz`; for machines that watch, without a key.

Owns the little HTTP that this takes (RFC 9112, one request a connection): the supervisor has no web framework, and should load none. Its
answers hold no address and no content, but bind it to a network that is yours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from gateway.telemetry import Event, log

HEAD_LIMIT_BYTES: Final = 8_192
PATIENCE_S: Final = 5.0
CONNECTIONS: Final = 32

_PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
_JSON: Final = "application/json"


class Watched(Protocol):
    """What can be asked."""

    async def metrics(self) -> str:
        """The page for Prometheus."""
        ...

    async def problems(self) -> list[str]:
        """Why it is not ready; empty when it is."""
        ...


class Answer(msgspec.Struct, frozen=True):
    """Status, media type and body of a response."""

    status: str
    media_type: str
    body: bytes


async def serve_probe(host: str, port: int, watched: Watched) -> asyncio.Server:
    """Answer until the server is closed.

    Raises:
        OSError: the address is not to be had.
    """
    room = asyncio.Semaphore(CONNECTIONS)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S), room:
                await _respond(reader, writer, watched)

    return await asyncio.start_server(serve, host, port, limit=HEAD_LIMIT_BYTES)


async def _respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watched: Watched) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return
    method, path = parse_request(head)
    try:
        found = await answer(method, path, watched)
    except Exception:
        log.exception(Event.PROBE_FAILED, path=path)
        found = Answer("500 Internal Server Error", _JSON, b'{"status":"error"}')
    writer.write(
        f"HTTP/1.1 {found.status}\r\nContent-Type: {found.media_type}\r\nContent-Length: {len(found.body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
    )
    if method != "HEAD":
        writer.write(found.body)
    await writer.drain()


def parse_request(head: bytes) -> tuple[str, str]:
    """Method and path (without a query) of a request; empty ones where it is not HTTP."""
    parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return "", ""
    return parts[0], parts[1].partition("?")[0]


async def answer(method: str, path: str, watched: Watched) -> Answer:
    """What a request is answered with."""
    pages: dict[str, Callable[[Watched], Awaitable[Answer]]] = {
        "/metrics": _metrics,
        "/healthz": _healthz,
        "/readyz": _readyz,
    }
    if not method:
        return Answer("400 Bad Request", _JSON, b'{"status":"expected an HTTP request"}')
    if path not in pages:
        return Answer("404 Not Found", _JSON, b'{"status":"there are /metrics, /healthz and /readyz"}')
    if method not in ("GET", "HEAD"):
        return Answer("405 Method Not Allowed", _JSON, b'{"status":"expected GET"}')
    return await pages[path](watched)


async def _metrics(watched: Watched) -> Answer:
    return Answer("200 OK", _PLAIN, (await watched.metrics()).encode())


async def _healthz(_: Watched) -> Answer:
    return Answer("200 OK", _JSON, b'{"status":"ok"}')


async def _readyz(watched: Watched) -> Answer:
    if problems := await watched.problems():
        body = msgspec.json.encode({"status": "unavailable", "problems": problems})
        return Answer("503 Service Unavailable", _JSON, body)
    return Answer("200 OK", _JSON, b'{"status":"ok"}')
