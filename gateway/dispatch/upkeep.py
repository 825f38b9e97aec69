"""What keeps the queue moving when nobody sends: promotion, expiry, the sweep for sleepers, reaping, partitions.

Owns the beat of these chores. Any number of processes may run them: each chore takes its rows with SKIP LOCKED and does them
once. Part of role `schedule`. Must not know how mail is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

import asyncpg

from gateway.clock import Clock
from gateway.dispatch.outcome import STORE_ERRORS
from gateway.store import queue, traces
from gateway.store.pool import Connection, open_pool
from gateway.telemetry import Event, get_logger

PROMOTE_EVERY_S: Final = 0.25
EXPIRE_EVERY_S: Final = 1.0
SWEEP_EVERY_S: Final = 10.0
REAP_EVERY_S: Final = 300.0
PARTITIONS_EVERY_S: Final = 3_600.0
BATCH: Final = 2_000
FLOW_IDLE: Final = timedelta(days=1)
LANE_IDLE: Final = timedelta(days=7)
DAYS_AHEAD: Final = 7

_T = TypeVar("_T")


async def run_upkeep(dsn: str, *, clock: Clock, stop: asyncio.Event) -> None:
    """Do the chores until `stop`.

    Raises:
        StoreUnavailable: Postgres does not answer at the start.
    """
    pool = await open_pool(
        dsn, role="gateway_dispatch", min_size=1, max_size=3, application_name="gateway upkeep"
    )
    maintain = await open_pool(
        dsn, role="gateway_maintain", min_size=0, max_size=1, application_name="gateway maintain"
    )
    try:
        chores = (
            _every(PROMOTE_EVERY_S, lambda: _promote(pool), clock, stop),
            _every(EXPIRE_EVERY_S, lambda: _expire(pool), clock, stop),
            _every(SWEEP_EVERY_S, lambda: _with(pool, queue.sweep), clock, stop),
            _every(
                REAP_EVERY_S,
                lambda: _reap(pool),
                clock,
                stop,
            ),
            _every(
                PARTITIONS_EVERY_S,
                lambda: _with(maintain, lambda c: queue.make_partitions(c, DAYS_AHEAD)),
                clock,
                stop,
            ),
        )
        await asyncio.gather(*chores)
    finally:
        pool.terminate()
        maintain.terminate()


async def _promote(pool: asyncpg.Pool) -> int:
    done = await _with(pool, lambda c: queue.promote(c, BATCH, 0))
    return done.promoted + done.expired + done.unresolved


async def _expire(pool: asyncpg.Pool) -> int:
    return await _with(pool, lambda c: queue.expire_ready(c, BATCH, 0))


async def _reap(pool: asyncpg.Pool) -> int:
    await _with(pool, traces.reap)
    return await _with(pool, lambda c: queue.reap(c, FLOW_IDLE, LANE_IDLE, BATCH))


async def _with(pool: asyncpg.Pool, chore: Callable[[Connection], Awaitable[_T]]) -> _T:
    async with pool.acquire() as connection:
        return await chore(connection)


async def _every(
    period_s: float, chore: Callable[[], Awaitable[int]], clock: Clock, stop: asyncio.Event
) -> None:
    """Run a chore each period, at once again while it comes back with a full batch."""
    log = get_logger()
    while not stop.is_set():
        try:
            again = await chore() >= BATCH
        except STORE_ERRORS as error:
            log.warning(Event.CLAIM_FAILED, error=str(error))
            again = False
        if not again:
            try:
                await asyncio.wait_for(stop.wait(), period_s)
            except TimeoutError:
                continue
