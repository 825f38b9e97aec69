"""The claim loop: as much as can be used, when it can be used, urgent first.

Owns the lanes of this process, the rows they hold, and what goes back. A claim is made when there is room for a good part of
one, at the latest every poll; an idle queue is polled ever more slowly, up to POLL_MAX_S (half a quantum of borrowed tokens
would last longer). No more waits here than leaves in time (`window`). When acknowledgements fall behind, nothing is claimed.
Suspects (their dispatcher died while they were begun) are tried one at a time with nothing else under way, and other mail leaves
between two of them. Must not know SMTP or SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final

import asyncpg
import msgspec

from gateway.clock import Clock
from gateway.config import DispatchConfig
from gateway.dispatch.attempt import AttemptMaker
from gateway.dispatch.connections import ConnectionRules
from gateway.dispatch.lane import OPENED_S, LaneRunner
from gateway.dispatch.lease import Watch
from gateway.dispatch.outcome import STORE_ERRORS, Acknowledger
from gateway.dispatch.window import Window
from gateway.model.delivery import Granted, Leased
from gateway.mta.journal import Journal
from gateway.store.queue import ClaimLimits, Queue
from gateway.telemetry import Event, Metrics, get_logger

POLL_MIN_S: Final = 0.01
POLL_MAX_S: Final = 0.05
NO_SLOT_WAIT_S: Final = 0.2
URGENT_EVERY_S: Final = 0.01
"""How often urgent mail is asked for while there is no room for other mail: every delivery that ends wakes the loop."""
SUSPECT_ALONE_S: Final = 30.0
"""A suspect that has not ended after this long (a slow receiver) did not crash us while it was made."""
SUSPECT_EVERY_S: Final = 1.0
"""How long other mail leaves between two suspects: each is waited for with everything that is under way."""


class Feeder:
    """Feeds lanes from the queue."""

    # Mutable on purpose: the lanes at work, and what waits to be told.
    def __init__(self, *, pool: asyncpg.Pool, queue: Queue, journal: Journal, watch: Watch, acknowledger: Acknowledger,
                 config: DispatchConfig, clock: Clock, metrics: Metrics, connections: ConnectionRules | None = None) -> None:  # fmt: skip
        self._pool, self._queue, self._journal, self._watch = pool, queue, journal, watch
        self._acknowledger, self._config, self._clock, self._metrics = acknowledger, config, clock, metrics
        self._connections = connections or ConnectionRules(config)
        self._lanes: dict[int, LaneRunner] = {}
        self._without_slot: dict[int, float] = {}  # lane → until when not to ask again
        self._back: list[Leased] = []
        self._suspects: deque[tuple[Granted, Leased]] = deque()
        self._suspect_from = 0.0  # when the next one is tried
        self._progress = asyncio.Event()
        self._window = Window(config.in_flight)
        self._crowded = False  # no room for other than urgent mail
        self._lost_claim = False
        self._lost_at = 0.0
        self._log = get_logger()
        self.attempts: AttemptMaker | None = None  # wired by run: they know each other

    @property
    def held(self) -> int:
        """Deliveries in this process's hands."""
        return sum(lane.held for lane in self._lanes.values())

    def hand_back(self, deliveries: list[Leased]) -> None:
        """Take deliveries that go back to the queue; they are told with the next round."""
        now = self._clock.monotonic()
        # A narrow turn missed by milliseconds says nothing about how fast we are.
        tolerance_s = self._config.late_tolerance_ms / 1000
        self._window.late(sum(max(d.late_at, d.planned_at + tolerance_s) < now for d in deliveries))
        self._back.extend(deliveries)
        self._metrics.handed_back.inc(len(deliveries))
        self._progress.set()

    def retune(self, config: DispatchConfig) -> None:
        """Take changed settings, of which live keys alone differ; lanes keep to them from their next grant on."""
        self._config = config

    def drop_held(self) -> None:
        """Look through what waits after the holds changed."""
        for lane in self._lanes.values():
            lane.drop_held()

    async def run(self, attempts: AttemptMaker, stop: asyncio.Event) -> None:
        """Claim until `stop`."""
        poll_s = POLL_MIN_S
        while not stop.is_set():
            try:
                got = await self._round(attempts)
            except STORE_ERRORS as error:
                self._log.warning(Event.CLAIM_FAILED, error=str(error))
                self._lost_claim, self._lost_at = True, self._clock.monotonic()
                await self._clock.sleep(0.5)
                continue
            if got:
                poll_s = POLL_MIN_S
            elif self._crowded:
                await self._clock.sleep(URGENT_EVERY_S)
            else:
                await self._wait(poll_s)
                poll_s = min(poll_s * 1.5, POLL_MAX_S)
            self._metrics.in_flight.set(self.held)

    async def _round(self, attempts: AttemptMaker) -> bool:
        """Tell what there is to tell, then claim, or try a suspect whose turn it is; return whether more may be there at once."""
        await self._tell()
        if self._suspects and self._clock.monotonic() >= self._suspect_from:
            await self._try_suspect(attempts)
            return True  # what went back is told before more is claimed
        got = await self._claim_once(attempts)
        if not got and not self.held:
            self._suspect_from = 0.0  # nobody waits for the next one
        return got

    async def drain(self, attempts: AttemptMaker, grace_s: float) -> None:
        """Hand back what was not begun, let the rest finish within the grace time, then drop the connections."""
        attempts.draining = True
        for lane in self._lanes.values():
            lane.drain()
        for _, suspect in self._suspects:
            self._back.append(suspect)
        self._suspects.clear()
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(lane.finish() for lane in self._lanes.values()))
                for lane in self._lanes.values():
                    lane.close_idle(self._clock.monotonic())
        except TimeoutError:
            self.abort()
        try:
            async with asyncio.timeout(max(2.0, grace_s / 4)):
                await self._tell(all_slots=True)
        except STORE_ERRORS as error:
            self._log.warning(Event.ACK_FAILED, error=str(error))

    def abort(self) -> None:
        """Drop every connection, now."""
        for lane in self._lanes.values():
            lane.abort()

    async def _claim_once(self, attempts: AttemptMaker) -> bool:
        """One claim, if there is room for one; return whether it gave anything."""
        config = self._config
        if self._acknowledger.backlog > max(config.in_flight, 2 * config.ack_rows) or not attempts.may_claim:
            return False
        if self._lost_claim:
            if not attempts.heard_since(self._lost_at):
                return False  # what answers again may be an older backup: the heartbeat sees that, a claim would not
            async with self._pool.acquire() as connection:
                await self._queue.release_unknown(connection, self._known_ids())
            self._lost_claim = False
        self._window.settle()
        window = self._window.size
        room = min(config.in_flight - self.held, window - sum(lane.waiting for lane in self._lanes.values()))
        self._crowded = urgent_only = room < min(config.claim_rows, window // 2, config.in_flight // 4)
        rows = (
            min(config.claim_rows, room)
            if not urgent_only
            else config.in_flight + config.urgent_reserve - self.held
        )
        if rows <= 0:
            return False
        now = self._clock.monotonic()
        self._without_slot = {lane: until for lane, until in self._without_slot.items() if until > now}
        busy = dict.fromkeys(self._without_slot, 0)
        # No lane takes what the others wait for: behind slow receivers the first few held everything, and handed it back late.
        share = max(4 * config.connections_per_lane, rows // max(1, len(self._lanes)))
        busy.update((lane_id, max(0, min(share, lane.room))) for lane_id, lane in self._lanes.items())
        limits = ClaimLimits(
            rows=rows,
            rows_per_lane=min(config.urgent_reserve, 10) if urgent_only else config.connections_per_lane * 4,
            slots=config.connections_per_lane,
            lanes=config.max_lanes_per_claim,
        )
        async with self._pool.acquire() as connection:
            started = self._clock.monotonic()
            self._lost_claim = True  # until its answer is here
            grants = await self._queue.claim(
                connection, limits, alive=self._watch.alive, busy=busy, urgent_only=urgent_only
            )
            self._lost_claim = False
            self._metrics.claims.inc()
            self._metrics.claim_duration_s.observe(self._clock.monotonic() - started)
        count = sum(len(grant.deliveries) for grant in grants)
        if count >= rows and not urgent_only:
            self._window.filled()
        if count:
            self._metrics.claimed_rows.inc(count)
            try:
                await attempts.load({d.message_id for grant in grants for d in grant.deliveries})
            finally:
                self._hand_out(attempts, grants)
        else:
            self._hand_out(attempts, grants)
        return count > 0

    def _hand_out(self, attempts: AttemptMaker, grants: list[Granted]) -> None:
        for grant in grants:
            if grant.slots <= 0:
                self._without_slot[grant.lane_id] = self._clock.monotonic() + NO_SLOT_WAIT_S
                continue
            clean = [delivery for delivery in grant.deliveries if not delivery.crashes]
            self._suspects.extend((grant, delivery) for delivery in grant.deliveries if delivery.crashes)
            if clean:
                self._lane(attempts, grant.lane_id, clean[0]).take(
                    msgspec.structs.replace(grant, deliveries=clean)
                )

    def _lane(self, attempts: AttemptMaker, lane_id: int, delivery: Leased) -> LaneRunner:
        """The lane of a delivery, which keeps to the rules of its domain from here on."""
        if (lane := self._lanes.get(lane_id)) is None:
            config = self._config
            lane = self._lanes[lane_id] = LaneRunner(
                lane_id,
                attempts,
                max_rows=max(config.in_flight // 2, 1),
                messages_per_connection=config.messages_per_connection,
                max_patience_s=config.late_tolerance_ms / 1000,
                on_progress=self._progress.set,
            )
        lane.use(self._connections.of(delivery.recipient.rpartition("@")[2].lower()))
        return lane

    async def _try_suspect(self, attempts: AttemptMaker) -> None:
        """Finish what is under way, then try one suspect alone; others are claimed for before the next."""
        for lane in self._lanes.values():
            lane.give_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SUSPECT_ALONE_S):
                await asyncio.gather(*(lane.finish() for lane in self._lanes.values()))
        grant, suspect = self._suspects.popleft()
        lane = self._lane(attempts, grant.lane_id, suspect)
        now = self._clock.monotonic()
        alone = msgspec.structs.replace(suspect, planned_at=now, late_at=now + SUSPECT_ALONE_S)
        lane.take(msgspec.structs.replace(grant, deliveries=[alone]))
        try:
            async with asyncio.timeout(SUSPECT_ALONE_S):
                await lane.finish()
            await self._acknowledger.flush()
        except TimeoutError:
            pass  # a slow receiver
        finally:
            self._suspect_from = self._clock.monotonic() + SUSPECT_EVERY_S

    async def _tell(self, *, all_slots: bool = False) -> None:
        """Tell Postgres what went back, which lanes wait, and which slots are free again."""
        assert self.attempts is not None
        if self._back:
            back, self._back = self._back, []
            try:
                async with self._pool.acquire() as connection:
                    await self._queue.release(connection, back)
            except BaseException:
                self._back += back
                raise
            self._journal.acknowledged(delivery.id for delivery in back)
        if waits := self.attempts.suspensions:
            self.attempts.suspensions = {}
            try:
                async with self._pool.acquire() as connection:
                    await self._queue.suspend_lanes(connection, waits)
            except BaseException:
                self.attempts.suspensions = waits | self.attempts.suspensions
                raise
        for lane in [lane for lane in self._lanes.values() if lane.quiet and not lane.slots and lane.room]:
            del self._lanes[lane.lane_id]
        if quiet := [lane for lane in self._lanes.values() if lane.slots and (all_slots or lane.quiet)]:
            async with self._pool.acquire() as connection:
                await self._queue.release_slots(connection, [lane.lane_id for lane in quiet])
            for lane in quiet:
                lane.slots = 0  # a lane that waits after a refusal is kept: it remembers how often

    def tidy(self) -> None:
        """Close connections that idle, and let nothing wait long behind a slow reply; once a second."""
        now = self._clock.monotonic()
        for lane in list(self._lanes.values()):
            lane.close_idle(now - lane.idle_s)
            lane.let_go_of_late(now - OPENED_S)

    def _known_ids(self) -> list[int]:
        known = [delivery.id for delivery in self._back] + self._acknowledger.pending_ids()
        known += [suspect.id for _, suspect in self._suspects]
        for lane in self._lanes.values():
            known += lane.held_ids()
        return known

    async def _wait(self, timeout_s: float) -> None:
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._progress.wait(), timeout_s)
