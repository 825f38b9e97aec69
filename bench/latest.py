"""What the last whole measurement came to, in one short file for readers: `results/latest.json`, and its plot.

Made from `results/run.json` and, where there is one, `results/peers.json`, and from nothing else: it can be made again at any
time, and it is stale when they are, or when they say something else by now. The form is in `bench/README.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from bench import plot, report
from bench.load import run as whole_way
from bench.load.run import quantity
from bench.peers import PeerSummary, peers_summary
from bench.report import RESULTS, ROOT, Figure, Machine, Result

SOURCES: Final = ("run", "peers")
NAME: Final = "latest"


class CannotMake(Exception):
    """There are no results that the file could be made from; says why, and what writes them."""


class Spread(msgspec.Struct, frozen=True):
    """One number over the runs."""

    median: float
    min: float
    max: float


class Cpu(msgspec.Struct, frozen=True):
    """Milliseconds of CPU a message. The gateway: API, dispatchers and scheduler."""

    gateway: Spread
    postgres: Spread
    sink: Spread


class ScenarioRun(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario: how it was set, and what it came to."""

    name: str
    size_bytes: int
    signing: str
    dispatchers: int
    messages: int
    messages_per_s: Spread
    cpu_ms_per_message: Cpu
    ratio_to_rsa: Spread
    peak_rss_mb: Spread


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    commit: str
    machine: Machine
    settings: dict[str, Any]
    rsa2048_sign_ms: float
    runs: list[ScenarioRun]
    peers: list[PeerSummary]


def from_results(result: Result, peers: Result | None) -> Latest:
    """Make the file's content from a result of `run`, and one of `peers`. A scenario that failed is left out.

    Raises:
        CannotMake: the result is one from before there were scenarios.
    """
    if "scenarios" not in result.settings:
        raise CannotMake("run.json knows no scenarios yet; `python -m bench run` writes it anew")
    runs = [
        _scenario_run(one, result)
        for one in result.settings["scenarios"]
        if quantity(one["name"], whole_way.SENT) in result.figures
    ]
    rsa = [result.figures[quantity(one.name, whole_way.RSA)].min for one in runs]
    return Latest(
        commit=result.code.commit,
        machine=result.machine,
        settings={
            "fingerprint": result.code.fingerprint,
            "started_at": result.started_at,
            "runs": result.runs,
            **{key: value for key, value in result.settings.items() if key != "scenarios"},
            "scenarios": {one["name"]: one["about"] for one in result.settings["scenarios"]},
        },
        rsa2048_sign_ms=min(rsa, default=0.0),
        runs=runs,
        peers=peers_summary(peers) if peers else [],
    )


def write(folder: Path = RESULTS) -> list[Path]:
    """Write latest.json and latest.svg from the results in `folder`; where they are.

    Raises:
        CannotMake: there is no result of `run`, or what is there is none.
    """
    found = from_results(*_sources(folder))
    paths = [folder / f"{NAME}.json", folder / f"{NAME}.svg"]
    paths[0].write_bytes(_encode(found))
    paths[1].write_text(plot.svg(bars(found), found.rsa2048_sign_ms), encoding="utf-8")
    return paths


def bars(found: Latest) -> list[plot.Bar]:
    """The bars of the plot, one for each scenario."""
    return [
        plot.Bar(
            one.name,
            (
                one.cpu_ms_per_message.gateway.median,
                one.cpu_ms_per_message.postgres.median,
                one.cpu_ms_per_message.sink.median,
            ),
            f"{one.ratio_to_rsa.median:.2f} signatures · {one.messages_per_s.median:,.0f} /s",
        )
        for one in found.runs
    ]


def check(folder: Path = RESULTS, root: Path = ROOT) -> list[tuple[str, str]]:
    """The file by name, with why it is stale (empty: current); nothing where there is none."""
    path = folder / f"{NAME}.json"
    if not path.exists():
        return []
    return [(NAME, _why_stale(path, folder, root))]


def _why_stale(path: Path, folder: Path, root: Path) -> str:
    try:
        results = _sources(folder)
        made = from_results(*results)
    except CannotMake as error:
        return str(error)
    now = report.fingerprint(root)
    for name, result in zip(SOURCES, results, strict=True):
        if result is not None and (why := report.why_stale(result, now)):
            return f"{name}.json is: {why}"
    if path.read_bytes() != _encode(made):
        return "it does not say what its sources say; `python -m bench plot` writes it anew"
    return ""


def _sources(folder: Path) -> tuple[Result, Result | None]:
    run, peers = (_read(folder / f"{name}.json") for name in SOURCES)
    if run is None:
        raise CannotMake("there is no run.json yet; `python -m bench run` writes it")
    return run, peers


def _read(path: Path) -> Result | None:
    try:
        return report.read(path) if path.exists() else None
    except msgspec.MsgspecError as error:
        raise CannotMake(f"{path.name} is not a result file: {error}") from error


def _encode(found: Latest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def _scenario_run(described: dict[str, Any], result: Result) -> ScenarioRun:
    name = described["name"]

    def spread(what: str) -> Spread:
        one: Figure = result.figures[quantity(name, what)]
        return Spread(one.median, one.min, one.max)

    return ScenarioRun(
        name=name,
        size_bytes=round(result.figures[quantity(name, whole_way.SIZE)].median),
        signing=described["signing"],
        dispatchers=described["dispatchers"],
        messages=described["messages"],
        messages_per_s=spread(whole_way.SENT),
        cpu_ms_per_message=Cpu(spread(whole_way.GATEWAY), spread(whole_way.POSTGRES), spread(whole_way.SINK)),
        ratio_to_rsa=spread(whole_way.RATIO),
        peak_rss_mb=spread(whole_way.RSS),
    )
