"""The command line for tests: run in this process, with what it printed and its exit code."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.app.exits import Exit
from gateway.cli import main


class Cli:
    """Runs commands in this process, on a thread of their own: each brings its own loop."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()  # what the test itself has caused to be printed
        code = await asyncio.to_thread(main, arguments)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    async def json(self, *arguments: str) -> Any:
        """What a command that must succeed tells a program."""
        code, out, err = await self(*arguments, "--json")
        assert code == Exit.OK, err
        return json.loads(out)


def cli_on(
    dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> Cli:
    """Commands on a database, in a folder of their own without a configuration file."""
    monkeypatch.setenv("GATEWAY_DSN", dsn)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(folder / "data"))
    monkeypatch.chdir(folder)
    return Cli(capsys)
