"""How exact a destination's rate is, measured where it counts: at the receiver, over four dispatchers.

Each lane has more waiting than it may send. The receiver logs when each final dot came; afterwards every window of several
lengths is looked at, at every position: none may hold more than rate * length + burst, and ten seconds must hold nearly the
rate. In every second run one dispatcher is stopped (SIGSTOP) for 0.8 to 2 s in the middle, and goes on.

How much of the time the dispatchers were ready and had no processor stands beside the figures: where that is much, what was not
sent says something about the machine.
"""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from array import array
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from bench import cpu
from bench.load.timelog import read_times
from bench.options import Options, Progress
from bench.processes import Child, child, dispatching, sink
from bench.report import Figure, Outcome, figure
from bench.stage import Stage, fill, make_lanes, make_message, make_site, shaping, stage, wake
from gateway.app.brief import Role
from gateway.store.pool import connect
from gateway.throttle.shaping import Limits

DISPATCHERS: Final = 4
WINDOWS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
OVER: Final = 1.01
UNDER: Final = 0.95
LONG_S: Final = 10.0


class Rate(msgspec.Struct, frozen=True):
    """A lane's limits."""

    rate_per_s: float
    burst: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.rate_per_s:,.0f}/s burst {self.burst}"


SCENES: Final = ((Rate(1_000, 1),), (Rate(1_000, 100),), (Rate(100, 1), Rate(7, 1)))
"""What runs together: the fast ones alone, so that two processors are enough."""


def most_in_window(times: Sequence[float], window_s: float) -> int:
    """The most of these (ascending) moments in any half-open window of this length, wherever it begins."""
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_over(times: Sequence[float], rate_per_s: float, burst: int, least_window_s: float) -> float:
    """By how many deliveries the fullest window of this length or longer exceeds OVER times rate * length + burst.

    Each window runs from one moment to another, both included, so nothing is between the lengths; negative: none exceeds it.
    """
    slope = rate_per_s * OVER
    lowest = worst = math.inf
    first = 0
    for last, at in enumerate(times):
        while first < last and at - times[first] >= least_window_s:
            lowest = min(lowest, first - slope * times[first])
            first += 1
        if lowest < math.inf:
            worst = min(worst, lowest - (last + 1 - slope * at))
        worst = min(
            worst, slope * least_window_s - (last + 1 - first)
        )  # the shortest window, which holds first … last
    return -worst - OVER * burst


