"""One lane in one dispatcher: its grants paced, its connections, its deliveries one after the other.

Owns when a delivery leaves and over which connection; `Attempt` does the rest. Everything that cannot leave goes back: late
ones, those behind a lane that was refused, those of a held broadcast or site, all of them when the dispatcher drains.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from gateway.clock import Clock
from gateway.dispatch.connections import Connections
from gateway.model.delivery import Granted, Leased
from gateway.model.disposition import Disposition, Outcome
from gateway.mta.wire import Session, SessionFailed
from gateway.throttle.bucket import Pacer

SLACK_S: Final = 0.001
"""How late a timer may be without the pace paying for it: at 1,000/s the loop's millisecond timers lost a third of the rate."""

PATIENCE_S: Final = 0.005
"""First step of the patience with a lane of which nothing leaves in time."""

START_ROWS: Final = 20
"""Deliveries a lane may hold before it has shown that it takes them."""


class Attempts(Protocol):
    """What a lane asks of the dispatcher."""

    clock: Clock

    def may_leave(self, delivery: Leased) -> bool:
        """Whether it may be begun now (not held, not draining)."""
        ...

    async def connect(self, delivery: Leased) -> Session:
        """Open a session towards the delivery's domain. Raises SessionFailed."""
        ...

    async def send(self, delivery: Leased, session: Session) -> Disposition | None:
        """Make one attempt and record its outcome; return it, or None when it was not begun."""
        ...

    def refused(self, delivery: Leased | None, lane: LaneRunner, disposition: Disposition) -> None:
        """Take a refusal that concerns the whole lane; `delivery`: who met it while connecting."""
        ...

    def hopeless(self, delivery: Leased, disposition: Disposition) -> None:
        """Take the word of DNS that nobody takes mail for this delivery's domain; the lane goes on."""
        ...

    @property
    def hand_back(self) -> Callable[[list[Leased]], None]:
        """Gives deliveries back to the queue, untouched."""
        ...

    @property
    def failed(self) -> Callable[[BaseException], None]:
        """Takes an error that is no outcome of an attempt: the dispatcher stops."""
        ...


