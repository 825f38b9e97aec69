"""What a claim and its acknowledgement cost Postgres, whatever waits beside them.

Each contender does the same work: batches arrive, are claimed with the batch sizes of a dispatcher, and are acknowledged as
delivered. They differ in what stands in the queue meanwhile (nothing, 1,000,000 rows over 8 or 100,000 lanes, a throttled
lane of 1,000,000) and in how old the planner's statistics are. What arrives goes to the lanes that were just served, so that
the backlog stays as it is. All processes of Postgres count but the session that puts rows in; autovacuum is off for the
queue's tables, and each run ends with a VACUUM of them and a CHECKPOINT, which count.

The second part (`snapshot`) finishes a whole backlog while somebody holds an old snapshot, with autovacuum on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from bench.micro.contender import ARRIVAL, BATCH, Bench, Contender, Cost
from bench.options import Options, Progress
from bench.report import Figure, Outcome, figure, ratios
from bench.stage import stage

HELP: Final = "Postgres CPU of claim + acknowledge, against the same with an empty backlog"

REACH: Final = 1.3
REACH_SNAPSHOT: Final = 1.1


def contenders(backlog: int, many: int) -> list[Contender]:
    """All of them, each after what it is measured against."""
    few, wide = "empty backlog, 8 lanes", f"empty backlog, {many:,} lanes"
    found = [Contender(few, 8), Contender(wide, many)]
    for lanes, base in ((8, few), (many, wide)):
        found += [
            Contender(
                f"{backlog:,} over {lanes:,} lanes, {stats} statistics",
                lanes,
                backlog,
                stats=stats,
                base=base,
            )
            for stats in ("fresh", "empty", "old")
        ]
    found.append(
        Contender(f"{backlog:,} over {many:,} lanes, scattered", many, backlog, base=wide, scattered=True)
    )
    found.append(Contender("empty backlog, 8 lanes, empty statistics", 8, stats="empty", base=few))
    found.append(Contender(f"a throttled lane of {backlog:,} beside", 8, 0, throttled=backlog, base=few))
    return found


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure all contenders in turn, `options.runs` times."""
    backlog, many, measured = (20_000, 2_000, 10_000) if options.quick else (1_000_000, 100_000, 100_000)
    figures: dict[str, Figure] = {}
    costs: dict[str, list[Cost]] = {}
    scans = 0
    async with stage() as own, AsyncExitStack() as stack:
        plan = contenders(backlog, many)
        benches: list[Bench] = []
        for number, contender in enumerate(plan):
            tell(f"filling: {contender.name}")
            bench = await Bench.open(own, f"claim_{number}", contender)
            stack.push_async_callback(bench.close)
            benches.append(bench)
        tell("warming up")
        for bench in benches:
            await bench.measure(min(measured, 5 * ARRIVAL))
        for number in range(options.runs):
            for bench in benches:
                cost, scanned = await bench.measure(measured)
                costs.setdefault(bench.contender.name, []).append(cost)
                scans += scanned
                tell(
                    f"run {number + 1} of {options.runs}: {bench.contender.name}: {cost.total:.4f} ms "
                    f"(claim {cost.claim:.4f}, acknowledge {cost.acknowledge:.4f}, upkeep {cost.upkeep:.4f})"
                )
    for contender in plan:
        mine = costs[contender.name]
        figures[contender.name] = figure([c.total for c in mine], "ms of Postgres a delivery")
        for part in ("claim", "acknowledge", "upkeep", "client"):
            figures[f"{contender.name}: {part}"] = figure([getattr(c, part) for c in mine], "ms a delivery")
        figures[f"{contender.name}: deliveries a claim"] = figure([c.claims for c in mine], "deliveries")
    for contender in plan:
        if contender.base:
            against = [c.total for c in costs[contender.base]]
            figures[f"{contender.name} / empty backlog"] = figure(
                ratios([c.total for c in costs[contender.name]], against), "times", at_most=REACH
            )
        if contender.lanes == many:
            against = [c.total for c in costs[plan[0].name]]
            figures[f"{contender.name} / empty backlog, 8 lanes"] = figure(
                ratios([c.total for c in costs[contender.name]], against), "times"
            )
    figures["sequential scans of queue, flow and lane_state"] = figure([float(scans)], "scans", at_most=0)
    settings = {
        "backlog": backlog, "lanes": [8, many], "measured_deliveries": measured, "rows_a_claim": BATCH,
        "rows_an_arrival": ARRIVAL, "synchronous_commit": True,
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def run_snapshot(options: Options, tell: Progress) -> Outcome:
    """Finish a whole backlog, with and without an old snapshot, `options.runs` times in turn."""
    backlog, step = (40_000, 10_000) if options.quick else (1_000_000, 100_000)
    totals: dict[bool, list[float]] = {False: [], True: []}
    curves: dict[bool, list[list[float]]] = {False: [], True: []}
    scans = 0
    async with stage() as own:
        for number in range(options.runs):
            for held in (False, True):
                bench = await Bench.open(
                    own,
                    f"snapshot_{number}_{held}",
                    Contender("", 8, backlog),
                    autovacuum=True,
                    session_first=False,
                )
                try:
                    total, curve, scanned = await bench.finish(backlog, step, held)
                finally:
                    await bench.close()
                    await own.drop(f"snapshot_{number}_{held}")
                totals[held].append(total)
                curves[held].append(curve)
                scans += scanned
                tell(
                    f"run {number + 1} of {options.runs}: {'old snapshot' if held else 'no snapshot'}: {total:.4f} ms; "
                    f"by {step:,}: {' '.join(f'{x:.4f}' for x in curve)}"
                )
    figures = {
        "no snapshot": figure(totals[False], "ms of Postgres a delivery"),
        "old snapshot held": figure(totals[True], "ms of Postgres a delivery"),
        "old snapshot / none": figure(ratios(totals[True], totals[False]), "times", at_most=REACH_SNAPSHOT),
        f"old snapshot / none, last {step:,}": figure(
            ratios([c[-1] for c in curves[True]], [c[-1] for c in curves[False]]),
            "times",
            at_most=REACH_SNAPSHOT,
        ),
        "sequential scans of queue, flow and lane_state": figure([float(scans)], "scans", at_most=0),
    }
    series = {
        name: [
            {"done": (i + 1) * step, **_spread([curve[i] for curve in curves[held]])}
            for i in range(min(len(curve) for curve in curves[held]))
        ]
        for held, name in ((False, "no snapshot"), (True, "old snapshot held"))
    }
    settings = {"backlog": backlog, "lanes": 8, "rows_a_claim": BATCH, "step": step, "autovacuum": True}
    return Outcome(figures=figures, settings=settings, series=series)


def _spread(values: Sequence[float]) -> dict[str, float]:
    one: Figure = figure(values, "ms")
    return {"median": one.median, "min": one.min, "max": one.max}
