"""F27: a process may open no more files or sockets. It sheds load, and goes on when there is room again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.fleet import Fleet
from tests.support.node import Node

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")


async def test_a_dispatcher_that_can_open_no_more_connections_sends_over_those_it_has(
    db: str, tmp_path: Path
) -> None:
    settings = {"dispatch": {"connections_per_lane": 3, "idle_connection_s": 0.2}}
    async with Fleet(db, tmp_path, settings=settings, sink_options=("--delay-ms", "20")) as fleet:
        ids = await fleet.submit(300, domains=60)  # wants 180 connections
        dispatcher = await fleet.start("here", "--spare-descriptors", "40")
        await fleet.settled(timeout_s=60)
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == set(ids)
        assert await fleet.ever_in_doubt() == set()
        assert await dispatcher.terminate() == 0


async def test_an_api_that_can_accept_no_more_connections_serves_again_when_some_have_gone(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path) as fleet:
        node = Node(fleet, "here", "api")
        try:
            await node.start()
            [api] = [
                p for p in psutil.Process(node.pid).children() if "gateway.app.child" in " ".join(p.cmdline())
            ]
            async with httpx.AsyncClient(base_url=node.api, timeout=30) as http:
                assert (await http.get("/readyz")).status_code == 200
                most = max(int(name) for name in os.listdir(f"/proc/{api.pid}/fd")) + 1 + 5
                resource.prlimit(api.pid, resource.RLIMIT_NOFILE, (most, most))
                host, port = node.api.removeprefix("http://").split(":")
                idle = [await asyncio.open_connection(host, int(port)) for _ in range(30)]
                assert api.is_running()
                for _, writer in idle:
                    writer.close()
                    with contextlib.suppress(OSError):  # it may have been shown the door already
                        await writer.wait_closed()
            async with httpx.AsyncClient(base_url=node.api, timeout=30) as http:
                assert (await http.get("/readyz")).status_code == 200
            assert await node.stop() == 0
        finally:
            await node.stop()
