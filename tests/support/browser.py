"""A real browser for tests: Debian's Chromium without a window, spoken to over a pipe (DevTools protocol, no further library)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--remote-debugging-pipe",
)  # fmt: skip


def needs_browser() -> str:
    """The browser's path; without one the test is skipped, but in CI it fails."""
    found = shutil.which("chromium")
    if found is None:
        missing = "no chromium (Debian's package `chromium`)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class Tab:
    """A page, and what happened on it."""

    def __init__(self, reader: asyncio.StreamReader, out: int) -> None:
        self._reader, self._out = reader, out
        self._ids = itertools.count(1)
        self._session = ""
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params} | (
            {"sessionId": self._session} if self._session else {}
        )
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = await self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    async def open(self, url: str) -> None:
        """Open a tab at an address and wait until it is loaded and idle."""
        made = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Network", "Page", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self.events.clear()
        await self.call("Page.navigate", url=url)
        while not any(one.get("params", {}).get("name") == "networkIdle" for one in self.events):
            self.events.append(await self._next())

    async def value(self, expression: str) -> Any:
        """Evaluate something on the page."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        return [one["params"]["request"]["url"] for one in self.events if one.get("method") == "Network.requestWillBeSent"]  # fmt: skip

    def complaints(self) -> list[str]:
        """What the browser wrote into its log: refused loads, errors."""
        return [
            one["params"]["entry"]["text"] for one in self.events if one.get("method") == "Log.entryAdded"
        ]

    async def _next(self) -> dict[str, Any]:
        return json.loads((await self._reader.readuntil(b"\0"))[:-1])


@contextlib.asynccontextmanager
async def browser(program: str, profile: Path) -> AsyncIterator[Tab]:
    """A browser with a fresh profile, ended afterwards."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def places() -> None:  # the protocol wants descriptors 3 and 4
        os.dup2(to_read, 100)
        os.dup2(from_write, 101)
        os.dup2(100, 3)
        os.dup2(101, 4)

    process = await asyncio.create_subprocess_exec(
        program, *_FLAGS, f"--user-data-dir={profile}", "about:blank",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        close_fds=False, preexec_fn=places,
    )  # fmt: skip
    os.close(to_read)
    os.close(from_write)
    reader = asyncio.StreamReader(limit=64 * 2**20)
    pipe = os.fdopen(from_read, "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        async with asyncio.timeout(60):
            yield Tab(reader, to_write)
    finally:
        transport.close()
        os.close(to_write)
        process.terminate()
        await process.wait()
