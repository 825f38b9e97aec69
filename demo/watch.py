"""A broadcast on its way: its progress, until nothing is left that will still move, and what it cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cpu import process_cpu_s, tree_cpu_s
from demo.client import Api
from demo.processes import Program, ProgramError
from demo.screen import Screen

_POLL_S: Final = 0.25
_STUCK_S: Final = 60.0
_WORKING: Final = ("queued", "leased", "deferred", "held")


class Stuck(RuntimeError):
    """Nothing moved for a long time."""


@dataclass(frozen=True)
class Stage:
    """What is there while the story is told: the folder, the two programs, and the screen."""

    folder: Path
    config: Path
    sink: Program
    gateway: Program
    screen: Screen


@dataclass(frozen=True)
class Sent:
    """A broadcast that has nothing left to do: its counts, how long it took, and CPU seconds by group of processes."""

    counts: Mapping[str, int]
    seconds: float
    cpu_s: Mapping[str, float]


def watch(app: Api, broadcast: str, total: int, stage: Stage) -> Sent:
    """Show the progress until no delivery is queued, leased or deferred any more; some may stay in doubt.

    Raises:
        Stuck: nothing moved for a minute.
        ProgramError: a program ended.
    """
    before = _cpu(stage)
    started = moved = time.monotonic()
    seen: dict[str, int] = {}
    try:
        while True:
            books = app.get(f"/v1/broadcasts/{broadcast}/stats")
            counts: dict[str, int] = {"accepted": books["accepted"], **books["states"]}
            now = time.monotonic()
            if counts != seen:
                seen, moved = counts, now
            stage.screen.progress(
                books["states"], total, counts.get("delivered", 0) / max(now - started, 0.001)
            )
            if books["expanded"] and not any(counts.get(state) for state in _WORKING):
                break
            if now - moved > _STUCK_S:
                raise Stuck(f"nothing has moved for {_STUCK_S:g} s: {counts}")
            for program in (stage.gateway, stage.sink):
                if program.ended is not None:
                    raise ProgramError(f"{program.name} ended with {program.ended}:\n{program.last_words()}")
            time.sleep(_POLL_S)
    finally:
        stage.screen.close()
    after = _cpu(stage)
    return Sent(seen, moved - started, {name: after[name] - before[name] for name in after})


def _cpu(stage: Stage) -> dict[str, float]:
    """CPU seconds so far by group of processes; empty where there is no /proc."""
    if sys.platform != "linux":
        return {}
    pids: Mapping[str, int] = stage.gateway.said["pids"]
    postgres = int((stage.folder / "data/postgres/postmaster.pid").read_text().split()[0])
    groups = {"dispatchers": 0.0, "api, schedule, listen": 0.0}
    for name, pid in pids.items():
        groups["dispatchers" if name.startswith("dispatch") else "api, schedule, listen"] += process_cpu_s(
            pid
        )
    return groups | {"Postgres": tree_cpu_s(postgres), "the receiving world": process_cpu_s(stage.sink.pid)}
