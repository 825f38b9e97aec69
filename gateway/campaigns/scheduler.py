"""Broadcasts from their time to their end: launched, made into deliveries, seen completed, cleared away where they were cancelled.

Owns start, expansion and completion. Must not know SMTP, nor who pressed the button (`campaigns/launch`). Any number of schedulers
may run: each chunk is one transaction that locks the broadcast's row, accepts up to 1,000 members and moves the cursor past
them, so that two of them, or a `kill -9` anywhere, leave nothing twice and nothing out (F1, F36).

A start is one transaction too: the state changes, and audience and content are frozen, or none of it. What came due while no scheduler
ran is started by the next one, once (F40).

Flow, each round: due broadcasts: launched; working ones → cancelled ones: end waiting rows → others: one chunk each, in turn, until nothing is
left to expand → completed ones: end. A paused or cancelled broadcast stops at its next chunk.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import asyncpg

from gateway.campaigns import launch
from gateway.clock import Clock
from gateway.config import Config
from gateway.errors import StoreUnavailable
from gateway.model.broadcast import BroadcastState
from gateway.model.stream import Stream
from gateway.store import broadcasts
from gateway.store.broadcasts import Broadcast
from gateway.store.intake import Deliveries, Numbers, accept_broadcast
from gateway.store.lane_map import FlowKey, LaneMap
from gateway.store.pool import open_pool, outages_named
from gateway.store.waker import Waker
from gateway.telemetry import Event, log
from gateway.throttle.retune import Follow, never
from gateway.throttle.shaping import Shaping

CHUNK: Final = 1_000
_ROUND_S: Final = 0.25
_CANCEL_ROWS: Final = 1_000
_STARTS: Final = 100
"""Scheduled broadcasts that one round launches, at most."""
_OUTAGE_S: Final = 1.0
_ROLE: Final = "gateway_dispatch"


async def run_scheduler(
    config: Config, dsn: str, *, shaping: Shaping, clock: Clock, stop: asyncio.Event, follow: Follow = never
) -> None:
    """Work until `stop` is set; outages of Postgres are waited out. `follow` tells of changed throttles.

    Raises:
        StoreUnavailable: Postgres did not answer at the start.
    """
    size = max(2, config.database.dispatch_pool_size)
    pool = await open_pool(dsn, role=_ROLE, max_size=size, application_name="gateway scheduler")
    try:
        async with Waker(dsn, role=_ROLE, clock=clock) as waker:
            lanes = LaneMap(pool, shaping.for_domain, clock)
            follow(lambda _, new: lanes.use(new.for_domain))
            scheduler = Scheduler(pool, lanes, waker, clock)
            while not stop.is_set():
                try:
                    busy = await scheduler.round(stop)
                except StoreUnavailable:
                    await _pause(stop, clock, _OUTAGE_S)
                    continue
                except Exception:  # told by the round: one broadcast's trouble must not stop the others
                    await _pause(stop, clock, _OUTAGE_S)
                    continue
                if not busy:
                    await _pause(stop, clock, _ROUND_S)
    finally:
        pool.terminate()


class Scheduler:
    """One process's hands on all broadcasts."""

    def __init__(self, pool: asyncpg.Pool, lanes: LaneMap, waker: Waker, clock: Clock) -> None:
        self._pool, self._lanes, self._waker, self._clock = pool, lanes, waker, clock
        self._numbers = Numbers(pool, clock)

    async def round(self, stop: asyncio.Event | None = None) -> bool:
        """Launch what is due and give every working broadcast one turn; return whether some still have work that need not wait.

        Raises:
            StoreUnavailable: Postgres went away; what was committed stands.
            Exception: one broadcast could not be worked on; the others were.
        """
        with outages_named("reading broadcasts"):
            async with self._pool.acquire() as connection:
                due = await broadcasts.due(connection, self._clock.now(), _STARTS)
                working = await broadcasts.working(connection)
        busy, failed = False, None
        for broadcast in (*due, *working):
            if stop is not None and stop.is_set():
                return False
            try:
                busy = await self._turn(broadcast) or busy
            except StoreUnavailable:
                raise
            except Exception as error:  # the others have their turn first
                state = broadcast.state
                log.exception(
                    Event.BROADCAST_STATE, broadcast_id=broadcast.id, before=state, after=state, cause="error"
                )
                failed = failed or error
        if failed is not None:
            raise failed
        return busy

    async def _turn(self, broadcast: Broadcast) -> bool:
        if broadcast.state is BroadcastState.SCHEDULED:
            return await self.start(broadcast.id)
        if broadcast.state is BroadcastState.CANCELLED:
            return await self.clear(broadcast)
        if broadcast.state is not BroadcastState.PAUSED and not broadcast.expanded:
            return await self.expand(broadcast.id)
        await self.complete(broadcast)
        return False

    async def start(self, broadcast_id: int) -> bool:
        """Launch a scheduled broadcast whose time has come; return whether it was done now, and here.

        Raises:
            StoreUnavailable: Postgres went away; it is launched whole or not at all.
        """
        (message_id,) = await self._numbers.take(1)
        with outages_named("starting a broadcast"):
            async with self._pool.acquire() as connection, connection.transaction():
                if not await broadcasts.lock_due(connection, broadcast_id, self._clock.now()):
                    return False
                launched = await launch.start(connection, broadcast_id, message_id)
        return launched.state is BroadcastState.PREPARING

    async def expand(self, broadcast_id: int) -> bool:
        """Accept the next chunk of a broadcast; return whether there may be more.

        Raises:
            StoreUnavailable: Postgres went away; the chunk is accepted whole or not at all.
        """
        (acceptance,) = await self._numbers.take(1)
        with outages_named("expanding a broadcast"):
            async with self._pool.acquire() as connection, connection.transaction():
                broadcast = await broadcasts.lock_to_expand(connection, broadcast_id)
                if broadcast is None:
                    return False
                members = await broadcasts.audience(connection, broadcast, CHUNK)
                key = FlowKey(broadcast.site_id, Stream.MARKETING.priority, broadcast.id)
                lowest: dict[int, int] = {}
                if members:
                    # In transactions of its own: lanes and flows stay when this one fails, and nobody waits for them.
                    targets = await self._lanes.resolve(key, {member.domain for member in members})
                    now = self._clock.now()
                    lowest = await accept_broadcast(
                        connection,
                        key,
                        Deliveries(
                            recipients=[member.email for member in members],
                            domains=[member.domain for member in members],
                            variables=[member.variables for member in members],
                            due_at=now,
                            expires_at=now + timedelta(seconds=broadcast.expires_in_s),
                        ),
                        message_id=broadcast.message_id or 0,
                        acceptance=acceptance,
                        targets=targets,
                        accepted_at=now,
                    )
                more = len(members) == CHUNK
                cursor = members[-1].seq if members else broadcast.cursor
                await broadcasts.advance(connection, broadcast.id, cursor, expanded=not more)
        self._waker.wake(lowest)
        if not more:
            self._tell(broadcast, BroadcastState.SENDING, "expanded")
        return more

    async def complete(self, broadcast: Broadcast) -> bool:
        """End a broadcast all of whose deliveries have ended; return whether it was done now, and here."""
        with outages_named("completing a broadcast"):
            async with self._pool.acquire() as connection:
                done = await broadcasts.complete(connection, broadcast.id)
        if done and broadcast.state is not BroadcastState.CANCELLED:
            self._tell(broadcast, BroadcastState.COMPLETED, "every delivery has ended")
        return done

    async def clear(self, broadcast: Broadcast) -> bool:
        """End some of what waits of a cancelled broadcast; return whether there was any."""
        with outages_named("cancelling deliveries"):
            async with self._pool.acquire() as connection:
                if await broadcasts.cancel_rows(connection, broadcast.id, _CANCEL_ROWS):
                    return True
        await self.complete(broadcast)
        return False

    @staticmethod
    def _tell(broadcast: Broadcast, after: BroadcastState, cause: str) -> None:
        if broadcast.state is not after:
            log.info(
                Event.BROADCAST_STATE,
                broadcast_id=broadcast.id,
                before=broadcast.state,
                after=after,
                cause=cause,
            )


async def _pause(stop: asyncio.Event, clock: Clock, duration_s: float) -> None:
    """Wait, but not longer than until `stop`."""
    sleeping = asyncio.ensure_future(clock.sleep(duration_s))
    stopping = asyncio.ensure_future(stop.wait())
    _, pending = await asyncio.wait((sleeping, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
