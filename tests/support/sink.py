"""The sink as a process of its own, for tests: started, asked for its ledger, ended.

    async with SinkServer(tmp_path, world="accept") as sink:
        … send to 127.0.0.1:sink.port …
        ledger = await sink.wait_for_accepts(3)

The sink ends with this process whatever becomes of it: its standard input is a pipe that we hold.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.load.ledger import KeyBy, Ledger, read

_ROOT = Path(__file__).resolve().parents[2]
_POLL_S = 0.005
_START_S = 20.0
_STOP_S = 10.0


class SinkServer:
    """An async context manager around ``python -m bench.load.sink``.

    ``world`` is ``default``, ``accept``, or the text of a world file when it holds a newline. Further options as on
    the command line: ``options=("--hide", "--delay-ms", "20")``. The ledger is ``directory / "ledger.tsv"``; a second
    sink on the same directory goes on with it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        world: str = "accept",
        port: int = 0,
        seed: int = 0,
        options: tuple[str, ...] = (),
    ) -> None:
        self.port = port
        self.ledger_path = directory / "ledger.tsv"
        if "\n" in world:
            file = directory / "world.toml"
            file.write_text(world, encoding="utf-8")
            world = str(file)
        self._options = (
            *("--ledger", str(self.ledger_path), "--world", world, "--seed", str(seed), "--parent-fd", "0"),
            *options,
        )
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The process's id. Raises RuntimeError when it does not run."""
        return self._running().pid

    async def start(self) -> None:
        """Start the process and wait until it listens. Raises RuntimeError with what it said when it does not."""
        command = ("-m", "bench.load.sink", "--port", str(self.port), *self._options)
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=_ROOT, stdin=pipe, stdout=pipe
        )
        assert process.stdout is not None
        async with asyncio.timeout(_START_S):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the sink ended with {await process.wait()} before it listened; see its stderr"
            )
        self.port = int(json.loads(line)["port"])

    async def stop(self) -> int | None:
        """SIGTERM, wait, and the exit status; None when it did not run. Idempotent."""
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            process.terminate()
        return await self._end(process)

    async def stop_and_read(self) -> dict[str, Any]:
        """SIGTERM, and the closing summary of a sink that was started with ``--json``."""
        process, self._process = self._running(), None
        process.terminate()
        async with asyncio.timeout(_STOP_S):
            said, _ = await process.communicate()
        return json.loads(said)

    async def kill(self) -> int:
        """SIGKILL and wait, as a crash of the receiver; the port stays known for a restart with ``start``."""
        process = self._running()
        process.kill()
        return await self._end(process)

    def ledger(self, by: KeyBy = "message") -> Ledger:
        """What the sink has seen so far."""
        return read(self.ledger_path, by) if self.ledger_path.exists() else Ledger()

    async def wait_for_accepts(self, count: int, *, timeout_s: float = 10.0) -> Ledger:
        """The ledger, once it holds at least ``count`` accepts. Raises AssertionError saying what it held instead."""
        return await self._wait_for("accepted", count, timeout_s)

    async def wait_for_refusals(self, count: int, *, timeout_s: float = 10.0) -> Ledger:
        """The ledger, once it holds at least ``count`` refusals. Raises AssertionError as ``wait_for_accepts``."""
        return await self._wait_for("refused", count, timeout_s)

    async def _wait_for(self, kind: str, count: int, timeout_s: float) -> Ledger:
        needle = b"\n" + kind.encode() + b"\t"
        seen, offset, rest = 0, 0, b"\n"
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            if self.ledger_path.exists() and self.ledger_path.stat().st_size > offset:
                with self.ledger_path.open("rb") as file:
                    file.seek(offset)
                    new = file.read()
                offset += len(new)
                whole, newline, tail = (rest + new).rpartition(b"\n")
                seen += whole.count(needle)
                rest = newline + tail
            if seen >= count:
                return self.ledger()
            if asyncio.get_running_loop().time() > deadline:
                process = self._process
                state = "gone" if process is None or process.returncode is not None else "running"
                raise AssertionError(
                    f"after {timeout_s} s the sink ({state}) had {seen} of {count} {kind}: {self.ledger()}"
                )
            await asyncio.sleep(_POLL_S)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the sink does not run")
        return self._process

    async def _end(self, process: asyncio.subprocess.Process) -> int:
        self._process = None
        async with asyncio.timeout(_STOP_S):
            _, status = await asyncio.gather(process.communicate(), process.wait())
        return status
