"""Programs that run beside us: started, ready by their first line of JSON, ended with us whatever happens.

The sink and `gateway run --json` both say on stdout when they are ready. Each is its own session, so that Ctrl-C in a
terminal is for us alone; we then end them in order. On Linux the kernel also ends them when we are killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.app.lifeline import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
_START_S = 60.0
_STOP_S = 45.0


class ProgramError(RuntimeError):
    """A program did not start; the message holds the end of its log."""


class Program:
    """One program, as a context manager. `said` is what its ready line held; `log_path` gets what it writes to stderr."""

    def __init__(
        self,
        module: str,
        *options: str,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        """Start `python -m module options…` and wait until it is ready.

        Args:
            module: the program.
            options: its command line.
            log_path: appended to.
            env: its environment; ours by default.
            cwd: where the program is found: the repository's root by default.

        Raises:
            ProgramError: it ended first, or took too long.
        """
        self.log_path = log_path
        self.name = module
        with log_path.open("ab") as log:
            # preexec_fn is safe here: we have no threads.
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            self.said = self._first_line()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._process.poll()

    def stop(self) -> int:
        """SIGTERM and, when that does not end it in time, SIGKILL; the exit status. Idempotent."""
        process = self._process
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return process.returncode

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._process.kill()
        self._process.wait()

    def last_words(self, lines: int = 8) -> str:
        """The end of its log."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _first_line(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        deadline = time.monotonic() + _START_S
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(stdout.fileno(), 4096) if ready else b""
            if not chunk:
                what = "did not say that it is ready" if not ready else f"ended with {self._process.wait()}"
                raise ProgramError(f"{self.name} {what}:\n{self.last_words()}")
            line += chunk
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
