"""What a child says of itself when its supervisor asks: its metrics, over a Unix socket of its own.

Owns both ends of that socket. An answer also proves that the child's loop turns. Must not know what is measured.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

PATIENCE_S: Final = 2.0
"""A child that says nothing for so long is stuck, or was stopped."""


async def serve_report(path: str, registry: CollectorRegistry) -> asyncio.Server:
    """Answer everybody who connects with the metrics, until the server is closed.

    Raises:
        OSError: no socket can be made there.
    """

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(generate_latest(registry))
            await writer.drain()
        except ConnectionError:  # who asked is gone
            pass
        finally:
            writer.close()

    return await asyncio.start_unix_server(tell, path)


async def ask(path: Path) -> str | None:
    """What a child reports; None when it does not answer."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return (await reader.read()).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
