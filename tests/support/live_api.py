"""The control API on a socket of loopback, for programs that are not in this process or that block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from gateway.api.server import serve_api
from gateway.config import ApiConfig
from gateway.throttle.shaping import Shaping
from tests.support.api import World, open_world
from tests.support.peers import free_port


class Live(msgspec.Struct):
    """A running API: where it is, and a way to sites and keys."""

    world: World
    url: str


@asynccontextmanager
async def live_api(dsn: str, folder: Path) -> AsyncIterator[Live]:
    """Serve the API on a free port until the block ends."""
    port, stop = free_port(), asyncio.Event()
    async with open_world(dsn, folder, api=ApiConfig(port=port)) as world:
        config = world.services.config
        serving = asyncio.create_task(serve_api(config, dsn, shaping=Shaping(), stop=stop))
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient() as http, asyncio.timeout(20):
                while not serving.done():
                    try:
                        await http.get(f"{url}/healthz")
                        break
                    except httpx.ConnectError:
                        await asyncio.sleep(0.02)
            yield Live(world, url)
        finally:
            stop.set()
            await serving
