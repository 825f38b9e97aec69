"""One run of one scenario: enqueued over the API, rendered, signed, sent and acknowledged by the gateway's own processes.

A process of the API, one of the scheduler and the scenario's dispatchers work on a fresh database. A warm-up that does not
count reaches every lane; then the lanes are suspended, as after a refusal, so that taking messages in and sending them can be
told apart; then they may leave. What counts is CPU from the first request to the last acknowledgement, with a VACUUM and a
CHECKPOINT at the end: of the gateway's processes, of all of Postgres, of the receiver; the client is this process and does not
count. Beside it one RSA signature is timed before, while and after, and the least counts.

At the end the books are compared with the receiver's ledger, delivery by delivery.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

import asyncpg
import msgspec

from bench import cpu
from bench.load.http import Load, all_closed, open_clients, post
from bench.load.ledger import Books, compare
from bench.load.ledger import read as read_ledger
from bench.load.letter import Request, requests
from bench.load.rsa import SignatureTimer
from bench.load.scenario import ALGORITHMS, Scenario
from bench.load.signing import prepare, sections
from bench.processes import Child, Sink, child, dispatching, free_port, listening, sink, until
from bench.stage import SITE, Stage, ended, shaping
from gateway.app.brief import Role
from gateway.store.pool import connect
from gateway.store.sites import issue_key

CLIENTS: Final = 4
TRACK_URL: Final = "https://click.site.test"
_TIMEOUT_S: Final = 300.0
_TIMED_EVERY_S: Final = 1.0
_LAST: Final = 200
"""Messages at the end of the ledger whose size is told."""

_SUSPEND = "select suspend_lanes(array(select lane_id from lane_state), array(select 3600.0 from lane_state), array(select 'bench' from lane_state))"
# Now, not long ago: dispatchers do not look for lanes that have been ready since before they last looked.
_RESUME = "update lane_state set suspended_until = clock_timestamp(), suspended_why = ''"
_ASLEEP = (
    "select count(*) from flow f where not f.active and exists (select from queue q where q.flow_id = f.id)"
)


class Run(msgspec.Struct, frozen=True):
    """One run; milliseconds of CPU are those of a message, enqueueing included."""

    messages_per_s: float
    gateway_ms: float
    """API, dispatchers and scheduler."""
    postgres_ms: float
    sink_ms: float
    rsa_ms: float
    rss_mib: float
    """The largest dispatcher's peak."""
    content_bytes: float
    enqueue_ms: float = 0.0
    """The part of gateway and Postgres that taking the messages in cost."""
    enqueued_per_s: float = 0.0
    connections: int = 0
    """The most that were seen open at once."""
    failed: str = ""
    """Why this was not what the scenario's name says; empty: it was."""

    @property
    def all_ms(self) -> float:
        """Gateway and Postgres."""
        return self.gateway_ms + self.postgres_ms

    @property
    def ratio(self) -> float:
        """Gateway and Postgres, in RSA-2048 signatures."""
        return self.all_ms / self.rsa_ms


class _Spent(NamedTuple):
    """CPU seconds so far."""

    gateway_s: float
    postgres_s: float
    sink_s: float


async def measure_scenario(own: Stage, name: str, scenario: Scenario) -> Run:
    """One run on a fresh database `name`. Raises RuntimeError when it failed, or the books do not balance."""
    data_dir = own.folder / name
    data_dir.mkdir()
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    try:
        async with sink(own.folder, name=name, tls=scenario.tls, delay_ms=scenario.delay_ms) as receiver:
            config = own.config(
                route=receiver.route,
                database={"data_dir": str(data_dir)},
                api={"port": free_port()},
                dispatch=scenario.dispatch,
                track={"url": TRACK_URL if scenario.tracked else ""},
                **sections(scenario.signing, data_dir),
            )
            await prepare(connection, config, scenario.signing)
            _, key = await issue_key(connection, SITE, "bench", ["send"])
            throttles = shaping(scenario.limits)
            async with AsyncExitStack() as stack:
                roles = (Role.API, Role.SCHEDULE, *[Role.DISPATCH] * scenario.dispatchers)
                children = [
                    await stack.enter_async_context(child(role, config, dsn, throttles)) for role in roles
                ]
                await dispatching(connection, children, scenario.dispatchers)
                door = _Door(config.api.port, key)
                await listening(config.api.port, children)
                run = await _sent(own, connection, receiver, children, door, scenario)
            books = await _books(connection)
            left = await connection.fetchval("select count(*) from queue")
            await receiver.stop()
        findings = compare(books, read_ledger(receiver.ledger, "delivery"))
        expected = scenario.warm_up + scenario.messages
        if not findings.balanced or findings.duplicates or left or findings.accepted != expected:
            raise RuntimeError(
                "\n".join([f"{expected} expected, {left} left in the queue", *findings.lines()])
            )
        return msgspec.structs.replace(
            run, content_bytes=_size(receiver), failed=_not_as_named(scenario, receiver)
        )
    finally:
        await connection.close()
        await own.drop(name)


