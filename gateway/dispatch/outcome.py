"""From a disposition to what the queue is told, and the batches in which it is told.

Owns the one translation (`result_of`), used for live attempts and for a dead dispatcher's journal alike, and the
acknowledger, which never loses an outcome: what Postgres did not confirm is told again. Must not know how mail is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Final

import asyncpg

from gateway.clock import Clock
from gateway.config import DispatchConfig, DoubtConfig, RetryConfig
from gateway.dispatch.retry import retry_in
from gateway.errors import StoreUnavailable
from gateway.feedback.policy import suppresses
from gateway.model.delivery import DeliveryState, Result
from gateway.model.disposition import Disposition, Outcome, Scope
from gateway.mta.journal import Journal
from gateway.store.queue import Queue
from gateway.telemetry import Event, get_logger

_STATES = {
    Outcome.DELIVERED: DeliveryState.DELIVERED,
    Outcome.DEFERRED: DeliveryState.DEFERRED,
    Outcome.BOUNCED: DeliveryState.BOUNCED,
    Outcome.IN_DOUBT: DeliveryState.IN_DOUBT,
}
_URGENT = 0

STORE_ERRORS: Final = (StoreUnavailable, TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What says that Postgres is away for a while."""


class Policies:
    """The waits that outcomes call for, from the config."""

    def __init__(self, retry: RetryConfig, doubt: DoubtConfig) -> None:
        self.retry, self.doubt = retry, doubt

    def result_of(
        self,
        disposition: Disposition,
        *,
        delivery_id: int,
        epoch: int,
        attempts: int,
        priority: int,
        lane_wait_s: float = 0.0,
    ) -> Result:
        """Say what the queue is told of one attempt. `attempts`: those counted before this one."""
        counts = disposition.scope is Scope.RECIPIENT
        if disposition.outcome is Outcome.IN_DOUBT:
            wait_s = self.doubt.transactional_wait_s if priority == _URGENT else self.doubt.bulk_wait_s
        elif disposition.outcome is not Outcome.DEFERRED:
            wait_s = 0.0
        elif counts:
            wait_s = retry_in(disposition, attempts + 1, random.random(), self.retry)  # noqa: S311 (jitter, no secret)
        else:
            wait_s = lane_wait_s or self.lane_wait(disposition, 1)
        suppression = suppresses(disposition)
        return Result(
            id=delivery_id,
            epoch=epoch,
            state=_STATES[disposition.outcome],
            counts=counts,
            wait_s=wait_s,
            code=disposition.code or None,
            enhanced=disposition.enhanced,
            reply=disposition.text,
            bounce_class=disposition.bounce_class,
            suppress=suppression.reason if suppression else None,
        )

    def lane_wait(self, disposition: Disposition, refusals: int) -> float:
        """Say for how many seconds a lane waits that was refused so often in a row."""
        return retry_in(disposition, refusals, random.random(), self.retry)  # noqa: S311 (jitter, no secret)


class Acknowledger:
    """Tells the queue outcomes in batches, every interval or when enough have come."""

    # Mutable on purpose: the batch under way.
    def __init__(
        self, pool: asyncpg.Pool, queue: Queue, journal: Journal, config: DispatchConfig, clock: Clock
    ) -> None:
        self._pool, self._queue, self._journal, self._clock = pool, queue, journal, clock
        self._interval_s, self._rows = config.ack_interval_ms / 1000, config.ack_rows
        self._waiting: list[Result] = []
        self._writing: Sequence[Result] = ()
        self._something = asyncio.Event()  # there is a backlog
        self._full = asyncio.Event()
        self._turn = asyncio.Lock()  # one writer: a flush may come while the loop writes
        self._log = get_logger()

    @property
    def backlog(self) -> int:
        """Outcomes that Postgres has not confirmed."""
        return len(self._waiting) + len(self._writing)

    def pending_ids(self) -> list[int]:
        """Deliveries whose outcome is not confirmed: still leased to us in the database."""
        return [result.id for result in self._waiting] + [result.id for result in self._writing]

    def put(self, result: Result) -> None:
        """Take an outcome; it is told soon."""
        self._waiting.append(result)
        self._something.set()
        if len(self._waiting) >= self._rows:
            self._full.set()

    async def run(self) -> None:
        """Tell until cancelled; then `flush`."""
        while True:
            await self._something.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._interval_s)
            if not await self._write():
                await self._clock.sleep(0.5)

    async def flush(self, attempts: int = 20) -> bool:
        """Tell all that waits; return whether Postgres confirmed it (else the journal has it)."""
        while self.backlog:
            if not await self._write():
                attempts -= 1
                if attempts <= 0:
                    return False
                await self._clock.sleep(0.25)
        return True

    async def _write(self) -> bool:
        async with self._turn:
            return await self._write_batch()

    async def _write_batch(self) -> bool:
        if not self._writing:
            self._writing, self._waiting = self._waiting, []
            self._full.clear()
            if not self._writing:
                self._something.clear()
                return True
        try:
            async with self._pool.acquire() as connection:
                await self._queue.acknowledge(connection, self._writing)
        except STORE_ERRORS as error:
            self._log.warning(Event.ACK_FAILED, rows=len(self._writing), error=str(error))
            return False
        self._journal.acknowledged(result.id for result in self._writing)
        self._writing = ()
        if not self._waiting:
            self._something.clear()
        elif len(self._waiting) >= self._rows:
            self._full.set()
        return True
