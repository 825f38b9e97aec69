"""The processes of a benchmark: the gateway's, as its supervisor starts them, and a receiver.

Owns their start and their end, and waiting for what they do. They talk over loopback and Unix sockets, and end with this process
however that ends. Must not know what is measured, nor the rows that they work on (`bench/stage`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg

from bench import cpu
from bench.report import ROOT
from gateway.app.brief import Brief, Role, Tuning, encode
from gateway.config import Config
from gateway.throttle.shaping import Shaping

_START_S: Final = 30.0
_STOP_S: Final = 60.0


class Child:
    """One process of the gateway, as its supervisor starts it."""

    def __init__(self, process: asyncio.subprocess.Process, role: Role, log: Path) -> None:
        self._process, self._role, self._log = process, role, log
        self.pid = process.pid
        self.used_s = 0.0  # CPU, read when it was told to end

    @property
    def cpu_s(self) -> float:
        """CPU so far; of an ended one, what it had used when it was told to end."""
        return max(self.used_s, cpu.process_cpu_s(self.pid)) if self.alive else self.used_s

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.returncode is None

    def require(self) -> None:
        """Raise RuntimeError with the end of its log when it has ended."""
        if not self.alive:
            said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"the process {self._role} ended with {self._process.returncode}: {said}")

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def stop(self) -> None:
        """SIGTERM, and wait; SIGKILL when it does not end in time."""
        self.used_s = self.cpu_s
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def child(role: Role, config: Config, dsn: str, throttles: Shaping) -> AsyncGenerator[Child]:
    """Run one of the gateway's processes; its log stands in the data directory."""
    log = config.data_dir / f"{role}.log"
    brief = Brief(role=role, dsn=dsn, tuning=Tuning(config, throttles), log_level="warning")
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.app.child", cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=out, stderr=out
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(encode(brief))
    await process.stdin.drain()
    running = Child(process, role, log)
    try:
        yield running
    finally:
        await running.stop()


async def until(
    met: Callable[[], Awaitable[bool]],
    children: Sequence[Child],
    what: str,
    *,
    timeout_s: float = 60.0,
    poll_s: float = 0.1,
) -> float:
    """Wait for `met`; the moment (monotonic). Raises RuntimeError when a child ends first, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        reached = await met()
        at = time.monotonic()
        if reached:
            return at
        for one in children:
            one.require()
        if at > deadline:
            raise RuntimeError(f"after {timeout_s:g} s still waiting for {what}")
        await asyncio.sleep(poll_s)


async def dispatching(connection: asyncpg.Connection, children: Sequence[Child], count: int) -> None:
    """Wait until so many dispatchers are at work."""

    async def met() -> bool:
        return await connection.fetchval("select count(*) from incarnation where counter > 1") >= count

    await until(met, children, f"{count} dispatchers")


async def listening(port: int, children: Sequence[Child]) -> None:
    """Wait until somebody listens on a port of this machine."""

    async def met() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await until(met, children, f"port {port} to be listened on")


def free_port() -> int:
    """A TCP port of this machine that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sink:
    """A receiver in a process of its own: `python -m bench.load.sink`."""

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, ledger: Path, times: Path | None
    ) -> None:
        self._process = process
        self.pid, self.port, self.ledger, self.times = process.pid, port, ledger, times
        self.tls_sessions = 0  # this and the next: known once it has been stopped
        self.signatures: list[str] = []  # algorithms of the last message's DKIM signatures

    @property
    def route(self) -> dict[str, object]:
        """The configuration's section that leads all mail here."""
        return {"default": f"127.0.0.1:{self.port}"}

    @property
    def cpu_s(self) -> float:
        """CPU so far."""
        return cpu.process_cpu_s(self.pid)

    async def stop(self) -> None:
        """End it; what it logged is then complete."""
        if self._process.returncode is None:
            assert self._process.stdout is not None
            self._process.terminate()
            said = await self._process.stdout.read()
            await self._process.wait()
            summary = json.loads(said) if said else {}
            self.tls_sessions = summary.get("tls_sessions", 0)
            self.signatures = summary.get("signatures", [])


@asynccontextmanager
async def sink(
    folder: Path, *, name: str = "sink", time_log: bool = False, tls: bool = False, delay_ms: float = 0.0
) -> AsyncGenerator[Sink]:
    """Start a receiver that takes everything; it may offer STARTTLS, and hold each group of replies back for a while."""
    ledger = folder / f"{name}.ledger"
    times = folder / f"{name}.times" if time_log else None
    options = [
        "--ledger",
        str(ledger),
        "--world",
        "accept",
        "--parent-fd",
        "0",
        "--json",
        "--delay-ms",
        str(delay_ms),
    ]
    if tls:
        options.append("--tls")
    if times:
        options += ["--time-log", str(times)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load.sink", *options, cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), _START_S)
    running = Sink(process, int(json.loads(line)["port"]), ledger, times)
    try:
        yield running
    finally:
        await running.stop()
