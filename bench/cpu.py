"""CPU seconds by process group, from /proc (Linux): Postgres whole, the gateway's processes, a receiver.

Owns the sum that does not lose a process that ended. Postgres's backends and autovacuum workers come and go: the kernel
adds what a child used to its parent's `cutime` and `cstime` when the parent waits for it, and Postgres's postmaster is the
parent of all of them (backends, autovacuum, checkpointer, background writer, WAL writer, I/O workers). So a group is a root
process with what it inherited from the dead, and its living descendants. Where a child ended between two readings, the
reading is made again.

Resolution: a clock tick (10 ms) for each process alive, so measure over seconds. Must not know what is measured.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

CLOCK_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_TRIES: Final = 20


class Usage(NamedTuple):
    """One process: whose child it is, what it used, and what its ended and waited-for descendants had used."""

    parent: int
    own_s: float
    inherited_s: float
    kernel_s: float
    """The part of both that the kernel used for it."""
    program: str


class TreeUsage(NamedTuple):
    """A group of processes: what it used, the kernel's part of that, and by program what its living processes used."""

    total_s: float
    kernel_s: float
    by_program_s: dict[str, float]


def read_usage(stat: str) -> Usage:
    """The usage in the text of /proc/PID/stat (proc(5): fields 2, 4 and 14 to 17). The name may hold anything, even ")"."""
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    user, system, waited_user, waited_system = (int(field) for field in fields[11:15])
    return Usage(
        parent=int(fields[1]),
        own_s=(user + system) * CLOCK_TICK_S,
        inherited_s=(waited_user + waited_system) * CLOCK_TICK_S,
        kernel_s=(system + waited_system) * CLOCK_TICK_S,
        program=head.partition("(")[2],
    )


def process_cpu_s(pid: int) -> float:
    """What one living process used itself; 0 for one that is gone."""
    usage = _usage(pid)
    return usage.own_s if usage else 0.0


def tree_cpu_s(root: int, *, without: Collection[int] = ()) -> float:
    """What `root` and all its descendants used, the ended ones included.

    Args:
        root: process id; it must be alive.
        without: living processes of the tree that are left out (a backend that only made the load).
    """
    return sum(
        usage.inherited_s + (0.0 if pid in without else usage.own_s) for pid, usage in _tree(root).items()
    )


def tree_usage(root: int) -> TreeUsage:
    """What `root` and all its descendants used, the ended ones included, and where it went. `root` must be alive."""
    by_program: defaultdict[str, float] = defaultdict(float)
    usages = _tree(root).values()
    for usage in usages:
        by_program[usage.program] += usage.own_s
    total_s = sum(usage.own_s + usage.inherited_s for usage in usages)
    return TreeUsage(total_s, sum(usage.kernel_s for usage in usages), dict(by_program))


def waited_s(pid: int) -> float:
    """How long the main thread of a living process was ready to run and had no processor (0 where the kernel does not tell)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def peak_rss_bytes(pid: int) -> int:
    """The most memory that a living process had resident at once (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _tree(root: int) -> dict[int, Usage]:
    """The living processes of a tree, read while none of the root's children ended."""
    for _ in range(_TRIES):
        before = _usage(root)
        living = _snapshot()
        after = _usage(root)
        if before is None or after is None:
            raise ProcessLookupError(f"process {root} is gone: its CPU time cannot be read any more")
        if before.inherited_s == after.inherited_s:
            break
    children: dict[int, list[int]] = defaultdict(list)
    for pid, usage in living.items():
        children[usage.parent].append(pid)
    found, pending = {root: after}, children[root]
    while pending:
        pid = pending.pop()
        found[pid] = living[pid]
        pending += children[pid]
    return found


def _snapshot() -> dict[int, Usage]:
    found: dict[int, Usage] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (usage := _usage(int(name))):
            found[int(name)] = usage
    return found


def _usage(pid: int) -> Usage | None:
    try:
        return read_usage(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except OSError:  # ended meanwhile
        return None
