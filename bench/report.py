"""What a benchmark says: figures with their spread, the code and machine they belong to, and whether that is still so.

Owns the result files `bench/results/NAME.json` (their schema is in `bench/README.md`), and the fingerprint: a digest of
everything under `gateway/`, `bench/` and `config/` that can change a figure. A result whose fingerprint is not that of the
files at hand, or whose code changed while it was measured, is stale and is never called current. Must not know what is
measured.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

SCHEMA: Final = 1
ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "bench" / "results"

_MEASURED: Final = ("gateway", "bench", "config")
DERIVED: Final = frozenset({"latest"})
"""Files beside the results that are made from them; `latest.py` says whether they still say the same."""
_NOT_CODE: Final = ("bench/results/",)
_NOT_CODE_SUFFIXES: Final = (".pyc", ".md")

Judged = Literal["median", "worst"]


class Reach(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a figure should come to, and whether it did. `judged` by the median of the runs, or by the worst of them."""

    at_most: float | None = None
    at_least: float | None = None
    judged: Judged = "median"
    met: bool = False


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One quantity over all runs, in the order of the runs."""

    unit: str
    median: float
    min: float
    max: float
    values: tuple[float, ...]
    reach: Reach | None = None


class Code(msgspec.Struct, frozen=True):
    """Which code was measured. `dirty`: measured paths that `git status` shows; `moved`: the code changed meanwhile."""

    commit: str
    fingerprint: str
    dirty: tuple[str, ...]
    moved: bool = False


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured, and how busy that was (1-minute load average at the start and the end)."""

    cpu: str
    cpus: int
    memory_bytes: int
    system: str
    python: str
    load_before: float
    load_after: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark hands back: figures by name, how it was set up, curves, and what must be said beside them."""

    figures: Mapping[str, Figure]
    settings: Mapping[str, Any]
    series: Mapping[str, list[dict[str, float]]] = {}
    notes: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One result file."""

    schema: int = SCHEMA
    bench: str
    command: str
    quick: bool
    runs: int
    started_at: datetime
    took_s: float
    code: Code
    machine: Machine
    settings: Mapping[str, Any]
    figures: Mapping[str, Figure]
    series: Mapping[str, list[dict[str, float]]] = {}
    notes: tuple[str, ...] = ()


def figure(
    values: Iterable[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    judged: Judged = "median",
) -> Figure:
    """The figure of these runs. Raises ValueError without any."""
    runs = [float(f"{value:.6g}") for value in values]
    if not runs:
        raise ValueError("a figure of no runs")
    median = float(f"{statistics.median(runs):.6g}")
    reach = None
    if at_most is not None or at_least is not None:
        high, low = (median, median) if judged == "median" else (max(runs), min(runs))
        met = (at_most is None or high <= at_most) and (at_least is None or low >= at_least)
        reach = Reach(at_most, at_least, judged, met)
    return Figure(unit, median, min(runs), max(runs), tuple(runs), reach)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not pass (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    """Run by run, so that what slowed the machine for a while stands on both sides."""
    return [value / base for value, base in zip(values, bases, strict=True)]


def fingerprint(root: Path = ROOT) -> str:
    """A digest of path and content of all measured files under `root`."""
    digest = hashlib.sha256()
    for path in _measured_files(root):
        content = hashlib.sha256((root / path).read_bytes()).hexdigest()
        digest.update(f"{path}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def read_code(root: Path = ROOT) -> Code:
    """The code at hand: commit, fingerprint, and what differs from the commit."""
    commit = _git(root, "rev-parse", "HEAD").strip() or "unknown"
    status = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *_MEASURED)
    dirty = tuple(line[3:] for line in status.splitlines() if _is_code(line[3:]))
    return Code(commit, fingerprint(root), dirty)


def read_machine(load_before: float) -> Machine:
    """The machine at hand, now."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=_cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=pages,
        system=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        python=platform.python_version(),
        load_before=round(load_before, 2),
        load_after=round(os.getloadavg()[0], 2),
    )


def save(result: Result, folder: Path = RESULTS) -> Path:
    """Write the result file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.bench}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path


def read(path: Path) -> Result:
    """Read a result file. Raises msgspec.DecodeError naming what does not fit."""
    return msgspec.json.decode(path.read_bytes(), type=Result)


def why_stale(result: Result, now: str) -> str:
    """Why a result does not speak for the code with the fingerprint `now`; empty when it does."""
    if result.schema != SCHEMA:
        return f"written in schema {result.schema}, this is {SCHEMA}"
    if result.quick:
        return "a quick run: it shows that the benchmark works, not what the code can do"
    if result.code.moved:
        return "the code changed while it was measured"
    if result.code.fingerprint != now:
        return (
            f"measured with other code (commit {result.code.commit[:9]}, {result.started_at:%Y-%m-%d %H:%M})"
        )
    return ""


def check(folder: Path = RESULTS, root: Path = ROOT) -> list[tuple[str, str]]:
    """Every result file by name, with why it is stale (empty: current)."""
    now = fingerprint(root)
    found: list[tuple[str, str]] = []
    for path in sorted(path for path in folder.glob("*.json") if path.stem not in DERIVED):
        try:
            found.append((path.stem, why_stale(read(path), now)))
        except msgspec.MsgspecError as error:
            found.append((path.stem, f"not a result file: {error}"))
    return found


def table(result: Result) -> str:
    """The figures as lines of text."""
    width = max((len(name) for name in result.figures), default=0)
    lines = [f"{'':{width}}  {'median':>10} {'min':>10} {'max':>10}  unit"]
    for name, one in result.figures.items():
        line = f"{name:{width}}  {_short(one.median):>10} {_short(one.min):>10} {_short(one.max):>10}  {one.unit}"
        if one.reach:
            bound = (
                f"<= {one.reach.at_most:g}" if one.reach.at_most is not None else f">= {one.reach.at_least:g}"
            )
            line += f"  ({bound}: {'met' if one.reach.met else 'MISSED'})"
        lines.append(line)
    return "\n".join(lines)


def now() -> datetime:
    """The time that goes into a result."""
    return datetime.now(UTC).replace(microsecond=0)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _measured_files(root: Path) -> list[str]:
    found: list[str] = []
    for top in _MEASURED:
        for path in (root / top).rglob("*"):
            name = path.relative_to(root).as_posix()
            if path.is_file() and _is_code(name):
                found.append(name)
    return sorted(found)


def _is_code(name: str) -> bool:
    return not (
        name.endswith(_NOT_CODE_SUFFIXES)
        or "__pycache__" in name
        or any(name.startswith(x) for x in _NOT_CODE)
    )


def _git(root: Path, *words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout
    except OSError:  # no git: the fingerprint still tells
        return ""


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