async def _sent(own: Stage, connection: asyncpg.Connection, receiver: Sink, children: Sequence[Child], door: _Door,
                scenario: Scenario) -> Run:  # fmt: skip
    timer = SignatureTimer()

    def spent() -> _Spent:
        return _Spent(sum(one.cpu_s for one in children), cpu.tree_cpu_s(own.postgres_pid), receiver.cpu_s)

    first = 1_000_000
    kind = (scenario.content, scenario.html_bytes)
    warm_up = list(requests(*kind, first, scenario.warm_up, scenario.domains))
    counted = list(requests(*kind, first + scenario.warm_up, scenario.messages, scenario.domains))
    await door.hand_in(warm_up)
    await _all_ended(connection, scenario.warm_up, children)

    await connection.execute(_SUSPEND)
    await connection.execute("checkpoint")
    timer.time()
    before, started = spent(), time.monotonic()
    await door.hand_in(counted)
    enqueued_s = time.monotonic() - started
    await until(lambda: _awake(connection), children, "the lanes to be woken", poll_s=0.02)
    enqueued = spent()

    started = time.monotonic()
    await connection.execute(_RESUME)
    waiting = asyncio.create_task(_all_ended(connection, scenario.warm_up + scenario.messages, children))
    connections = 0
    while not waiting.done():
        await asyncio.wait([waiting], timeout=_TIMED_EVERY_S)
        connections = max(connections, _connections(receiver.port))
        timer.time(20)
    took_s = await waiting - started
    await connection.execute("vacuum queue, flow, lane_state, ended, tally, message, acceptance")
    await connection.execute("checkpoint")
    after = spent()
    timer.time()
    dispatchers = children[-scenario.dispatchers :]
    each = 1000 / scenario.messages
    return Run(
        messages_per_s=scenario.messages / took_s,
        enqueued_per_s=scenario.messages / enqueued_s,
        gateway_ms=(after.gateway_s - before.gateway_s) * each,
        postgres_ms=(after.postgres_s - before.postgres_s) * each,
        enqueue_ms=(enqueued.gateway_s - before.gateway_s + enqueued.postgres_s - before.postgres_s) * each,
        sink_ms=(after.sink_s - before.sink_s) * each,
        rsa_ms=timer.least_ms,
        rss_mib=max(cpu.peak_rss_bytes(one.pid) for one in dispatchers) / 2**20,
        content_bytes=0.0,
        connections=connections,
    )


class _Door:
    """The API, as a client sees it."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key

    async def hand_in(self, wanted: Sequence[Request]) -> None:
        """Send the requests over some connections. Raises RuntimeError with the first that was not answered with 202."""
        load = Load(requests=[post("/v1/messages", self._key, one.body) for one in wanted], most=len(wanted))
        await all_closed(await open_clients(load, self._port, CLIENTS))
        if load.first_errors or len(load.latencies_s) != len(wanted):
            raise RuntimeError(
                f"202 for {len(load.latencies_s)} of {len(wanted)} requests: {load.first_errors[:1]}"
            )


async def _all_ended(connection: asyncpg.Connection, count: int, children: Sequence[Child]) -> float:
    async def met() -> bool:
        return await ended(connection) >= count

    return await until(met, children, f"{count} deliveries to end", timeout_s=_TIMEOUT_S)


async def _awake(connection: asyncpg.Connection) -> bool:
    return await connection.fetchval(_ASLEEP) == 0


async def _books(connection: asyncpg.Connection) -> Books:
    rows = await connection.fetch("select id::text, state = 'delivered' as delivered from ended")
    return Books(
        delivered={row["id"] for row in rows if row["delivered"]},
        ended={row["id"] for row in rows if not row["delivered"]},
    )


def _size(receiver: Sink) -> float:
    lines = receiver.ledger.read_bytes().splitlines()[-_LAST:]
    return sum(int(line.split(b"\t")[4]) for line in lines) / len(lines)


def _not_as_named(scenario: Scenario, receiver: Sink) -> str:
    wanted = ALGORITHMS[scenario.signing]
    if sorted(receiver.signatures) != sorted(wanted):
        found = " and ".join(receiver.signatures) or "nothing"
        return f"messages came signed with {found}, not with {' and '.join(wanted)}"
    if scenario.tls and not receiver.tls_sessions:
        return "the gateway did not use TLS, which the receiver offered"
    return ""


def _connections(port: int) -> int:
    """How many connections to a port of this machine are established, at the side that took them."""
    wanted = f":{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as lines:
        rows = [line.split() for line in lines][1:]
    return sum(row[1].endswith(wanted) and row[3] == "01" for row in rows)
