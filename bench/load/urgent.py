"""Who comes first: urgent mail behind 100,000 bulk lanes, and a small site behind a big one in one lane.

First part: a dispatcher sends bulk of 100,000 lanes as fast as it can while single urgent messages (priority 0) are accepted,
some to lanes that hold bulk, some to new ones. Measured from before the acceptance to the final dot at the receiver.

Second part (fault F29): one site has 1,000,000 deliveries in a lane that is being sent; another puts 10 into it. Counted at
the receiver: how many deliveries of the big site came between the small one's commit and the last of its ten, in terms of
one grant, which was already taken when they came.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from bench.load import ledger
from bench.options import Options, Progress
from bench.processes import Child, child, sink, until
from bench.report import Figure, Outcome, figure, quantile
from bench.stage import (
    SITE,
    Lane,
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
from gateway.store.waker import Waker
from gateway.throttle.bucket import QUANTUM_S
from gateway.throttle.shaping import Limits

LIMITS: Final = Limits(rate_per_s=100.0, burst=20, max_connections=10, max_per_dispatcher=5)
SHARED: Final = Limits(rate_per_s=200.0, burst=20, max_connections=10, max_per_dispatcher=5)
REACH_S: Final = 2.0
SMALL: Final = 10
FAIR_SHARE: Final = 2 * SMALL
_OTHER_SITE: Final = 2
_URGENT_MESSAGE: Final = 2
_ACCEPT = "select accept_deliveries($1, $2, $3::smallint, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure both parts `options.runs` times."""
    lanes, per_run, big = (2_000, 20, 20_000) if options.quick else (100_000, 200, 1_000_000)
    rows = lanes * 2
    delays: list[list[float]] = []
    bulk: list[float] = []
    overtaken: list[float] = []
    async with stage() as own:
        for number in range(options.runs):
            found, rate = await _urgent(own, lanes, rows, per_run)
            delays.append(found)
            bulk.append(rate)
            tell(
                f"run {number + 1} of {options.runs}: urgent p50 {quantile(found, 0.5):.3f} p99 {quantile(found, 0.99):.3f} "
                f"max {max(found):.3f} s, beside {rate:.0f} bulk messages/s"
            )
        for number in range(options.runs):
            behind = await _small_site(own, big)
            overtaken.append(float(behind))
            tell(f"run {number + 1} of {options.runs}: {behind} of the big site before the small one's last")
    together = [delay for run in delays for delay in run]
    grant = math.floor(SHARED.burst + SHARED.rate_per_s * QUANTUM_S)
    figures: dict[str, Figure] = {
        "urgent, accepted to received: p50": figure([quantile(d, 0.5) for d in delays], "s"),
        "urgent, accepted to received: p99": figure(
            [quantile(d, 0.99) for d in delays], "s", at_most=REACH_S, judged="worst"
        ),
        "urgent, accepted to received: p99 of all runs": figure(
            [quantile(together, 0.99)], "s", at_most=REACH_S
        ),
        "urgent, accepted to received: longest": figure([max(d) for d in delays], "s"),
        "bulk sent meanwhile": figure(bulk, "messages/s"),
        "small site: deliveries of the big one before its last": figure(
            overtaken, "deliveries", at_most=FAIR_SHARE - SMALL + grant, judged="worst"
        ),
    }
    settings = {
        "bulk_lanes": lanes, "bulk_rows": rows, "urgent_messages": per_run, "dispatchers": 1, "big_site": big, "small_site": SMALL,
        "shared_lane": f"{SHARED.rate_per_s:g}/s burst {SHARED.burst}", "grant": grant,
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def _urgent(own: Stage, lanes: int, rows: int, count: int) -> tuple[list[float], float]:
    """Seconds that each urgent message took, and the bulk rate beside them."""
    name = f"urgent_{time.monotonic_ns()}"
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    try:
        async with sink(own.folder, name=name) as receiver:
            config = _config(own, name, receiver.route)
            await _contents(connection, config)
            domains = [f"d{i}.test" for i in range(lanes)]
            bulk = await make_lanes(connection, domains, LIMITS)
            first = 1_024_000
            after = await fill(connection, bulk, first, rows, accepted=True)
            await connection.execute("vacuum analyze", timeout=600)
            await wake(connection, bulk, first)
            throttles = shaping(LIMITS)
            began: dict[int, float] = {}
            async with (
                child(Role.SCHEDULE, config, dsn, throttles),
                child(Role.DISPATCH, config, dsn, throttles) as dispatcher,
                Waker(dsn, role="gateway_dispatch") as waker,
            ):
                await _sending(connection, 2 * 500, dispatcher)
                before = await ended(connection)
                started = time.monotonic()
                number = (after >> 10) + 1
                for i in range(count):
                    domain = random.choice(domains) if i % 2 else f"new{i}.test"
                    [lane] = await make_lanes(connection, [domain], LIMITS, priority=0, broadcast=0)
                    began[number << 10] = time.monotonic()
                    await _accept(connection, lane, [number << 10], 0, SITE, _URGENT_MESSAGE)
                    waker.wake({lane.flow_id: number << 10})
                    number += 1
                    await asyncio.sleep(random.uniform(0.03, 0.08))
                rate = (await ended(connection) - before) / (time.monotonic() - started)

                async def met() -> bool:
                    return await connection.fetchval("select count(*) from ended where priority = 0") >= count

                await until(met, [dispatcher], f"{count} urgent messages")
            await receiver.stop()
        arrived = _arrivals(receiver.ledger.read_text(encoding="utf-8").splitlines())
        return [arrived[delivery] - at for delivery, at in began.items()], rate
    finally:
        await connection.close()
        await own.drop(name)


async def _small_site(own: Stage, big: int) -> int:
    """How many of the big site were received between the small one's commit and its last."""
    name = f"fair_{time.monotonic_ns()}"
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    try:
        async with sink(own.folder, name=name) as receiver:
            config = _config(own, name, receiver.route)
            await _contents(connection, config)
            [lane] = await make_lanes(connection, ["shared.test"], SHARED)
            first = 1_024_000
            after = await fill(connection, [lane], first, big, accepted=True)
            await connection.execute("vacuum analyze", timeout=600)
            await wake(connection, [lane], first)
            throttles = shaping(SHARED)
            async with (
                child(Role.SCHEDULE, config, dsn, throttles),
                child(Role.DISPATCH, config, dsn, throttles) as dispatcher,
            ):
                await _sending(connection, 400, dispatcher)
                [small] = await make_lanes(connection, ["shared.test"], SHARED, site=_OTHER_SITE, broadcast=0)
                ids = [((after >> 10) + 1 << 10) + i for i in range(SMALL)]
                await _accept(connection, small, ids, 1, _OTHER_SITE, _URGENT_MESSAGE + 1)
                committed = time.monotonic()
                await wake(connection, [small], ids[0])

                async def met() -> bool:
                    return (
                        await connection.fetchval(
                            "select count(*) from ended where site_id = $1", _OTHER_SITE
                        )
                        >= SMALL
                    )

                await until(met, [dispatcher], "the small site's deliveries")
            await receiver.stop()
        arrived = _arrivals(receiver.ledger.read_text(encoding="utf-8").splitlines())
        last = max(arrived[delivery] for delivery in ids)
        return sum(committed < at < last for delivery, at in arrived.items() if delivery not in ids)
    finally:
        await connection.close()
        await own.drop(name)


def _config(own: Stage, name: str, route: dict[str, object]) -> Config:
    config = own.config(route=route, database={"data_dir": str(own.folder / name)})
    config.data_dir.mkdir()
    return config


async def _contents(connection: asyncpg.Connection, config: Config) -> None:
    await make_site(connection, config)
    await connection.execute("insert into site (name) values ('small')")
    await make_message(connection, subject="News", html="", text="Some words.\n", template=False)
    for number, stream in ((_URGENT_MESSAGE, "transactional"), (_URGENT_MESSAGE + 1, "marketing")):
        await make_message(
            connection, number=number, stream=stream, subject="Code", html="", text="1234\n", template=False
        )


async def _accept(
    connection: asyncpg.Connection, lane: Lane, ids: Sequence[int], priority: int, site: int, message: int
) -> None:
    now = datetime.now(UTC)
    n = len(ids)
    await connection.execute(
        _ACCEPT, site, 0, priority, now, list(ids), [message] * n, [f"u{i}@{lane.domain}" for i in ids], [None] * n,
        [lane.lane_id] * n, [lane.flow_id] * n, [now] * n, [now + timedelta(days=1)] * n,
    )  # fmt: skip


async def _sending(connection: asyncpg.Connection, count: int, dispatcher: Child) -> None:
    """Wait until the dispatcher is at full speed: so many have ended."""

    async def met() -> bool:
        return await ended(connection) >= count

    await until(met, [dispatcher], f"{count} deliveries to end")


def _arrivals(lines: Sequence[str]) -> dict[int, float]:
    """When each delivery was accepted by the receiver first (monotonic), from its ledger's lines."""
    found: dict[int, float] = {}
    for line in lines:
        kind, at, *_, delivery = line.split("\t")
        if kind.encode() == ledger.ACCEPTED and delivery:
            found.setdefault(int(delivery), float(at))
    return found
