"""`python -m bench`: measure the gateway, and say which results still hold.

Owns the command line and the frame of a result (code, machine, time). What is measured is in `micro/` and `load/`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import uvloop

from bench import latest, report
from bench.load.scenario import SCENARIOS, chosen
from bench.options import CannotMeasure, Options, Progress
from bench.report import Outcome, Result

Bench = Callable[[Options, Progress], Awaitable[Outcome]]

BENCHES: Final[dict[str, tuple[str, str, str]]] = {
    # name: (module, function, what it measures)
    "run": ("bench.load.run", "run", "the whole way: messages/s, CPU a message, in RSA signatures"),
    "claim": ("bench.micro.claim", "run", "Postgres CPU of claim + acknowledge, against an empty backlog"),
    "snapshot": ("bench.micro.claim", "run_snapshot", "the same while an old snapshot is held"),
    "rate": ("bench.load.rate", "run", "how exact rates are at the receiver, over 4 dispatchers"),
    "urgent": (
        "bench.load.urgent",
        "run",
        "urgent mail behind 100,000 lanes, and a small site behind a big one",
    ),
    "api": ("bench.load.api", "run", "recipients and requests accepted a second"),
    "loaded": (
        "bench.load.loaded",
        "run",
        "POST of single messages while two dispatchers send at full speed",
    ),
    "status": (
        "bench.load.status",
        "run",
        "reading messages back beside 5,000,000 of them: status, why, lists",
    ),
    "submission": ("bench.load.submission", "run", "messages accepted a second over SMTP with TLS and AUTH"),
    "peers": ("bench.peers", "run", "CPU a message beside Postfix with OpenDKIM, on the same mails"),
}


def main(argv: list[str] | None = None) -> int:
    """Run what the command line says; the exit status.

    0; 1 when a figure was missed or a result is stale; 2 for a wrong argument, or where a benchmark needs what is not installed.
    """
    args = _arguments(argv)
    if args.name == "check":
        return _check()
    if args.name == "plot":
        return _plot()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's background has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    names = list(BENCHES) if args.name == "all" else [args.name]
    missed = refused = False
    for name in names:
        try:
            result = _measure(
                name, Options(quick=args.quick, runs=args.runs or (2 if args.quick else 5), only=args.only)
            )
        except CannotMeasure as error:
            print(f"{name}: {error}", file=sys.stderr)
            refused = True
            continue
        if not args.quick and not args.no_save and not args.only:
            path = report.save(result)
            print(f"written: {path.relative_to(report.ROOT)}", file=sys.stderr)
            if name in latest.SOURCES:
                _plot()
        if args.json:
            print(msgspec.json.encode(result).decode(), flush=True)
        else:
            print(f"\n{name}: {BENCHES[name][2]}\n{report.table(result)}")
            for note in result.notes:
                print(f"  {note}")
            sys.stdout.flush()
        missed |= any(one.reach and not one.reach.met for one in result.figures.values())
        if result.code.moved:
            print("the code changed while it was measured: this result is stale", file=sys.stderr)
    return 2 if refused else 1 if missed else 0


def _measure(name: str, options: Options) -> Result:
    module, function, _ = BENCHES[name]
    code = report.read_code()
    load = os.getloadavg()[0]
    bench: Bench = getattr(importlib.import_module(module), function)
    started_at, started = report.now(), time.monotonic()
    outcome = uvloop.run(bench(options, Progress()))
    moved = report.fingerprint() != code.fingerprint
    command = f"python -m bench {name}" + (" --quick" if options.quick else "")
    if options.only:
        command += f" --only {options.only}"
    if options.runs != (2 if options.quick else 5):
        command += f" --runs {options.runs}"
    return Result(
        bench=name,
        command=command,
        quick=options.quick,
        runs=options.runs,
        started_at=started_at,
        took_s=round(time.monotonic() - started, 1),
        code=msgspec.structs.replace(code, moved=moved),
        machine=report.read_machine(load),
        settings=outcome.settings,
        figures=outcome.figures,
        series=outcome.series,
        notes=outcome.notes,
    )


def _plot() -> int:
    try:
        written = latest.write()
    except latest.CannotMake as error:
        print(f"latest.json is not written: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(f"written: {path.relative_to(report.ROOT)}", file=sys.stderr)
    return 0


def _check() -> int:
    found = report.check() + latest.check()
    if not found:
        print("no results yet; `python -m bench all` writes them")
    for name, why in found:
        print(f"{name:10} {'stale: ' + why if why else 'current'}")
    return 1 if any(why for _, why in found) else 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:10} {what}" for name, (_, _, what) in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the gateway on this machine, over loopback, with a Postgres of its own.",
        epilog=f"benchmarks:\n{listed}\n  all        every one of them, which takes about an hour\n"
        "  check      say which files of bench/results are stale\n"
        "  plot       write latest.json and latest.svg anew from run.json and peers.json\n\n"
        "example: python -m bench peers --runs 3 --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        nargs="?",
        default="run",
        choices=[*BENCHES, "all", "check", "plot"],
        metavar="NAME",
        help="default: run",
    )
    parser.add_argument("--quick", action="store_true", help="a small run; shows that it works, is not saved")
    parser.add_argument(
        "--runs", type=int, help="measured runs, after the warm-up (default: 5; 2 with --quick)"
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="SCENARIO",
        help=f"one scenario of run, which is not saved: {', '.join(one.name for one in SCENARIOS)}",
    )
    parser.add_argument("--json", action="store_true", help="the result as a line of JSON on stdout")
    parser.add_argument("--no-save", action="store_true", help="do not write bench/results")
    args = parser.parse_args(argv)
    if args.runs is not None and not 1 <= args.runs <= 100:
        parser.error("--runs: say 1 to 100")
    if args.only and args.name != "run":
        parser.error(f"--only: there are scenarios in run alone, not in {args.name}")
    try:
        chosen(args.only)
    except ValueError as error:
        parser.error(f"--only: {error}")
    return args


if __name__ == "__main__":
    sys.exit(main())
