"""Beside others: this gateway, Postfix with OpenDKIM, and Postfix alone, on the same mails and the same receiver.

Run by run each contender sends N personal mails over D domains to a receiver of its own that takes everything; the first
part warms up and does not count. What counts is CPU a message: of the gateway's processes and all of Postgres, as in
`bench/load/run.py`; of all processes of Postfix, and OpenDKIM's, from the first mail that they are handed until their queue is
empty. At the end every mail must have arrived once.

What is easier for the peers: they are handed finished mails by an injector whose CPU nobody counts, while the gateway reads
people and template from its database and renders each mail. What they do and the gateway does not: they take each mail in by
SMTP and put it on disk as a file, which is how a sender without such a gateway hands its mail over. Postfix alone does not sign.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from bench.load.ledger import Ledger
from bench.load.ledger import read as read_ledger
from bench.load.letters import Letter, letters, post
from bench.load.postfix import Programs, find_programs, relay
from bench.load.postfix_config import TUNING, Signing
from bench.load.run import Run, measure
from bench.options import Options, Progress
from bench.processes import sink, until
from bench.report import Figure, Outcome, Result, figure, ratios
from bench.stage import FROM_DOMAIN, Stage, stage
from gateway.mta.keys import generate_rsa_key

REACH_RATIO: Final = 6.0
CONNECTIONS: Final = 20
"""Connections that hand mail to a peer at once."""
SIGNED: Final = "Postfix + OpenDKIM"
ALONE: Final = "Postfix"
_TIMEOUT_S: Final = 300.0


class PeerRun(msgspec.Struct, frozen=True):
    """One run of a peer; milliseconds of CPU a message."""

    messages_per_s: float
    cpu_ms: float
    kernel_ms: float
    """The kernel's part of it: sockets, files, `fsync`, switching between processes."""
    by_program_ms: dict[str, float]
    sink_ms: float
    content_bytes: float


