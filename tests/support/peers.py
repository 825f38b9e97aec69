"""Other people's mail programs, for tests that talk to them: found, or the test skips and says so; in CI it fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest


def require(program: str, package: str) -> str:
    """Path of a peer's program; skips the test where it is not installed, fails it in CI."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        message = f"{program} is not installed (Debian package {package})"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def free_port() -> int:
    """A port of loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def answers(port: int) -> None:
    """Return when somebody listens there."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0)
            else:
                writer.close()
                return


@asynccontextmanager
async def smtp_sink(*options: str) -> AsyncIterator[int]:
    """Postfix's receiving server on a free port; as root it runs as `nobody`."""
    program, port = require("smtp-sink", "postfix"), free_port()
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    process = await asyncio.create_subprocess_exec(
        program, *user, *options, f"127.0.0.1:{port}", "100", cwd="/"
    )
    try:
        await answers(port)
        yield port
    finally:
        process.terminate()
        await process.wait()
