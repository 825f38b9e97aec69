"""A way to a server that keeps what its clients said, for tests that look at the bytes that went over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def overheard(port: int) -> AsyncIterator[tuple[int, list[bytearray]]]:
    """A way to a port that keeps what the client said; its own port, and that by connection."""
    heard: list[bytearray] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bytearray) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                keep += data
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = bytearray()
        heard.append(said)
        back, on = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, on, said), pump(back, writer, bytearray()))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard
