"""The whole way, scenario by scenario: messages a second, and CPU a message in RSA signatures.

Owns the order of the runs (each scenario once, then again, so that what slows the machine for a while stands on all of them), the
figures with what they should reach, and what must be said beside them. How a run is made is in `way`, what is set in `scenario`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from bench.load.letter import HTML_BYTES, SUBJECT, TEXT, html
from bench.load.scenario import (
    DELAYED,
    HEADLINE,
    REACH_DELAY,
    REACH_RSS_MIB,
    SCENARIOS,
    UNDELAYED,
    Scenario,
    chosen,
    small,
)
from bench.load.way import Run, measure_scenario
from bench.options import Options, Progress
from bench.report import Figure, Outcome, figure, ratios
from bench.stage import Stage, stage

__all__ = ["HTML_BYTES", "SUBJECT", "TEXT", "Run", "figures", "html", "measure", "quantity", "run"]

SENT: Final = "messages sent"
RATIO: Final = "gateway and Postgres, in RSA signatures"
GATEWAY: Final = "CPU of the gateway"
POSTGRES: Final = "CPU of Postgres"
ENQUEUE: Final = "enqueueing, of both"
SINK: Final = "CPU of the receiver"
ENQUEUED: Final = "messages enqueued"
RSA: Final = "one RSA-2048 signature"
RSS: Final = "peak memory of a dispatcher"
SIZE: Final = "size on the wire"
CONNECTIONS: Final = "connections at once"
AS_NAMED: Final = "as its name says"
"""1 where messages came with the signatures and the TLS of the scenario, else 0: then its other figures are left out."""

DELAY: Final = "rate with 80 ms of round trip, of the rate without"
MOST_RSS: Final = "peak memory of a dispatcher, in any scenario"


def quantity(scenario: str, name: str) -> str:
    """The name of one scenario's figure."""
    return f"{scenario}: {name}"


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure each scenario `options.runs` times, each time on a fresh database."""
    scenarios = [small(one) if options.quick else one for one in chosen(options.only)]
    runs: dict[str, list[Run]] = {}
    failures: dict[str, str] = {}
    async with stage() as own:
        for number in range(options.runs):
            for scenario in scenarios:
                if scenario.name in failures:
                    continue
                place = f"run {number + 1} of {options.runs}: {scenario.name}: "
                one = await measure_scenario(own, f"{scenario.name}_{number}", scenario)
                runs.setdefault(scenario.name, []).append(one)
                if one.failed:
                    failures[scenario.name] = one.failed
                tell(place + _line(one))
    found = {name: mine for name, mine in runs.items() if name not in failures}
    settings = {
        "clock": "CPU of all processes; enqueueing, a final VACUUM and CHECKPOINT included",
        "synchronous_commit": True,
        "scenarios": [described(one) for one in scenarios],
        "failed": failures,
    }
    notes = [f"{name}: {why}" for name, why in failures.items()]
    return Outcome(figures=figures(scenarios, found, failures), settings=settings, notes=tuple(notes))


async def measure(own: Stage, name: str, messages: int, warm_up: int, domains: int) -> Run:
    """One run of the headline on a fresh database `name`, of so many messages."""
    headline = next(one for one in SCENARIOS if one.name == HEADLINE)
    sized = msgspec.structs.replace(headline, messages=messages, warm_up=warm_up, domains=domains)
    return await measure_scenario(own, name, sized)


def described(scenario: Scenario) -> dict[str, Any]:
    """A scenario's settings, as they stand in a result; without what it should reach, which stands with the figures."""
    told = msgspec.to_builtins(scenario)
    return {key: value for key, value in told.items() if key not in ("ratio_at_most", "rate_at_least")}


def figures(
    scenarios: Iterable[Scenario], runs: Mapping[str, Sequence[Run]], failures: Mapping[str, str]
) -> dict[str, Figure]:
    """The figures of all scenarios that have runs, and of what is compared between them; a failed one says so in its place."""
    found: dict[str, Figure] = {}
    for scenario in scenarios:
        mine = runs.get(scenario.name, ())
        if scenario.name in failures:
            found[quantity(scenario.name, AS_NAMED)] = figure([0.0], "yes or no", at_least=1.0)
        elif mine:
            found |= {quantity(scenario.name, name): one for name, one in _of_one(scenario, mine).items()}
    if runs:
        least = min(len(mine) for mine in runs.values())
        most = [max(mine[i].rss_mib for mine in runs.values()) for i in range(least)]
        found[MOST_RSS] = figure(most, "MiB resident", at_most=REACH_RSS_MIB)
    if DELAYED in runs and UNDELAYED in runs:
        with_delay, without = ([one.messages_per_s for one in runs[name]] for name in (DELAYED, UNDELAYED))
        found[DELAY] = figure(ratios(with_delay, without), "times", at_least=REACH_DELAY)
    return found


def _of_one(scenario: Scenario, runs: Sequence[Run]) -> dict[str, Figure]:
    return {
        SENT: figure([r.messages_per_s for r in runs], "messages/s", at_least=scenario.rate_at_least),
        RATIO: figure([r.ratio for r in runs], "signatures a message", at_most=scenario.ratio_at_most),
        GATEWAY: figure([r.gateway_ms for r in runs], "ms a message"),
        POSTGRES: figure([r.postgres_ms for r in runs], "ms a message"),
        ENQUEUE: figure([r.enqueue_ms for r in runs], "ms a message"),
        SINK: figure([r.sink_ms for r in runs], "ms a message"),
        ENQUEUED: figure([r.enqueued_per_s for r in runs], "messages/s"),
        RSA: figure([r.rsa_ms for r in runs], "ms"),
        RSS: figure([r.rss_mib for r in runs], "MiB resident"),
        SIZE: figure([r.content_bytes for r in runs], "bytes"),
        CONNECTIONS: figure([r.connections for r in runs], "connections"),
    }


def _line(one: Run) -> str:
    return (
        f"{one.messages_per_s:.0f} messages/s; gateway {one.gateway_ms:.3f}, Postgres {one.postgres_ms:.3f} "
        f"(enqueueing {one.enqueue_ms:.3f} of both), sink {one.sink_ms:.3f}, RSA {one.rsa_ms:.3f} ms: "
        f"{one.ratio:.2f} signatures; {one.content_bytes:.0f} bytes, {one.rss_mib:.0f} MiB, {one.connections:.0f} connections"
        + (f"; but {one.failed}" if one.failed else "")
    )
