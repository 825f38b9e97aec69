"""One lane in one dispatcher: its grants paced, its connections, its deliveries one after the other.

Owns when a delivery leaves, how many connections there are, and whether they open one delivery behind another here; `worker` sends over
one of them, `Attempt` does the rest. Everything that cannot leave goes back: late ones, those behind a lane that was refused, those of a
held broadcast or site, all of them when the dispatcher drains.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from gateway.clock import Clock
from gateway.dispatch.connections import Connections
from gateway.dispatch.pace import LEAD_S, LanePace
from gateway.dispatch.worker import Begun, Sender, Worker
from gateway.model.delivery import Granted, Leased
from gateway.model.disposition import Disposition, Outcome
from gateway.mta.wire import Session, SessionFailed

PATIENCE_S: Final = 0.005
"""First step of the patience with a lane of which nothing leaves in time."""

START_ROWS: Final = 20
"""Deliveries a lane may hold before it has shown that it takes them."""

OPENED_S: Final = 5.0
"""How long a delivery waits, opened, for the end of the one before it; then another connection takes it."""

FADING: Final = 0.9
"""What is left of the longest time at a dot after one that took less: some twenty in a row, and it counts for a tenth."""


class Attempts(Sender, Protocol):
    """What a lane asks of the dispatcher."""

    clock: Clock

    def may_leave(self, delivery: Leased) -> bool:
        """Whether it may be begun now (not held, not draining)."""
        ...

    async def connect(self, delivery: Leased) -> Session:
        """Open a session towards the delivery's domain. Raises SessionFailed."""
        ...

    def refused(self, delivery: Leased | None, lane: LaneRunner, disposition: Disposition) -> None:
        """Take a refusal that concerns the whole lane; `delivery`: who met it while connecting."""
        ...

    def hopeless(self, delivery: Leased, disposition: Disposition) -> None:
        """Take the word of DNS that nobody takes mail for this delivery's domain; a held one goes back, and the lane goes on."""
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
        self._sending: dict[int, float] = {}  # by id: when its content left; inf before that
        self._idle: list[tuple[Session, float]] = []
        self._workers: dict[asyncio.Task[None], Worker] = {}
        self._pace, self._turn = LanePace(host.clock), asyncio.Lock()
        # A process too busy to meet a narrow turn would hand back all of a slow lane's, and claim it again, for ever.
        self._patience_s, self._max_patience_s = 0.0, max_patience_s
        self._late = self._left = 0  # since the last grant
        self._dot_s = 0.0  # how long the receiver takes from content to reply: the longest lately
        self._bears_ahead = True

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
        """How many more it may be given; 0 until that is half of what it may hold, so that turns are few and long."""
        most = self._most
        free = most - self.held
        return free if 2 * free >= most and self._clock.monotonic() >= self.refused_until else 0

    @property
    def _most(self) -> int:
        """What it may hold; after a turn that was too short, what left in it and what was on the wire: the rest would go back again.

        A few at its end that were late are jitter: were the turn cut for them, the next, shorter one would be cut the more.
        """
        if self._late <= self._left / 4:
            return self._limit
        return max(1, min(self._limit, self._left + self.slots))

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
        self._pace.set_limits(grant.rate_per_s, grant.burst)
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
            worker = Worker(self, self._host, lambda: self._per_connection)
            task = asyncio.create_task(self._work(worker))
            self._workers[task] = worker
            task.add_done_callback(self._ended)

    def give_up(self) -> None:
        """Hand back everything that has not been begun."""
        if self._waiting:
            back = list(self._waiting)
            self._waiting.clear()
            self._host.hand_back(back)

    def drain(self) -> None:
        """Hand back everything of which no content has left, also what was opened ahead."""
        self._let_go(lambda _: True)
        self.give_up()

    def let_go_of_late(self, begun_before: float) -> None:
        """Take back what was opened ahead before this moment (monotonic): others need not wait with it for a slow reply."""
        if self._let_go(lambda begun: begun.begun_at < begun_before):
            self._dot_s = max(self._dot_s, OPENED_S)  # the one before it has taken that long by now

    def _let_go(self, whether: Callable[[Begun], bool]) -> bool:
        gone = [worker.let_go(whether) for worker in list(self._workers.values())]
        if any(gone):
            self._staff()
        return any(gone)

    def drop_held(self) -> None:
        """Hand back what may not leave any more (a hold came)."""
        self._let_go(lambda begun: not self._host.may_leave(begun.delivery))
        back = [delivery for delivery in self._waiting if not self._host.may_leave(delivery)]
        if back:
            gone = {delivery.id for delivery in back}
            self._waiting = deque(delivery for delivery in self._waiting if delivery.id not in gone)
            self._host.hand_back(back)

    def close_idle(self, older_than: float) -> None:
        """Close connections idle since before `older_than` (monotonic)."""
        stale = [session for session, since in self._idle if since <= older_than or not session.usable]
        if stale:
            self._idle = [(session, since) for session, since in self._idle if session not in stale]
            for session in stale:
                session.quit()

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
        del self._workers[worker]
        if worker.cancelled():
            return  # aborted: what waits is not begun any more
        if (error := worker.exception()) is not None:
            self._host.failed(error)
        elif self._waiting:
            self._staff()  # something came between its last look and its end

    async def _work(self, worker: Worker) -> None:
        session = await worker.run()
        if session is not None:
            self._idle.append((session, self._clock.monotonic()))

    async def open(self) -> Session | None:
        """Give a session, a new one or one that idles; None where nothing waits any more."""
        while self._idle:
            session, _ = self._idle.pop()
            if session.usable and session.transactions < self._per_connection:
                return session
            session.abort()
        while self._waiting:
            asked = self._waiting[0]
            try:
                return await self._host.connect(asked)
            except SessionFailed as failure:
                if failure.disposition.outcome is not Outcome.BOUNCED:
                    # The one at the head carries the news; the others go back untried.
                    self._host.refused(
                        self._waiting.popleft() if self._waiting else None, self, failure.disposition
                    )
                    self.give_up()
                elif asked in self._waiting:
                    # It is the word on its domain alone, and a lane may have several; another worker may have told it by now.
                    self._waiting.remove(asked)
                    self._host.hopeless(asked, failure.disposition)
                self._on_progress()
        return None

    async def next(self) -> Begun | None:
        """Wait until the next delivery may be begun, which then counts as sending; None when it went back instead."""
        async with self._turn:
            if not self._waiting:
                return None
            delivery = self._waiting.popleft()
            now = self._clock.monotonic()
            at = self._pace.earliest(delivery.planned_at)
            if not self._may_leave(delivery, self._pace.content_at(max(at, now))):
                self._host.hand_back([delivery])
                self._on_progress()
                return None
            self._sending[delivery.id] = math.inf
            while now < at - LEAD_S:
                await self._clock.sleep(at - LEAD_S - now)
                now = self._clock.monotonic()
            at = max(at, now)
            if not self._may_leave(delivery, self._pace.content_at(at)):
                del self._sending[delivery.id]
                self._host.hand_back([delivery])
                return None
            return self._begin(delivery, at)

    def next_now(self) -> Begun | None:
        """The next delivery, if its moment is now, and would be behind a dot that takes as long as others did lately.

        Not an urgent one: it would wait for the end of another.
        """
        if not self._bears_ahead or self._dot_s >= OPENED_S or not self._waiting:
            return None
        if self._turn.locked() or (delivery := self._waiting[0]).priority == 0:
            return None
        now = self._clock.monotonic()
        at = self._pace.earliest(delivery.planned_at)
        if now < at - LEAD_S:
            return None
        at = max(at, now)
        if max(self._pace.content_at(at), now + self._dot_s) > delivery.late_at or not self._host.may_leave(
            delivery
        ):
            return None
        self._waiting.popleft()
        self._sending[delivery.id] = math.inf
        return self._begin(delivery, at)

    def _begin(self, delivery: Leased, at: float) -> Begun:
        self._pace.begun(delivery.id, at)
        self._left += 1
        return Begun(delivery, at, self._clock.monotonic())

    def may_go_on(self, begun: Begun) -> bool:
        """Whether what was opened ahead may have its content: nothing holds it or the lane, it is not late, and it has not expired.

        Late is what comes after its turn by more than the patience that a lane may have: to take it back costs a connection.
        """
        delivery, now = begun.delivery, self._clock.monotonic()
        if now > delivery.late_at + self._max_patience_s:
            self._late += 1
            return False
        return now >= self.refused_until and delivery.last_moment > now and self._host.may_leave(delivery)

    def one_by_one(self) -> None:
        """Open nothing ahead here any more: this receiver does not bear it."""
        self._bears_ahead = False

    def put_back(self, begun: Begun, *, free: bool) -> None:
        """Take back what was opened ahead and not begun: to the head of the line, or to the queue where no connection takes it in time.

        `free`: the connection that had it takes what is next.
        """
        delivery, now = begun.delivery, self._clock.monotonic()
        del self._sending[delivery.id]
        self._pace.ended(delivery.id)
        self._left = max(0, self._left - 1)
        in_time = self.refused_until <= now <= delivery.late_at + self._patience_s
        if in_time and (free or len(self._workers) < self.slots) and self._host.may_leave(delivery):
            self._waiting.appendleft(delivery)
        else:
            self._host.hand_back([delivery])

    async def content_turn(self, begun: Begun) -> None:
        """Wait until content may leave."""
        await self._pace.content_turn(begun.delivery.id, begun.at)
        self._sending[begun.delivery.id] = self._clock.monotonic()

    def ended(self, begun: Begun, disposition: Disposition | None) -> None:
        """Take note of an attempt's end; None: it was not made."""
        took_s = self._clock.monotonic() - self._sending.pop(begun.delivery.id)
        if took_s >= 0.0:
            self._dot_s = max(took_s, self._dot_s * FADING)
        self._pace.ended(begun.delivery.id)
        self._on_progress()
        if disposition is None:
            return
        if disposition.scope == "lane":
            self._host.refused(None, self, disposition)
            self.give_up()
        else:
            self.refusals = 0
            self._limit = min(self._limit + 1, self._max_rows)

    def _may_leave(self, delivery: Leased, at: float) -> bool:
        """Whether nothing holds it and `at` is within its turn."""
        if at > delivery.late_at + self._patience_s:
            self._late += 1
            return False
        return self._host.may_leave(delivery)
