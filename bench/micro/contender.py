"""One contender of the benchmarks of claims: its database, its sessions, its backlog, and the work that is measured on it.

Owns what is done and how it is counted. Must not know which contenders there are, nor what they should come to (`micro/claim`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from bench import cpu
from bench.stage import Lane, Stage, fill, make_lanes, wake
from gateway.clock import SystemClock
from gateway.model.delivery import DeliveryState, Granted, Result
from gateway.store import fleet
from gateway.store.pool import connect
from gateway.store.queue import ClaimLimits, Queue
from gateway.throttle.shaping import Limits

ROLE: Final = "gateway_dispatch"
TABLES: Final = ("queue", "flow", "lane_state")
BATCH: Final = 400  # rows of a claim, and of an acknowledgement: the dispatcher's defaults
ARRIVAL: Final = 2_000
FREE: Final = Limits(rate_per_s=100_000.0, burst=20_000, max_connections=100, max_per_dispatcher=5)
SLOW: Final = Limits(rate_per_s=7.0, burst=1, max_connections=10, max_per_dispatcher=5)
_MAX_TRIES: Final = 20_000
_WOKEN: Final = 500  # lanes at a time


class Contender(msgspec.Struct, frozen=True):
    """One state of the queue. `stats`: fresh, empty (analysed before any row was there) or old (at a hundredth).

    `scattered`: lanes become ready in no order, so that rows which are claimed together lie on pages far apart; else in the
    order in which their rows were put in.
    """

    name: str
    lanes: int
    backlog: int = 0
    throttled: int = 0
    stats: str = "fresh"
    base: str = ""
    scattered: bool = False


class Cost(msgspec.Struct, frozen=True):
    """CPU milliseconds of Postgres a delivery, in all and by what it did."""

    total: float
    claim: float
    acknowledge: float
    upkeep: float  # VACUUM and CHECKPOINT at the end, and all processes in the background
    client: float
    claims: float  # deliveries a claim


class Bench:
    """One contender: its database, its four sessions, its backlog."""

    def __init__(self, own: Stage, dsn: str, contender: Contender) -> None:
        self.contender = contender
        self._own, self._dsn = own, dsn
        self._lanes: list[Lane] = []
        self._by_id: dict[int, Lane] = {}
        self._next = 1
        self._turn = 0
        self._owner = 0
        # Lanes served last stay at work in a dispatcher for a moment, with room left.
        self._busy: dict[int, int] = {}

    @classmethod
    async def open(
        cls,
        own: Stage,
        name: str,
        contender: Contender,
        *,
        autovacuum: bool = False,
        session_first: bool = True,
    ) -> Bench:
        """Make and fill its database, and open its sessions.

        With `session_first` the sessions have run on the empty queue before it is filled: what they planned then stays
        planned until the statistics change.
        """
        self = cls(own, await own.database(name), contender)
        self._admin = await connect(self._dsn, application_name="bench admin")
        self._filler = await connect(self._dsn, application_name="bench filler")
        self._claimer = await connect(self._dsn, role=ROLE, application_name="bench claim")
        self._acker = await connect(self._dsn, role=ROLE, application_name="bench acknowledge")
        self._pids = {
            name: int(await connection.fetchval("select pg_backend_pid()"))
            for name, connection in (("admin", self._admin), ("filler", self._filler), ("claim", self._claimer), ("ack", self._acker))
        }  # fmt: skip
        if not autovacuum:
            for table in TABLES:
                await self._admin.execute(f"alter table {table} set (autovacuum_enabled = off)")
        await self._admin.execute(f"vacuum analyze {', '.join(TABLES)}")
        self._owner = await fleet.register(self._claimer, name, 1)
        self._queue = Queue(self._owner, SystemClock(), late_tolerance_s=60.0)
        await self._fill(session_first)
        return self

    async def close(self) -> None:
        """Close its sessions."""
        for connection in (self._claimer, self._acker, self._filler, self._admin):
            await connection.close(timeout=10)

    async def measure(self, deliveries: int) -> tuple[Cost, int]:
        """Let so many arrive, be claimed and be acknowledged; what that cost, and how many sequential scans it took."""
        scans = await self._scans()
        before = self._read()
        client = claims = 0.0
        done = 0
        while done < deliveries:
            await self._arrive()
            started = time.process_time()
            claimed, made = await self._serve(ARRIVAL)
            client += time.process_time() - started
            done += claimed
            claims += made
        scans = await self._scans() - scans
        await self._admin.execute(f"vacuum {', '.join(TABLES)}, ended, tally", timeout=600)
        await self._admin.execute("checkpoint", timeout=600)
        spent = {name: (after - before[name]) * 1000 / done for name, after in self._read().items()}
        total = spent["all"]
        cost = Cost(
            total,
            spent["claim"],
            spent["ack"],
            total - spent["claim"] - spent["ack"],
            client * 1000 / done,
            done / claims,
        )
        return cost, scans

    async def finish(self, backlog: int, step: int, held: bool) -> tuple[float, list[float], int]:
        """Claim and acknowledge the whole backlog; the cost in all (with a VACUUM at the end), by `step`, and the scans."""
        await self._admin.execute(f"vacuum analyze {', '.join(TABLES)}", timeout=600)
        await self._admin.execute("checkpoint", timeout=600)
        await self._serve(BATCH)
        holder = await connect(self._dsn, application_name="bench snapshot")
        try:
            if held:
                await holder.execute("begin isolation level repeatable read")
                for table in TABLES:
                    await holder.fetchval(f"select count(*) from (select from {table} limit 1000) x")
            scans = await self._scans()
            marks, done, next_mark = [self._read()["all"]], 0, step
            left = backlog - BATCH
            while done < left:
                claimed, _ = await self._serve(min(ARRIVAL, left - done))
                done += claimed
                if done >= next_mark or done >= left:
                    marks.append(self._read()["all"])
                    next_mark += step
            scans = await self._scans() - scans
            if held:
                await holder.execute("commit")
        finally:
            await holder.close()
        await self._admin.execute(f"vacuum {', '.join(TABLES)}, ended, tally", timeout=600)
        await self._admin.execute("checkpoint", timeout=600)
        total = (self._read()["all"] - marks[0]) * 1000 / left
        curve = [(b - a) * 1000 / step for a, b in pairwise(marks)]
        curve[-1] *= step / (left - step * (len(curve) - 1))
        return total, curve, scans

    async def _fill(self, session_first: bool) -> None:
        contender = self.contender
        domains = [f"d{i:06}.test" for i in range(contender.lanes)]
        self._lanes = await make_lanes(self._filler, domains, FREE)
        self._by_id = {lane.lane_id: lane for lane in self._lanes}
        if session_first:
            for _ in range(3):
                await self._arrive()
                await self._serve(ARRIVAL)
        slow = await make_lanes(self._filler, ["slow.test"], SLOW) if contender.throttled else []
        for lanes, count in ((self._lanes, contender.backlog), (slow, contender.throttled)):
            if not count:
                continue
            first = self._next
            early = count // 100 if contender.stats == "old" else 0
            if early:
                self._next = await fill(self._filler, lanes, self._next, early)
                await self._analyse()
            self._next = await fill(self._filler, lanes, self._next, count - early)
            # Some at a time: their order is then ours, and not that of a plan which hangs on the statistics.
            order = random.Random(1).sample(lanes, len(lanes)) if contender.scattered else lanes
            for start in range(0, len(order), _WOKEN):
                await wake(self._filler, order[start : start + _WOKEN], first)
        if contender.stats == "fresh":
            if (
                not contender.backlog
            ):  # its statistics are those of what it sees when it is at work: one arrival
                await self._arrive()
            await self._analyse()
            if not contender.backlog:
                await self._serve(ARRIVAL)

    async def _analyse(self) -> None:
        await self._admin.execute(f"vacuum analyze {', '.join(TABLES)}", timeout=600)

    async def _arrive(self) -> None:
        """Put one arrival into the lanes that were served last; at first into the next ones in turn."""
        if self.contender.lanes <= BATCH:
            lanes: Sequence[Lane] = self._lanes
        elif self.contender.backlog and self._served:
            lanes = self._served
        else:
            count = ARRIVAL // 10
            lanes = [self._lanes[(self._turn + i) % len(self._lanes)] for i in range(count)]
            self._turn += count
        first = self._next
        self._next = await fill(self._filler, lanes, first, ARRIVAL)
        await wake(self._filler, lanes, first)

    _served: Sequence[Lane] = ()

    async def _serve(self, wanted: int) -> tuple[int, int]:
        """Claim and acknowledge at least `wanted`; (deliveries, claims)."""
        few = self.contender.lanes <= BATCH
        credit = BATCH // self.contender.lanes if few else 20
        limits = ClaimLimits(rows=BATCH, rows_per_lane=credit, slots=5, lanes=100)
        busy = {lane.lane_id: credit for lane in self._lanes} if few else self._busy
        done = claims = 0
        served: dict[int, Lane] = {}
        for _ in range(_MAX_TRIES):
            grants = await self._queue.claim(self._claimer, limits, alive=[self._owner], busy=busy)
            claims += 1
            results = _results(grants)
            if results:
                done += await self._queue.acknowledge(self._acker, results)
                served.update((g.lane_id, self._by_id[g.lane_id]) for g in grants if g.lane_id in self._by_id)
            if not few:
                busy = self._busy = {grant.lane_id: 10 for grant in grants}
            if done >= wanted:
                self._served = list(served.values())
                return done, claims
        raise RuntimeError(f"{claims} claims gave {done} of {wanted} deliveries: {self.contender.name}")

    def _read(self) -> dict[str, float]:
        """CPU seconds so far: all of Postgres but the filler, and two sessions of it."""
        return {
            "all": cpu.tree_cpu_s(self._own.postgres_pid, without=(self._pids["filler"],)),
            "claim": cpu.process_cpu_s(self._pids["claim"]),
            "ack": cpu.process_cpu_s(self._pids["ack"]),
        }

    async def _scans(self) -> int:
        """Sequential scans of the queue's tables so far; every session first tells what it did."""
        for connection in (self._claimer, self._acker, self._filler):
            await connection.execute("select pg_stat_force_next_flush()")
            await connection.execute("select 1")
        await self._admin.execute("select pg_stat_clear_snapshot()")
        return int(
            await self._admin.fetchval(
                "select sum(seq_scan) from pg_stat_user_tables where relname = any ($1::text[])", list(TABLES)
            )
        )


def _results(grants: Sequence[Granted]) -> list[Result]:
    return [
        Result(
            delivery.id, delivery.epoch, DeliveryState.DELIVERED, code=250, enhanced="2.0.0", reply="ok: queued as 12345",
            bounce_class="ok",
        )
        for grant in grants
        for delivery in grant.deliveries
    ]  # fmt: skip
