"""What the control API accepts: `POST /v1/messages`, durably, over HTTP.

Two loads on one API process: messages of 500 recipients over 300 domains from four clients, and messages of one recipient
from 32 clients to one destination. Postgres commits to disk before a request is answered. The client works in this process;
its CPU is reported apart, since it shares the machine. At the end of each run the queue must hold what was answered with 202.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from bench import cpu
from bench.load.http import Client, Load, post
from bench.options import Options, Progress
from bench.processes import child, free_port, listening
from bench.report import Figure, Outcome, figure
from bench.stage import FROM_DOMAIN, SITE, Stage, make_site, shaping, stage
from gateway.app.brief import Role
from gateway.store.pool import connect
from gateway.store.sites import issue_key
from gateway.throttle.shaping import Limits

MANY: Final = 500
DOMAINS: Final = 300
MANY_CLIENTS: Final = 4
ONE_CLIENTS: Final = 32
REACH_RECIPIENTS: Final = 40_000
REACH_REQUESTS: Final = 1_500
_BODIES: Final = 64
_WARM_UP_S: Final = 2.0


class Kind(msgspec.Struct, frozen=True):
    """One kind of load."""

    name: str
    clients: int
    recipients: int
    domains: int


LOADS: Final = (
    Kind(f"{MANY} recipients a request", MANY_CLIENTS, MANY, DOMAINS),
    Kind("one recipient a request", ONE_CLIENTS, 1, 1),
)


class Measured(msgspec.Struct, frozen=True):
    """One run, per request where it is a cost."""

    requests_per_s: float
    recipients_per_s: float
    p50_ms: float
    p99_ms: float
    api_ms: float
    postgres_ms: float
    client_ms: float


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure both loads `options.runs` times in turn."""
    seconds = 2.0 if options.quick else 8.0
    found: dict[str, list[Measured]] = {load.name: [] for load in LOADS}
    async with stage() as own:
        for number in range(options.runs):
            for load in LOADS:
                one = await _one(own, load, seconds)
                found[load.name].append(one)
                tell(
                    f"run {number + 1} of {options.runs}: {load.name}: {one.requests_per_s:,.0f} requests/s, "
                    f"{one.recipients_per_s:,.0f} recipients/s; p50 {one.p50_ms:.1f} p99 {one.p99_ms:.1f} ms; a request: "
                    f"API {one.api_ms:.3f}, Postgres {one.postgres_ms:.3f}, client {one.client_ms:.3f} ms of CPU"
                )
    many, single = (found[load.name] for load in LOADS)
    figures: dict[str, Figure] = {
        f"{LOADS[0].name}: accepted": figure(
            [m.recipients_per_s for m in many], "recipients/s", at_least=REACH_RECIPIENTS
        ),
        f"{LOADS[1].name}: accepted": figure(
            [m.requests_per_s for m in single], "requests/s", at_least=REACH_REQUESTS
        ),
    }
    for load in LOADS:
        mine = found[load.name]
        figures[f"{load.name}: p50"] = figure([m.p50_ms for m in mine], "ms")
        figures[f"{load.name}: p99"] = figure([m.p99_ms for m in mine], "ms")
        figures[f"{load.name}: CPU of the API"] = figure([m.api_ms for m in mine], "ms a request")
        figures[f"{load.name}: CPU of Postgres"] = figure([m.postgres_ms for m in mine], "ms a request")
        figures[f"{load.name}: CPU of the client"] = figure([m.client_ms for m in mine], "ms a request")
    settings = {
        "seconds": seconds, "api_processes": 1, "synchronous_commit": True, "idempotency_keys": False,
        "loads": [msgspec.structs.asdict(load) for load in LOADS],
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def _one(own: Stage, kind: Kind, seconds: float) -> Measured:
    name = f"api_{time.monotonic_ns()}"
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    try:
        config = own.config(api={"port": free_port()}, database={"data_dir": str(own.folder / name)})
        config.data_dir.mkdir()
        await make_site(connection, config)
        _, key = await issue_key(connection, SITE, "bench", ["send"])
        load = Load([post("/v1/messages", key, body) for body in _bodies(kind)])
        async with child(Role.API, config, dsn, shaping(Limits())) as api:
            await listening(config.api.port, [api])
            loop = asyncio.get_running_loop()
            clients = [
                (await loop.create_connection(lambda: Client(load), "127.0.0.1", config.api.port))[1]
                for _ in range(kind.clients)
            ]
            await asyncio.sleep(_WARM_UP_S)
            warmed = len(load.latencies_s)
            before = (api.cpu_s, cpu.tree_cpu_s(own.postgres_pid), time.process_time())
            started = time.monotonic()
            await asyncio.sleep(seconds)
            took_s = time.monotonic() - started
            count = len(load.latencies_s) - warmed
            api_s, client_s = api.cpu_s - before[0], time.process_time() - before[2]
            load.stopping = True
            await asyncio.gather(*(client.closed for client in clients))
            await connection.execute("checkpoint")
            # With what the last requests in flight cost: a share of a percent.
            postgres_s = cpu.tree_cpu_s(own.postgres_pid) - before[1]
            api.require()
        if load.first_errors or not count:
            raise RuntimeError(f"the API did not answer 202: {load.first_errors[:1]}")
        held = await connection.fetchval("select count(*) from queue")
        if held != len(load.latencies_s) * kind.recipients:
            raise RuntimeError(
                f"202 for {len(load.latencies_s) * kind.recipients} deliveries, {held} in the queue"
            )
    finally:
        await connection.close()
        await own.drop(name)
    latencies = sorted(load.latencies_s[warmed : warmed + count])
    return Measured(
        count / took_s,
        count * kind.recipients / took_s,
        latencies[len(latencies) // 2] * 1000,
        latencies[math.ceil(len(latencies) * 0.99) - 1] * 1000,
        api_s * 1000 / count,
        postgres_s * 1000 / count,
        client_s * 1000 / count,
    )


def _bodies(kind: Kind) -> Sequence[bytes]:
    """Some bodies to send in turn: a few domains get most of the mail, as it is."""
    chance = random.Random(1)
    found: list[bytes] = []
    for number in range(_BODIES):
        to = [
            {
                "email": f"user{number * kind.recipients + i}@d{int(kind.domains * chance.random() ** 3)}.test",
                "variables": {"first_name": f"Ann{i}", "city": "Oslo", "plan": "pro"},
            }
            for i in range(kind.recipients)
        ]
        found.append(
            msgspec.json.encode(
                {
                    "from": f"news@{FROM_DOMAIN}",
                    "to": to,
                    "subject": "Hello {{ first_name }}",
                    "text": "News for your {{ plan }} plan in {{ city }}.\n",
                    "stream": "marketing" if kind.recipients > 1 else "transactional",
                }
            )
        )
    return found
