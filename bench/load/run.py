"""The whole way: rendered, signed, sent and acknowledged, through the gateway's own processes.

One dispatcher and the scheduler's process send N messages of 14 kB, each rendered from a personal template and signed with
RSA-2048, over D domains to a receiver that takes everything. The first part warms up and does not count. What counts is CPU:
of the gateway's processes, of all of Postgres (with a VACUUM and a CHECKPOINT at the end), of the receiver; beside it one RSA
signature, timed before, while and after it was sent, of which the least counts: it makes machines comparable.

At the end of each run the books are compared with the receiver's ledger: every message once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from bench import cpu
from bench.load.ledger import read as read_ledger
from bench.load.rsa import SignatureTimer
from bench.options import Options, Progress
from bench.report import Figure, Outcome, figure
from bench.stage import (
    Child,
    Stage,
    child,
    ended,
    fill,
    make_lanes,
    make_message,
    make_site,
    shaping,
    sink,
    stage,
    until,
    wake,
)
from gateway.app.brief import Role
from gateway.store.pool import connect
from gateway.throttle.shaping import Limits

LIMITS: Final = Limits(rate_per_s=100_000.0, burst=20_000, max_connections=100, max_per_dispatcher=20)
REACH_RATIO: Final = 2.0
_TIMEOUT_S: Final = 300.0
_LINKS: Final = 10
HTML_BYTES: Final = 11_000

SUBJECT: Final = "{{ first_name }}, news for {{ city }}"
TEXT: Final = "Hello {{ first_name }},\n\nthere is news for your {{ plan }} plan in {{ city }}.\n\nYours\n"


class Run(msgspec.Struct, frozen=True):
    """One run, per message unless it says otherwise."""

    messages_per_s: float
    gateway_ms: float
    postgres_ms: float
    sink_ms: float
    rsa_ms: float
    rss_mib: float
    content_bytes: float

    @property
    def all_ms(self) -> float:
        """Gateway and Postgres."""
        return self.gateway_ms + self.postgres_ms


def html(size_bytes: int) -> str:
    """A newsletter of about so many bytes, with personal links."""
    link = '<p><a href="https://shop.test/offer/{n}?who={{{{ first_name }}}}&amp;plan={{{{ plan }}}}">Offer {n} for {{{{ first_name }}}}</a></p>\n'
    words = "Some words about what is new this week, in a line of usual length for a letter."
    line = f'<tr><td style="font-family:Arial,sans-serif;padding:8px 16px">{words}</td></tr>\n'
    parts = ["<html><body><h1>Hello {{ first_name }}</h1>\n"]
    for number in range(_LINKS):
        parts.append(link.format(n=number))
        parts.append(line * max(0, size_bytes // _LINKS // len(line) - 1))
    return "".join([*parts, "</body></html>\n"])


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure `options.runs` times, each on a fresh database."""
    messages, warm_up, domains = (1_500, 500, 10) if options.quick else (10_000, 1_000, 50)
    runs: list[Run] = []
    async with stage() as own:
        for number in range(options.runs):
            one = await measure(own, f"run_{number}", messages, warm_up, domains)
            runs.append(one)
            tell(
                f"run {number + 1} of {options.runs}: {one.messages_per_s:.0f} messages/s; gateway {one.gateway_ms:.3f}, "
                f"Postgres {one.postgres_ms:.3f}, sink {one.sink_ms:.3f}, RSA {one.rsa_ms:.3f} ms: "
                f"{one.all_ms / one.rsa_ms:.2f} signatures"
            )
    figures: dict[str, Figure] = {
        "messages sent": figure([r.messages_per_s for r in runs], "messages/s"),
        "gateway and Postgres, in RSA signatures": figure(
            [r.all_ms / r.rsa_ms for r in runs], "signatures a message", at_most=REACH_RATIO
        ),
        "messages per CPU-second of gateway and Postgres": figure(
            [1000 / r.all_ms for r in runs], "messages"
        ),
        "CPU of the gateway": figure([r.gateway_ms for r in runs], "ms a message"),
        "CPU of Postgres": figure([r.postgres_ms for r in runs], "ms a message"),
        "CPU of the receiver": figure([r.sink_ms for r in runs], "ms a message"),
        "one RSA-2048 signature": figure([r.rsa_ms for r in runs], "ms"),
        "peak memory of the dispatcher": figure([r.rss_mib for r in runs], "MiB resident"),
    }
    settings = {
        "messages": messages, "warm_up": warm_up, "domains": domains, "dispatchers": 1,
        "content_bytes": round(runs[-1].content_bytes), "signature": "rsa-sha256, 2048 bits", "synchronous_commit": True,
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def measure(own: Stage, name: str, messages: int, warm_up: int, domains: int) -> Run:
    """One run on a fresh database `name`: `warm_up` messages that do not count, then `messages` that do."""
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    timer = SignatureTimer()
    try:
        async with sink(own.folder, name=name) as receiver:
            config = own.config(
                route=receiver.route,
                database={"data_dir": str(own.folder / name)},
                dispatch={"connections_per_lane": 20},
            )
            config.data_dir.mkdir()
            await make_site(connection, config)
            await make_message(connection, subject=SUBJECT, html=html(HTML_BYTES), text=TEXT)
            lanes = await make_lanes(connection, [f"d{i}.test" for i in range(domains)], LIMITS)
            throttles = shaping(LIMITS)
            async with (
                child(Role.DISPATCH, config, dsn, throttles) as dispatcher,
                child(Role.SCHEDULE, config, dsn, throttles) as scheduler,
            ):
                processes = (dispatcher, scheduler)
                first = 1_024_000
                after = await fill(connection, lanes, first, warm_up, accepted=True)
                await wake(connection, lanes, first)
                await _all_ended(connection, warm_up, processes)
                first = (after | 1023) + 1
                await fill(connection, lanes, first, messages, accepted=True)
                await connection.execute("vacuum analyze queue")
                timer.time()

                before = (sum(p.cpu_s for p in processes), cpu.tree_cpu_s(own.postgres_pid), receiver.cpu_s)
                started = time.monotonic()
                await wake(connection, lanes, first)
                waiting = asyncio.create_task(_all_ended(connection, warm_up + messages, processes))
                while not waiting.done():
                    await asyncio.wait([waiting], timeout=1.0)
                    timer.time(20)
                took_s = await waiting - started
                gateway_s = sum(p.cpu_s for p in processes) - before[0]
                await connection.execute("vacuum queue, flow, lane_state, ended, tally")
                await connection.execute("checkpoint")
                postgres_s = cpu.tree_cpu_s(own.postgres_pid) - before[1]
                sink_s = receiver.cpu_s - before[2]
                timer.time()
                rss = cpu.peak_rss_bytes(dispatcher.pid)
            left = await connection.fetchval("select count(*) from queue")
            await receiver.stop()
            size = receiver.ledger.stat().st_size
        ledger = read_ledger(receiver.ledger, "delivery")
        if left or len(ledger.accepted) != warm_up + messages or ledger.duplicates:
            raise RuntimeError(
                f"the books and the ledger differ: {left} left in the queue, {len(ledger.accepted)} of {warm_up + messages} "
                f"received, {len(ledger.duplicates)} of them more than once"
            )
        sizes = [int(line.split(b"\t")[4]) for line in receiver.ledger.read_bytes().splitlines()[-100:]]
        assert size
    finally:
        await connection.close()
        await own.drop(name)
    each = 1000 / messages
    return Run(
        messages / took_s, gateway_s * each, postgres_s * each, sink_s * each, timer.least_ms, rss / 2**20, sum(sizes) / len(sizes)
    )  # fmt: skip


async def _all_ended(connection: asyncpg.Connection, count: int, processes: Sequence[Child]) -> float:
    async def met() -> bool:
        return await ended(connection) >= count

    return await until(met, processes, f"{count} deliveries to end", timeout_s=_TIMEOUT_S)
