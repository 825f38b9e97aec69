"""A child's tie to the process that started it: it ends when that one is gone, however that ended.

Two ways, since neither is enough alone. Everywhere: the child's standard input is a pipe whose other end the supervisor
holds, and a thread waits for its end. On Linux also the parent-death signal, which reaches a child that hangs before the
thread is there. What the supervisor says comes through the same pipe, in lines.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from gateway.telemetry import Event, log

ORPHAN_GRACE_S: Final = 3.0
"""How long an orphan may finish what it has open. Longer would keep the next start waiting for its journal."""

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the thread that started this process ends. Call first; does nothing but on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Pipe:
    """The lines of a pipe's reading end. Not of `sys.stdin`: a thread that waits in there keeps the interpreter from ending."""

    # Mutable on purpose: what was read beyond the last line.
    def __init__(self, fd: int) -> None:
        self._fd, self._rest = fd, b""

    def line(self) -> bytes:
        """Wait for a line and return it with its newline; at the pipe's end what is left, without one."""
        while b"\n" not in self._rest:
            if not (read := os.read(self._fd, 65_536)):
                break
            self._rest += read
        line, newline, self._rest = self._rest.partition(b"\n")
        return line + newline


def hold(
    pipe: Pipe, on_line: Callable[[bytes], object], on_orphaned: Callable[[], object], *, exit_code: int
) -> None:
    """Watch a pipe from a thread; at its end call `on_orphaned` there, and exit for good after the grace time.

    Each line that comes before is given to `on_line`, in that thread too; one that it fails at is logged. Whatever these two do, the end of
    the pipe is the end of the process.
    """

    def watch() -> None:
        while (line := pipe.line()).endswith(b"\n"):
            try:
                on_line(line)
            except Exception:
                log.error(Event.CONFIG_NOT_FOLLOWED, part="lifeline", exc_info=True)
        try:
            on_orphaned()
        finally:
            time.sleep(ORPHAN_GRACE_S)
            os._exit(exit_code)  # also past a loop that is stuck: nobody is left to end this process

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
