"""An HTTP server that answers what a test wrote down, request by request, or hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

HANG_UP = b""
"""In place of an answer: the connection ends after the request was read."""


class Request(msgspec.Struct):
    """One request as it came; names of headers in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


class ScriptedHttp(msgspec.Struct):
    """Where it is, and what it was asked."""

    url: str = ""
    requests: list[Request] = []


def answer(status: int, body: bytes, *headers: str) -> bytes:
    """One answer, after which the connection ends."""
    head = [f"HTTP/1.1 {status} Status", f"content-length: {len(body)}", "connection: close", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


@asynccontextmanager
async def scripted_http(answers: Sequence[bytes]) -> AsyncIterator[ScriptedHttp]:
    """Serve these answers, one a connection, on a free port of loopback."""
    server, left = ScriptedHttp(), list(answers)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            if headers.get("transfer-encoding") == "chunked":
                body = await _chunks(reader)
            else:
                body = await reader.readexactly(int(headers.get("content-length", "0")))
            server.requests.append(Request(head[0], headers, body))
            writer.write(left.pop(0))
            await writer.drain()
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
    assert not left, f"{len(left)} answers were not asked for"


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body