class PeerSummary(msgspec.Struct, frozen=True):
    """One peer in a line: medians; `ratio` is its CPU a message over the gateway's."""

    name: str
    cpu_ms_per_message: float
    ratio: float


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure `options.runs` times each. Raises CannotMeasure where a peer is not installed."""
    programs = find_programs()
    messages, warm_up, domains = (1_000, 200, 10) if options.quick else (5_000, 500, 50)
    mails = letters(warm_up + messages, domains)
    signing = Signing(FROM_DOMAIN, "s1", generate_rsa_key())
    peers: dict[str, list[PeerRun]] = {SIGNED: [], ALONE: []}
    gateway: list[Run] = []
    async with stage() as own:
        for number in range(options.runs):
            place = f"run {number + 1} of {options.runs}: "
            ours = await measure(own, f"gateway_{number}", messages, warm_up, domains)
            gateway.append(ours)
            tell(
                f"{place}gateway: {ours.messages_per_s:.0f} messages/s, {ours.all_ms:.3f} ms of CPU a message"
            )
            for name, runs in peers.items():
                key = signing if name == SIGNED else None
                one = await _measure_peer(
                    own, f"peer_{number}_{len(runs)}_{bool(key)}", programs, mails, warm_up, key
                )
                runs.append(one)
                tell(
                    f"{place}{name}: {one.messages_per_s:.0f} messages/s, {one.cpu_ms:.3f} ms "
                    f"({one.kernel_ms:.3f} of it the kernel's): {one.cpu_ms / ours.all_ms:.2f} times the gateway's"
                )
    settings = {
        "messages": messages, "warm_up": warm_up, "domains": domains, "injector_connections": CONNECTIONS,
        "signature": "rsa-sha256, 2048 bits, relaxed/relaxed", "gateway_bytes": round(gateway[-1].content_bytes),
        **{f"{name}_bytes": round(runs[-1].content_bytes) for name, runs in peers.items()},
        "postfix": dict(TUNING),
    }  # fmt: skip
    return Outcome(figures=_figures(gateway, peers), settings=settings, notes=_notes(peers))


def peers_summary(result: Result) -> list[PeerSummary]:
    """The peers of a result of this benchmark. Raises KeyError for the result of another."""
    return [
        PeerSummary(name, result.figures[_cpu_of(name)].median, result.figures[_ratio_to(name)].median)
        for name in (SIGNED, ALONE)
    ]


async def _measure_peer(own: Stage, name: str, programs: Programs, mails: Sequence[Letter], warm_up: int,
                        signing: Signing | None) -> PeerRun:  # fmt: skip
    async with (
        sink(own.folder, name=name) as receiver,
        relay(programs, receiver.port, signing) as postfix,
    ):
        await post(mails[:warm_up], postfix.port, CONNECTIONS)
        await until(postfix.is_empty, (), "the warm-up to leave the queue", timeout_s=_TIMEOUT_S)
        before, sink_before_s, started = postfix.usage(), receiver.cpu_s, time.monotonic()
        await post(mails[warm_up:], postfix.port, CONNECTIONS)
        ended = await until(postfix.is_empty, (), "the queue to be empty", timeout_s=_TIMEOUT_S, poll_s=0.05)
        after, sink_s = postfix.usage(), receiver.cpu_s - sink_before_s
        await receiver.stop()
    _require_each_once(mails, read_ledger(receiver.ledger, "delivery"))
    lines = receiver.ledger.read_bytes().splitlines()[-100:]
    each = 1000 / (len(mails) - warm_up)
    return PeerRun(
        messages_per_s=(len(mails) - warm_up) / (ended - started),
        cpu_ms=(after.total_s - before.total_s) * each,
        kernel_ms=(after.kernel_s - before.kernel_s) * each,
        by_program_ms={
            program: (used_s - before.by_program_s.get(program, 0.0)) * each
            for program, used_s in after.by_program_s.items()
        },
        sink_ms=sink_s * each,
        content_bytes=statistics.mean(int(line.split(b"\t")[4]) for line in lines),
    )


def _require_each_once(mails: Sequence[Letter], ledger: Ledger) -> None:
    sent = {letter.delivery for letter in mails}
    if ledger.accepted != sent or ledger.duplicates:
        raise RuntimeError(
            f"what was handed over and the ledger differ: {len(sent - ledger.accepted)} of {len(sent)} missing, "
            f"{len(ledger.accepted - sent)} unknown, {len(ledger.duplicates)} more than once"
        )


def _figures(gateway: Sequence[Run], peers: dict[str, list[PeerRun]]) -> dict[str, Figure]:
    ours_ms = [one.all_ms for one in gateway]
    found: dict[str, Figure] = {}
    for name, runs in peers.items():
        found[_ratio_to(name)] = figure(
            ratios([one.cpu_ms for one in runs], ours_ms),
            "times",
            at_least=REACH_RATIO if name == SIGNED else None,
        )
    found["messages per CPU-second of the gateway"] = figure([1000 / ms for ms in ours_ms], "messages")
    for name, runs in peers.items():
        found[f"messages per CPU-second of {name}"] = figure([1000 / one.cpu_ms for one in runs], "messages")
    found[_cpu_of("the gateway and Postgres")] = figure(ours_ms, "ms a message")
    for name, runs in peers.items():
        found[_cpu_of(name)] = figure([one.cpu_ms for one in runs], "ms a message")
        found[f"the kernel's part of {name}"] = figure([one.kernel_ms for one in runs], "ms a message")
    found["OpenDKIM's part"] = figure(
        [one.by_program_ms["opendkim"] for one in peers[SIGNED]], "ms a message"
    )
    found["messages sent by the gateway"] = figure([one.messages_per_s for one in gateway], "messages/s")
    for name, runs in peers.items():
        found[f"messages sent by {name}"] = figure([one.messages_per_s for one in runs], "messages/s")
    found["CPU of the receiver, from the gateway"] = figure([one.sink_ms for one in gateway], "ms a message")
    for name, runs in peers.items():
        found[f"CPU of the receiver, from {name}"] = figure([one.sink_ms for one in runs], "ms a message")
    found["one RSA-2048 signature"] = figure([one.rsa_ms for one in gateway], "ms")
    return found


def _notes(peers: dict[str, list[PeerRun]]) -> tuple[str, ...]:
    return tuple(f"{name} by program, ms a message: {_shares(runs)}" for name, runs in peers.items())


def _shares(runs: Sequence[PeerRun]) -> str:
    programs = {program for one in runs for program in one.by_program_ms}
    medians = {
        program: statistics.median(one.by_program_ms.get(program, 0.0) for one in runs)
        for program in programs
    }
    ordered = sorted(medians.items(), key=lambda item: -item[1])
    return ", ".join(f"{program} {ms:.3f}" for program, ms in ordered if ms >= 0.0005)


def _ratio_to(name: str) -> str:
    return f"messages per CPU-second, gateway : {name}"


def _cpu_of(name: str) -> str:
    return f"CPU of {name}"


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["peers", *sys.argv[1:]]))
