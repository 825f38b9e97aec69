"""What a way in accepts, and what that costs: one process of the gateway under a closed load, beside the queue that it fills.

Owns what clients of any protocol share, the time that is measured, and the figures of it. Postgres commits to disk before an answer; the
client works in this process, and its CPU is told apart, since it shares the machine. At the end of each run the queue must hold what was
accepted. Must not know a protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar, cast

import asyncpg
import msgspec

from bench import cpu
from bench.options import Options, Progress
from bench.processes import Child
from bench.report import Figure, figure, quantile
from bench.stage import SITE, Stage, make_site, stage
from gateway.config import Config
from gateway.store.pool import connect
from gateway.store.sites import issue_key

_WARM_UP_S: Final = 2.0


class Named(Protocol):
    """A kind of load."""

    @property
    def name(self) -> str:
        """What its figures are called by."""
        ...


K = TypeVar("K", bound=Named)


class Answers(msgspec.Struct):
    """What came back over all connections of one run. Mutable: they count in it."""

    latencies_s: list[float] = []
    first_errors: list[bytes] = []
    stopping: bool = False

    def refused(self, said: bytes) -> None:
        """Keep what was not accepted, of the first five."""
        if len(self.first_errors) < 5:
            self.first_errors.append(said)

    def lost(self, error: Exception) -> None:
        """Note that a connection ended by an error, unless the end was asked for."""
        if not self.stopping:
            self.first_errors.append(repr(error).encode())


class Connection(asyncio.Protocol):
    """One connection of a client; `closed` is done when it is over."""

    _transport: asyncio.Transport

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The load is over for this connection."""
        if exc is not None:
            self._answers.lost(exc)
        if not self.closed.done():
            self.closed.set_result(None)


class Measured(msgspec.Struct, frozen=True):
    """One run of one kind of load; costs are those of one acceptance, in milliseconds of CPU."""

    per_s: float
    p50_ms: float
    p99_ms: float
    process_ms: float
    postgres_ms: float
    client_ms: float

    def line(self, process: str) -> str:
        """Say it in words."""
        return (
            f"p50 {self.p50_ms:.1f} p99 {self.p99_ms:.1f} ms; each: {process} {self.process_ms:.3f}, "
            f"Postgres {self.postgres_ms:.3f}, client {self.client_ms:.3f} ms of CPU"
        )


@asynccontextmanager
async def site(
    own: Stage, name: str, **sections: Mapping[str, object]
) -> AsyncGenerator[tuple[asyncpg.Connection, str, Config, str]]:
    """A database of its own with a site that may send: a connection to it, its DSN, the configuration, and the site's API key."""
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    try:
        config = own.config(database={"data_dir": str(own.folder / name)}, **sections)
        config.data_dir.mkdir(exist_ok=True)
        await make_site(connection, config)
        _, key = await issue_key(connection, SITE, "bench", ["send"])
        yield connection, dsn, config, key
    finally:
        await connection.close()
        await own.drop(name)


def seconds(options: Options) -> float:
    """How long a run is measured."""
    return 2.0 if options.quick else 8.0


async def measure_in_turn(
    options: Options,
    tell: Progress,
    loads: Sequence[K],
    measure_one: Callable[[Stage, K, float], Awaitable[Measured]],
    say: Callable[[K, Measured], str],
) -> dict[str, list[Measured]]:
    """Measure each load once, then again, `options.runs` times; by name, in the order of the runs."""
    found: dict[str, list[Measured]] = {load.name: [] for load in loads}
    async with stage() as own:
        for number in range(options.runs):
            for load in loads:
                one = await measure_one(own, load, seconds(options))
                found[load.name].append(one)
                tell(f"run {number + 1} of {options.runs}: {load.name}: {say(load, one)}")
    return found


async def measure(
    own: Stage,
    connection: asyncpg.Connection,
    process: Child,
    answers: Answers,
    over: Awaitable[object],
    seconds: float,
    *,
    deliveries: int = 1,
) -> Measured:
    """Measure a load that has begun, after a warm-up, and stop it.

    Args:
        own: where Postgres runs.
        connection: to the database whose queue is filled.
        process: what accepts.
        answers: of the load.
        over: done when its last connection is.
        seconds: how long it is measured.
        deliveries: that one acceptance puts into the queue.

    Raises:
        RuntimeError: something was not accepted, or the queue does not hold what was.
    """
    await asyncio.sleep(_WARM_UP_S)
    warmed = len(answers.latencies_s)
    before = (process.cpu_s, cpu.tree_cpu_s(own.postgres_pid), time.process_time())
    started = time.monotonic()
    await asyncio.sleep(seconds)
    took_s = time.monotonic() - started
    latencies = answers.latencies_s[warmed:]
    process_s, client_s = process.cpu_s - before[0], time.process_time() - before[2]
    answers.stopping = True
    await over
    await connection.execute("checkpoint")
    # With what the last ones in flight cost: a share of a percent.
    postgres_s = cpu.tree_cpu_s(own.postgres_pid) - before[1]
    process.require()
    if answers.first_errors or not latencies:
        raise RuntimeError(f"not accepted: {answers.first_errors[:1]}")
    accepted = len(answers.latencies_s) * deliveries
    held = await connection.fetchval("select count(*) from queue")
    if held != accepted:
        raise RuntimeError(f"{accepted} deliveries were accepted, {held} are in the queue")
    each = 1000 / len(latencies)
    return Measured(
        len(latencies) / took_s,
        quantile(latencies, 0.5) * 1000,
        quantile(latencies, 0.99) * 1000,
        process_s * each,
        postgres_s * each,
        client_s * each,
    )


def costs(kind: str, process: str, unit: str, runs: Sequence[Measured]) -> dict[str, Figure]:
    """The figures that every kind of load has, beside its rate."""
    return {
        f"{kind}: p50": figure([m.p50_ms for m in runs], "ms"),
        f"{kind}: p99": figure([m.p99_ms for m in runs], "ms"),
        f"{kind}: CPU of {process}": figure([m.process_ms for m in runs], f"ms a {unit}"),
        f"{kind}: CPU of Postgres": figure([m.postgres_ms for m in runs], f"ms a {unit}"),
        f"{kind}: CPU of the client": figure([m.client_ms for m in runs], f"ms a {unit}"),
    }
