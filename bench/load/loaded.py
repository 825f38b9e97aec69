"""How long the API takes for a single message while dispatchers send a backlog at full speed beside it.

One process of the API, one of the scheduler and two dispatchers, as `gateway run` starts them, on the processors that there are. The
backlog is the headline's newsletter over lanes that do not limit. First the dispatchers are alone; then clients hand in messages of one
recipient at a steady rate, each at its moment whatever became of the ones before, over connections that they keep. A latency counts
from the moment that was planned, so that a stall stands on every message that it kept waiting. At the end the database must hold what
was answered with 202, and the backlog must not have run out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

import asyncpg
import msgspec

from bench import cpu
from bench.load.http import SteadyLoad, all_closed, open_clients, post
from bench.load.letter import HTML_BYTES, SUBJECT, TEXT, html
from bench.load.scenario import BUSY, UNLIMITED
from bench.options import Options, Progress
from bench.processes import Child, Sink, child, dispatching, free_port, listening, sink, until
from bench.report import Figure, Outcome, figure, quantile, ratios
from bench.stage import (
    FROM_DOMAIN,
    SITE,
    Stage,
    ended,
    fill,
    make_lanes,
    make_message,
    make_site,
    shaping,
    stage,
    wake,
)
from gateway.app.brief import Role
from gateway.config import Config
from gateway.store.pool import connect
from gateway.store.sites import issue_key

REACH_P99_MS: Final = 100.0
PER_S: Final = 50.0
CLIENTS: Final = 20
DISPATCHERS: Final = 2
DOMAINS: Final = 50
_WARM_UP_S: Final = 2.0
_FLUSHES = "select sum(fsyncs)::bigint, sum(fsync_time) from pg_stat_io where object = 'wal'"
_SINGLES = "select count(*) from message where stream = 'transactional'"


class Load(msgspec.Struct, frozen=True):
    """How long each part lasts, and how much there is to send: more than two dispatchers can in that time."""

    alone_s: float
    loaded_s: float
    backlog: int


class Sending(msgspec.Struct, frozen=True):
    """What the dispatchers did for a while, and their CPU a message."""

    per_s: float
    dispatch_ms: float


class Measured(msgspec.Struct, frozen=True):
    """One run, under both loads but for `alone`.

    `cores`: CPU seconds a second, by group of processes. `waits_ms`: that the API's main thread waited for a processor, a message.
    `flush_ms`: that the disk took, a flush of the WAL. `late_p99_ms`: what this process added itself.
    """

    p50_ms: float
    p99_ms: float
    longest_ms: float
    late_p99_ms: float
    waiting: int
    alone: Sending
    beside: Sending
    waits_ms: float
    flush_ms: float
    cores: Mapping[str, float]


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure `options.runs` times, each time on a fresh database."""
    load = Load(1.0, 4.0, 30_000) if options.quick else Load(8.0, 20.0, 110_000)
    found: list[Measured] = []
    async with stage({"track_wal_io_timing": "on"}) as own:
        for number in range(options.runs):
            one = await _one(own, f"loaded_{number}", load)
            found.append(one)
            tell(
                f"run {number + 1} of {options.runs}: p50 {one.p50_ms:.1f} p99 {one.p99_ms:.1f} longest {one.longest_ms:.1f} ms "
                f"(written late: p99 {one.late_p99_ms:.1f} ms, waited for a processor {one.waits_ms:.1f} ms a message, a flush {one.flush_ms:.1f} ms); "
                f"dispatchers {one.beside.per_s:,.0f} messages/s at {one.beside.dispatch_ms:.3f} ms, alone {one.alone.per_s:,.0f} at {one.alone.dispatch_ms:.3f}; cores: "
                + ", ".join(f"{name} {used:.2f}" for name, used in one.cores.items())
            )
    beside, alone = [m.beside.per_s for m in found], [m.alone.per_s for m in found]
    figures: dict[str, Figure] = {
        "POST of one message: p50": figure([m.p50_ms for m in found], "ms"),
        "POST of one message: p99": figure([m.p99_ms for m in found], "ms", at_most=REACH_P99_MS),
        "POST of one message: longest": figure([m.longest_ms for m in found], "ms"),
        "written later than planned: p99": figure([m.late_p99_ms for m in found], "ms"),
        "waited for a free connection at once": figure([float(m.waiting) for m in found], "messages"),
        "the API waited for a processor": figure([m.waits_ms for m in found], "ms a message"),
        "a flush of the WAL to disk": figure([m.flush_ms for m in found], "ms"),
        "dispatchers alone": figure(alone, "messages/s"),
        "dispatchers beside the API's load": figure(beside, "messages/s"),
        "dispatchers beside / alone": figure(ratios(beside, alone), "times"),
        "CPU of the dispatchers alone": figure([m.alone.dispatch_ms for m in found], "ms a message"),
        "CPU of the dispatchers beside it": figure([m.beside.dispatch_ms for m in found], "ms a message"),
    }
    for name in found[0].cores:
        figures[f"CPU of {name}"] = figure([m.cores[name] for m in found], "cores")
    settings = {
        "planned_per_s": PER_S, "arrivals": "evenly, open loop; latency from the planned moment", "clients": CLIENTS,
        "dispatchers": DISPATCHERS, "api_processes": 1, "domains": DOMAINS, "synchronous_commit": True, "idempotency_keys": False,
        "dispatch": BUSY, **msgspec.structs.asdict(load),
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def _one(own: Stage, name: str, load: Load) -> Measured:
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    try:
        async with sink(own.folder, name=name) as receiver, AsyncExitStack() as stack:
            config = own.config(
                route=receiver.route,
                api={"port": free_port()},
                dispatch=BUSY,
                database={"data_dir": str(own.folder / name)},
            )
            config.data_dir.mkdir()
            await _backlog(connection, config, load.backlog)
            _, key = await issue_key(connection, SITE, "bench", ["send"])
            throttles = shaping(UNLIMITED)
            api, schedule, *dispatchers = [
                await stack.enter_async_context(child(role, config, dsn, throttles))
                for role in (Role.API, Role.SCHEDULE, *[Role.DISPATCH] * DISPATCHERS)
            ]
            children = [api, schedule, *dispatchers]
            await dispatching(connection, children, DISPATCHERS)
            await listening(config.api.port, children)
            measured = await _loaded(
                own, connection, receiver, children, [post("/v1/messages", key, body) for body in _bodies()],
                config.api.port, load,
            )  # fmt: skip
            if not await connection.fetchval("select exists (select from queue where priority = 1)"):
                raise RuntimeError(
                    f"a backlog of {load.backlog} ran out: the dispatchers were not at full speed to the end"
                )
        return measured
    finally:
        await connection.close()
        await own.drop(name)


async def _loaded(own: Stage, connection: asyncpg.Connection, receiver: Sink, children: Sequence[Child], requests: Sequence[bytes],
                  port: int, load: Load) -> Measured:  # fmt: skip
    api, schedule, *dispatchers = children

    def used() -> dict[str, float]:
        return {
            "the API": api.cpu_s,
            "the scheduler": schedule.cpu_s,
            "the dispatchers": sum(one.cpu_s for one in dispatchers),
            "Postgres": cpu.tree_cpu_s(own.postgres_pid),
            "the receiver": receiver.cpu_s,
            "the client": time.process_time(),
        }

    async def sending() -> bool:
        return await ended(connection) > 500

    await until(sending, children, "the first deliveries to end")
    await asyncio.sleep(_WARM_UP_S)
    alone = await _sending(connection, dispatchers, load.alone_s)
    warm_up = SteadyLoad(requests=requests)
    clients = await open_clients(warm_up, port, CLIENTS)
    await warm_up.run(PER_S, _WARM_UP_S)
    await all_closed(clients)
    steady = SteadyLoad(requests=requests)
    clients = await open_clients(steady, port, CLIENTS)
    flushes, flush_ms = await connection.fetchrow(_FLUSHES) or (0, 0.0)
    before, waited_s, started = used(), cpu.waited_s(api.pid), time.monotonic()
    counting = asyncio.create_task(_sending(connection, dispatchers, load.loaded_s))
    await steady.run(PER_S, load.loaded_s)
    beside = await counting
    took_s = time.monotonic() - started
    cores = {name: (after - before[name]) / took_s for name, after in used().items()}
    waited_s = cpu.waited_s(api.pid) - waited_s
    await all_closed(clients)
    flushed, flushed_ms = await connection.fetchrow(_FLUSHES) or (0, 0.0)
    for one in children:
        one.require()
    taken = [len(one.latencies_s) for one in (warm_up, steady)]
    planned = round(PER_S * _WARM_UP_S) + round(PER_S * load.loaded_s)
    held = await connection.fetchval(_SINGLES)
    if sum(taken) != planned or held != planned:
        errors = warm_up.first_errors + steady.first_errors
        raise RuntimeError(
            f"{planned} messages planned, 202 for {sum(taken)}, {held} in the database: {errors[:1]}"
        )
    return Measured(
        p50_ms=quantile(steady.latencies_s, 0.5) * 1000,
        p99_ms=quantile(steady.latencies_s, 0.99) * 1000,
        longest_ms=max(steady.latencies_s) * 1000,
        late_p99_ms=quantile(steady.late_s, 0.99) * 1000,
        waiting=steady.most_waiting,
        alone=alone,
        beside=beside,
        waits_ms=waited_s * 1000 / taken[1],
        flush_ms=(flushed_ms - flush_ms) / max(flushed - flushes, 1),
        cores=cores,
    )


async def _backlog(connection: asyncpg.Connection, config: Config, count: int) -> None:
    await make_site(connection, config)
    await make_message(connection, subject=SUBJECT, html=html(HTML_BYTES), text=TEXT)
    await connection.execute("select setval('acceptance_id', 1000000)")
    lanes = await make_lanes(connection, [f"d{i}.test" for i in range(DOMAINS)], UNLIMITED)
    first = 1_024_000
    await fill(connection, lanes, first, count, accepted=True)
    await connection.execute("vacuum analyze", timeout=600)
    await connection.execute("checkpoint", timeout=600)
    await wake(connection, lanes, first)


async def _sending(connection: asyncpg.Connection, dispatchers: Sequence[Child], seconds: float) -> Sending:
    def used_s() -> float:
        return sum(one.cpu_s for one in dispatchers)

    before, cpu_s, started = await ended(connection), used_s(), time.monotonic()
    await asyncio.sleep(seconds)
    took_s, cpu_s = time.monotonic() - started, used_s() - cpu_s
    sent = await ended(connection) - before
    return Sending(sent / took_s, cpu_s * 1000 / max(sent, 1))


def _bodies() -> list[bytes]:
    return [
        msgspec.json.encode(
            {
                "from": f"Shop <shop@{FROM_DOMAIN}>",
                "to": f"user{number}@d{number}.test",
                "subject": f"Your receipt no. {number}",
                "text": "Thank you for your order. It is on its way.\n",
            }
        )
        for number in range(DOMAINS)
    ]