class LaneRunner:
    """The lane's deliveries and connections in this process."""

    # Mutable on purpose: what is waiting, what is open, what is at work.
    def __init__(self, lane_id: int, host: Attempts, *, max_rows: int, messages_per_connection: int, max_patience_s: float,
                 on_progress: Callable[[], None]) -> None:  # fmt: skip
        self.lane_id = lane_id
        self.refusals = 0  # in a row
        self.refused_until = 0.0
        self.slots = 0
        self._host, self._clock, self._on_progress = host, host.clock, on_progress
        self._max_rows, self._per_connection = max_rows, messages_per_connection
        self._most_connections = max_rows
        self.idle_s = float("inf")
        self._limit = min(START_ROWS, max_rows)
        self._waiting: deque[Leased] = deque()
        self._sending: dict[int, Leased] = {}  # by id: waiting for its moment, or on the wire
        self._idle: list[tuple[Session, float]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._pacer: Pacer | None = None
        self._rate: tuple[float, int] = (0.0, 0)
        self._turn = asyncio.Lock()
        # A process too busy to meet a narrow turn would hand back all of a slow lane's, and claim it again, for ever.
        self._patience_s, self._max_patience_s = 0.0, max_patience_s
        self._late = self._left = 0  # since the last grant

    @property
    def held(self) -> int:
        """Deliveries waiting or at work here."""
        return len(self._waiting) + len(self._sending)

    @property
    def waiting(self) -> int:
        """Deliveries that have not been begun."""
        return len(self._waiting)

    def held_ids(self) -> list[int]:
        """Ids of the deliveries waiting or at work here."""
        return [delivery.id for delivery in self._waiting] + list(self._sending)

    @property
    def room(self) -> int:
        """How many more it may be given."""
        return self._most - self.held if self._clock.monotonic() >= self.refused_until else 0

    @property
    def _most(self) -> int:
        """What it may hold; after a turn that was too short, what left in it and what was on the wire: the rest would go back again."""
        return max(1, min(self._limit, self._left + self.slots)) if self._late else self._limit

    @property
    def quiet(self) -> bool:
        """Whether it has nothing to do and nothing open: it may be dropped."""
        return not self._waiting and not self._workers and not self._idle

    def use(self, connections: Connections) -> None:
        """Keep to these rules from now on; connections that are open beyond them end with their work."""
        self._most_connections, self._per_connection = connections.most, connections.messages
        self.idle_s = connections.idle_s

    def take(self, grant: Granted) -> None:
        """Take deliveries with their limits; workers start as slots allow."""
        if self._pacer is None:
            self._pacer = Pacer(grant.rate_per_s, grant.burst)
        elif self._rate != (grant.rate_per_s, grant.burst):
            self._pacer.set_limits(grant.rate_per_s, grant.burst, self._clock.monotonic())
        self._rate = (grant.rate_per_s, grant.burst)
        self.slots = min(grant.slots, self._most_connections)
        if grant.deliveries:
            if self._late and not self._left:
                self._patience_s = min(max(PATIENCE_S, 2 * self._patience_s), self._max_patience_s)
            elif self._left:
                self._patience_s = self._patience_s / 2 if self._patience_s > PATIENCE_S else 0.0
            self._limit = self._most
            self._late = self._left = 0
        self._waiting.extend(grant.deliveries)
        self._staff()

    def _staff(self) -> None:
        # A worker with a delivery in its hands may wait ten minutes for a reply: the others do not wait with it.
        while len(self._workers) < min(self.slots, len(self._waiting) + len(self._sending)):
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    def give_up(self) -> None:
        """Hand back everything that has not been begun."""
        if self._waiting:
            back = list(self._waiting)
            self._waiting.clear()
            self._host.hand_back(back)

    def drop_held(self) -> None:
        """Hand back what may not leave any more (a hold came)."""
        back = [delivery for delivery in self._waiting if not self._host.may_leave(delivery)]
        if back:
            gone = {delivery.id for delivery in back}
            self._waiting = deque(delivery for delivery in self._waiting if delivery.id not in gone)
            self._host.hand_back(back)

    async def close_idle(self, older_than: float) -> None:
        """Close connections idle since before `older_than` (monotonic)."""
        stale = [session for session, since in self._idle if since <= older_than or not session.usable]
        if stale:
            self._idle = [(session, since) for session, since in self._idle if session not in stale]
            await asyncio.gather(*(session.quit() for session in stale))

    async def finish(self) -> None:
        """Wait until what has been begun is done."""
        while self._workers:
            await asyncio.wait(self._workers)

    def abort(self) -> None:
        """Drop every connection at once."""
        for worker in self._workers:
            worker.cancel()
        for session, _ in self._idle:
            session.abort()
        self._idle = []

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if worker.cancelled():
            return  # aborted: what waits is not begun any more
        if (error := worker.exception()) is not None:
            self._host.failed(error)
        elif self._waiting:
            self._staff()  # something came between its last look and its end

    async def _work(self) -> None:
        session: Session | None = None
        try:
            while self._waiting:
                if session is not None and not (
                    session.usable and session.transactions < self._per_connection
                ):
                    await session.quit()
                    session = None
                    continue  # another worker may have taken the last one meanwhile
                if session is None:
                    session = await self._open()
                    if session is None:
                        return
                delivery = await self._next()
                if delivery is None:
                    continue
                try:
                    disposition = await self._host.send(delivery, session)
                finally:
                    del self._sending[delivery.id]
                    self._on_progress()
                if disposition is None:
                    continue
                if disposition.scope == "lane":
                    self._host.refused(None, self, disposition)
                    self.give_up()
                else:
                    self.refusals = 0
                    self._limit = min(self._limit + 1, self._max_rows)
        except BaseException:
            if session is not None:
                session.abort()
            raise
        if session is not None and session.usable:
            self._idle.append((session, self._clock.monotonic()))

    async def _open(self) -> Session | None:
        while self._idle:
            session, _ = self._idle.pop()
            if session.usable and session.transactions < self._per_connection:
                return session
            session.abort()
        while self._waiting:
            try:
                return await self._host.connect(self._waiting[0])
            except SessionFailed as failure:
                # The one at the head carries the news; the others go back untried.
                first = self._waiting.popleft() if self._waiting else None
                self._on_progress()
                if failure.disposition.outcome is not Outcome.BOUNCED:
                    self._host.refused(first, self, failure.disposition)
                    self.give_up()
                elif first is not None:
                    self._host.hopeless(first, failure.disposition)
        return None

    async def _next(self) -> Leased | None:
        """Wait for the turn of the next delivery, which then counts as sending; None when it went back instead."""
        async with self._turn:
            if not self._waiting or self._pacer is None:
                return None
            delivery = self._waiting.popleft()
            now = self._clock.monotonic()
            at = self._pacer.earliest(delivery.planned_at)
            if not self._may_leave(delivery, max(at, now)):
                self._host.hand_back([delivery])
                self._on_progress()
                return None
            self._sending[delivery.id] = delivery
            while now < at:
                await self._clock.sleep(at - now)
                now = self._clock.monotonic()
            if not self._may_leave(delivery, now):
                del self._sending[delivery.id]
                self._host.hand_back([delivery])
                return None
            self._pacer.sent(max(at, now - SLACK_S))
            self._left += 1
            return delivery

    def _may_leave(self, delivery: Leased, at: float) -> bool:
        """Whether nothing holds it and `at` is within its turn."""
        if at > delivery.late_at + self._patience_s:
            self._late += 1
            return False
        return self._host.may_leave(delivery)