def least_in_window(times: Sequence[float], window_s: float) -> int:
    """The fewest in any window of this length that lies between the first and the last moment."""
    if len(times) < 2 or times[-1] - times[0] < window_s:
        raise ValueError(f"{len(times)} moments do not fill a window of {window_s:g} s")
    least = len(times)
    after = 0
    for first, at in enumerate(times):  # the emptiest window begins right after a moment
        while after < len(times) and times[after] <= at + window_s:
            after += 1
        if at + window_s > times[-1]:
            break
        least = min(least, after - first - 1)
    return least


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure each scene `options.runs` times without a stop and as often with one."""
    seconds = 5.0 if options.quick else 16.0
    windows = tuple(w for w in WINDOWS_S if w <= seconds / 1.5)
    excess: dict[tuple[str, bool, float], list[float]] = {}
    over_any: dict[tuple[str, bool], list[float]] = {}
    shares: dict[tuple[str, bool], list[float]] = {}
    starved: dict[tuple[str, bool], list[float]] = {}
    async with stage() as own:
        for number in range(options.runs):
            for scene in SCENES:
                for stopped in (False, True):
                    times, waited = await _one(own, scene, seconds, stopped)
                    for rate in scene:
                        mine = times[rate.name]
                        worst: list[str] = []
                        for window in windows:
                            most = most_in_window(mine, window)
                            over = most / (rate.rate_per_s * window + rate.burst)
                            excess.setdefault((rate.name, stopped, window), []).append(over)
                            worst.append(f"{window:g} s {over:.3f}")
                        over = most_over(mine, rate.rate_per_s, rate.burst, WINDOWS_S[0])
                        over_any.setdefault((rate.name, stopped), []).append(over)
                        worst.append(f"any window {over:+.2f} deliveries")
                        span = min(LONG_S, seconds - 2)
                        share = least_in_window(mine, span) / (rate.rate_per_s * span)
                        shares.setdefault((rate.name, stopped), []).append(share)
                        starved.setdefault((rate.name, stopped), []).append(waited)
                        tell(
                            f"run {number + 1} of {options.runs}: {rate.name}{', one stopped' if stopped else ''}: "
                            f"{share:.3f} of the rate, {waited:.2f} without a processor; of what a window may hold: {', '.join(worst)}"
                        )
    figures: dict[str, Figure] = {}
    for scene in SCENES:
        for rate in scene:
            for stopped in (False, True):
                who = f"{rate.name}{', one stopped' if stopped else ''}"
                for window in windows:
                    figures[f"{who}: most in {window:g} s"] = figure(
                        excess[rate.name, stopped, window],
                        "of rate * window + burst",
                        at_most=OVER,
                        judged="worst",
                    )
                figures[f"{who}: over the bound in any window of {WINDOWS_S[0]:g} s or more"] = figure(
                    over_any[rate.name, stopped], "deliveries", at_most=0.0, judged="worst"
                )
                figures[f"{who}: least in {min(LONG_S, seconds - 2):g} s"] = figure(
                    shares[rate.name, stopped], "of rate * window", at_least=UNDER
                )
                figures[f"{who}: dispatchers ready, without a processor"] = figure(
                    starved[rate.name, stopped], "of the time"
                )
    settings = {
        "dispatchers": DISPATCHERS, "seconds": seconds, "windows_s": list(windows), "stop_s": [0.8, 2.0],
        "lanes": [[rate.name for rate in scene] for scene in SCENES], "signature": "rsa-sha256, 2048 bits", "content": "small",
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def _one(
    own: Stage, scene: Sequence[Rate], seconds: float, stopped: bool
) -> tuple[dict[str, array[float]], float]:
    """Send for so long.

    Returns:
        The moments of final dots by the name of their rate, without the first second; and how much of the time a dispatcher
        was ready and had no processor.
    """
    name = f"rate_{time.monotonic_ns()}"
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    try:
        async with sink(own.folder, name=name, time_log=True) as receiver, AsyncExitStack() as stack:
            config = own.config(route=receiver.route, database={"data_dir": str(own.folder / name)})
            config.data_dir.mkdir()
            await make_site(connection, config)
            await make_message(connection, subject="News", html="", text="Some words.\n", template=False)
            limits = {
                f"d{i}.test": Limits(rate_per_s=rate.rate_per_s, burst=rate.burst, max_connections=40, max_per_dispatcher=10)
                for i, rate in enumerate(scene)
            }  # fmt: skip
            first = 1_024_000
            for rate, (domain, limit) in zip(scene, limits.items(), strict=True):
                lanes = await make_lanes(connection, [domain], limit)
                count = int(rate.rate_per_s * (seconds + 8) + rate.burst)
                until = await fill(connection, lanes, first, count, accepted=True)
                first = (until | 1023) + 1
            await connection.execute("vacuum analyze")
            throttles = shaping(Limits(), limits)
            processes = [
                await stack.enter_async_context(child(role, config, dsn, throttles))
                for role in (Role.SCHEDULE, *[Role.DISPATCH] * DISPATCHERS)
            ]
            await dispatching(connection, processes, DISPATCHERS)
            for domain in limits:
                await wake(connection, await make_lanes(connection, [domain], limits[domain]), 0)
            started = time.monotonic()
            waited = sum(cpu.waited_s(process.pid) for process in processes[1:])
            await asyncio.sleep(seconds / 2)
            if stopped:
                await _stop_for_a_while(random.choice(processes[1:]))
            await asyncio.sleep(max(0.0, started + seconds + 1.5 - time.monotonic()))
            for process in processes:
                process.require()
            waited = (sum(cpu.waited_s(process.pid) for process in processes[1:]) - waited) / DISPATCHERS
            waited /= time.monotonic() - started
        assert receiver.times is not None
        found = read_times(receiver.times)
        result: dict[str, array[float]] = {}
        for rate, domain in zip(scene, limits, strict=True):
            # From the first second after the wake on: lanes, connections and dispatchers are then warm.
            mine = found[domain]
            result[rate.name] = array("d", (at for at in mine if started + 1 <= at <= started + 1 + seconds))
        return result, waited
    finally:
        await connection.close()
        await own.drop(name)


async def _stop_for_a_while(dispatcher: Child) -> None:
    dispatcher.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(random.uniform(0.8, 2.0))
    finally:
        dispatcher.send_signal(signal.SIGCONT)
