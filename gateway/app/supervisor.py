"""Keeps one child process for each member of the gateway: starts it, starts it again when it dies, ends it.

Owns the children's lives. Must not know what a role does, nor the database. A child that ends is started again after a
pause that doubles with each death in a row, whatever the reason: a bug, a lost lease, a Postgres that is away. Before the
gateway was ready once, a wrong configuration or three deaths of one member end it all instead: then it would never work.

Started from the main thread: the kernel ties a child's life to the thread that made it (`lifeline`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.app.brief import Brief, Role, Tuning, encode
from gateway.app.exits import Exit
from gateway.clock import Clock
from gateway.telemetry import Event, log

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
HEALTHY_AFTER_S: Final = 60.0
"""A child that lived so long had no trouble in starting: the next pause is the first one again."""
DEATHS_BEFORE_READY: Final = 3

_COMMAND: Final = (sys.executable, "-m", "gateway.app.child")


class Member(msgspec.Struct, frozen=True):
    """One place in the gateway that is always filled: `api`, `dispatch-2`."""

    role: Role
    number: int = 1

    @property
    def name(self) -> str:
        """What logs and messages call it."""
        return self.role.value if self.role is not Role.DISPATCH else f"{self.role}-{self.number}"


def members(roles: Sequence[Role], workers: int) -> list[Member]:
    """One of each role, and `workers` dispatchers. Pure."""
    return [
        Member(role, number)
        for role in roles
        for number in range(1, (workers if role is Role.DISPATCH else 1) + 1)
    ]


def pause_s(deaths_in_a_row: int) -> float:
    """How long to wait before a member is started again after so many deaths, from 1. Pure."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(deaths_in_a_row - 1, 16))


class Supervisor:
    """The children of one gateway. `run` returns when all have ended."""

    def __init__(
        self,
        briefs: Mapping[Member, Brief],
        clock: Clock,
        *,
        grace_s: float,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        """Remember who is to live; nothing starts before `run`.

        Args:
            briefs: what each member is told.
            clock: for pauses and ages.
            grace_s: how long children may take to end before they are killed.
            command: the program of a child; tests give others.
        """
        self._briefs = dict(briefs)
        self._clock = clock
        self._grace_s = grace_s
        self._command = tuple(command)
        self._processes: dict[Member, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._ready = False
        self._exit = Exit.OK
        self.failure = ""
        """Why it ended by itself, in a sentence; empty when it was asked to."""
        self.deaths: Counter[str] = Counter()
        """How often each member died and was to be started again, by name."""

    @property
    def stopping(self) -> bool:
        """Whether the end was asked for, or has come."""
        return self._stopping.is_set()

    @property
    def names(self) -> list[str]:
        """Every member, alive or not."""
        return [member.name for member in self._briefs]

    def pids(self) -> dict[str, int]:
        """The children that live, by name."""
        return {member.name: process.pid for member, process in self._processes.items()}

    @property
    def complete(self) -> bool:
        """Whether every member has a living process."""
        return len(self._processes) == len(self._briefs)

    def mark_ready(self) -> None:
        """From now on no death of a child is taken for a failed start."""
        self._ready = True

    def retune(self, tuning: Tuning) -> None:
        """Tell every child what the files say now; those that are started later begin with it."""
        self._briefs = {
            member: msgspec.structs.replace(brief, tuning=tuning) for member, brief in self._briefs.items()
        }
        line = encode(tuning)
        for process in self._processes.values():
            if process.stdin is not None and not process.stdin.is_closing():
                process.stdin.write(line)  # not awaited: one that does not read keeps nobody waiting

    def stop(self) -> None:
        """Ask for the end: SIGTERM to every child. Called again: the children are killed."""
        send = signal.SIGKILL if self._stopping.is_set() else signal.SIGTERM
        self._stopping.set()
        for process in self._processes.values():
            _signal(process, send)

    def fail(self, why: str, code: Exit) -> None:
        """End it all by ourselves."""
        if not self._stopping.is_set():
            self.failure, self._exit = why, code
            self.stop()

    async def run(self) -> Exit:
        """Keep all members alive until `stop`, then wait for their end and kill what outlives the grace time."""
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(member)) for member in self._briefs]
            await self._stopping.wait()
            _, late = await asyncio.wait(keepers, timeout=self._grace_s) if keepers else ((), ())
            if late:
                log.warning(Event.PROCESS_ENDED, problem="out of grace", role=", ".join(sorted(self.pids())))
                for process in self._processes.values():
                    _signal(process, signal.SIGKILL)
        return self._exit

    async def _keep(self, member: Member) -> None:
        deaths = 0
        while not self._stopping.is_set():
            started = self._clock.monotonic()
            code, pid = await self._live_once(member)
            if self._stopping.is_set():
                log.info(Event.PROCESS_ENDED, role=member.name, pid=pid, exit_code=code)
                return
            deaths = 1 if self._clock.monotonic() - started >= HEALTHY_AFTER_S else deaths + 1
            if not self._ready and (code == Exit.CONFIG or deaths >= DEATHS_BEFORE_READY):
                times = "" if deaths == 1 else f" {deaths} times"
                self.fail(
                    f"{member.name} ended with exit code {code}{times} before the gateway was ready; its log says why",
                    Exit.CONFIG if code == Exit.CONFIG else Exit.FAILED,
                )
                return
            self.deaths[member.name] += 1
            wait_s = pause_s(deaths)
            log.warning(Event.PROCESS_ENDED, role=member.name, pid=pid, exit_code=code, restart_s=wait_s)
            pause = asyncio.ensure_future(self._clock.sleep(wait_s))
            stopped = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait((pause, stopped), return_when=asyncio.FIRST_COMPLETED)
            pause.cancel()
            stopped.cancel()

    async def _live_once(self, member: Member) -> tuple[int, int]:
        """One life of a member: its exit code (negative: the signal that ended it) and its pid."""
        # What a child prints belongs to the log: the supervisor's own output is read by programs.
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=2, stderr=2
        )
        self._processes[member] = process
        try:
            assert process.stdin is not None
            with contextlib.suppress(ConnectionError):  # it died before it read: its exit code says why
                process.stdin.write(encode(self._briefs[member]))
                await process.stdin.drain()
            if self._stopping.is_set():  # asked for while this child was being made
                _signal(process, signal.SIGTERM)
            return await process.wait(), process.pid
        finally:
            del self._processes[member]


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
