"""A gateway of its own on a fleet's database: `gateway run` as a process, of this version or of another."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from demo.processes import ROOT, Program
from tests.support.fleet import Fleet


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """One node, named like a host of the fleet; it may be started and stopped again and again."""

    def __init__(self, fleet: Fleet, host: str, roles: str = "api,dispatch") -> None:
        fleet.config(host)  # writes its file
        self._config, self._roles = fleet.state_dir(host).with_suffix(".toml"), roles
        self._env = {**os.environ, "GATEWAY__API__PORT": str(free_port())}
        self.log = fleet.directory / f"{host}.log"
        self.api = f"http://127.0.0.1:{self._env['GATEWAY__API__PORT']}"
        self._program: Program | None = None

    async def start(self, *options: str, cwd: Path = ROOT) -> None:
        """Start it and wait until it is ready; `cwd`: where its code is.

        Raises:
            ProgramError: it did not start.
        """

        def run() -> Program:
            arguments = ("run", "--roles", self._roles, "--json", "--config", str(self._config), *options)
            env = {**self._env, "PYTHONPATH": str(cwd)}
            return Program("gateway.cli", *arguments, log_path=self.log, env=env, cwd=cwd)

        self._program = await asyncio.to_thread(run)

    @property
    def pid(self) -> int:
        """Of its supervisor, while it runs."""
        assert self._program is not None
        return self._program.pid

    async def stop(self) -> int:
        """End it as a service manager does; its exit status, 0 when it did not run."""
        if self._program is None:
            return 0
        program, self._program = self._program, None
        return await asyncio.to_thread(program.stop)
