"""The recipe of one attempt: journal, make, connect, send, judge, tell.

Owns the order of the steps, which is what makes a crash between any two of them harmless:

    TRY to the journal → make the bytes → MAIL, RCPT, DATA → DOT to the journal → lease proven? → content and dot
    → reply to it → RES to the journal → outcome to the acknowledger

Where the next delivery is known before the content leaves, its first two steps are taken then, and END says that it was made; TRY comes
again when it is taken up.

The DOT is written before the lease is asked: a process that was stopped between the two finds itself fenced on waking, and the
journal errs to "in doubt". Must not know SQL or how connections are paced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg

from gateway.clock import Clock
from gateway.config import Config
from gateway.dispatch.content import Contents, Unsendable
from gateway.dispatch.lane import LaneRunner
from gateway.dispatch.lease import Lease, LeaseUnproven
from gateway.dispatch.outcome import STORE_ERRORS, Acknowledger, Policies
from gateway.dispatch.stall import Stalls, TurnPassed
from gateway.dispatch.trace import Traces
from gateway.model.delivery import DeliveryState, Leased, Result
from gateway.model.disposition import BounceClass, Disposition, Outcome, Scope
from gateway.model.lane_why import lane_why
from gateway.mta.connect import open_first
from gateway.mta.journal import Journal
from gateway.mta.mx import MxResolver
from gateway.mta.mx_plan import NoHosts
from gateway.mta.reply import Judge
from gateway.mta.wire import Mail, Session, SessionFailed, Timeouts, TlsPolicy, open_session
from gateway.store.queue import Queue
from gateway.telemetry import Event, Metrics, get_logger

_UNSENDABLE_WAIT_S = 1_800.0
_MOST_ALONE = 10_000


class AttemptMaker:
    """Makes attempts for the lanes of one dispatcher (`lane.Attempts`)."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Clock,
        lease: Lease,
        stalls: Stalls,
        journal: Journal,
        contents: Contents,
        acknowledger: Acknowledger,
        policies: Policies,
        judge: Judge,
        resolver: MxResolver,
        queue: Queue,
        pool: asyncpg.Pool,
        metrics: Metrics,
        traces: Traces,
        hand_back: Callable[[list[Leased]], None],
        failed: Callable[[BaseException], None],
        own_name: str,
    ) -> None:
        self.clock = clock
        self.hand_back = hand_back
        self.failed = failed
        self.draining = False
        self._made: dict[int, tuple[Mail, float]] = {}  # by delivery: made for `ahead`, and when
        self._alone: dict[int, None] = {}  # deliveries that are not opened ahead: that came to nothing before
        self.holds: frozenset[tuple[str, int]] = frozenset()
        self.suspensions: dict[
            int, tuple[float, str]
        ] = {}  # lane → seconds, why; told to Postgres by the feeder
        self._lease, self._stalls, self._journal, self._contents = lease, stalls, journal, contents
        self._resolver, self._judge = resolver, judge
        self._acknowledger, self._policies, self._queue, self._pool = acknowledger, policies, queue, pool
        self._metrics, self._log = metrics, get_logger()
        self._traces = traces
        self._own_name = own_name
        self.retune(config)

    def retune(self, config: Config) -> None:
        """Take the configuration, at the start and again when live keys of it changed; sessions that are open keep theirs."""
        self._route = config.route
        self._helo_name = config.dispatch.helo_name or self._own_name
        self._tls = TlsPolicy(config.dispatch.tls)
        self._timeouts = Timeouts(
            connect_s=config.dispatch.connect_timeout_s,
            banner_s=config.dispatch.banner_timeout_s,
            mail_s=config.dispatch.mail_timeout_s,
            rcpt_s=config.dispatch.rcpt_timeout_s,
            data_s=config.dispatch.data_timeout_s,
            data_block_s=config.dispatch.data_block_timeout_s,
            min_transfer_bytes_per_s=config.dispatch.min_transfer_bytes_per_s,
            dot_s=config.dispatch.dot_timeout_s,
        )

    def may_leave(self, delivery: Leased) -> bool:
        """Whether it may be begun: nothing holds it, we are not draining, and our lease is proven."""
        return (
            not self.draining
            and ("fleet", 0) not in self.holds
            and ("broadcast", delivery.broadcast_id) not in self.holds
            and ("site", delivery.site_id) not in self.holds
            and self._lease.proven
        )

    @property
    def may_claim(self) -> bool:
        """Whether what is claimed could be sent."""
        return not self.draining and self._lease.proven

    def heard_since(self, moment: float) -> bool:
        """Whether the database has confirmed since `moment` (monotonic) that it is the one we know and that we live."""
        return self._lease.renewed_since(moment)

    async def connect(self, delivery: Leased) -> Session:
        """Open a session towards the delivery's domain: where `[route]` says, else to its MX.

        Raises:
            SessionFailed: nobody there, or refused; bounced where DNS says that nobody takes mail for the domain.
        """
        domain = delivery.recipient.rpartition("@")[2].lower()
        trace = self._traces.opening(delivery)
        if (target := self._route.host_port(domain)) is not None:
            return await open_session(
                *target, self._helo_name, self._timeouts, tls=self._tls, judge=self._judge, trace=trace
            )
        found = await self._resolver.resolve(domain)
        if isinstance(found, NoHosts):
            if trace is not None:
                trace("*", f"DNS: {found.disposition.text}".encode())
            raise SessionFailed(found.disposition)
        return await open_first(
            found, self._helo_name, self._timeouts, tls=self._tls, judge=self._judge, trace=trace
        )

    async def load(self, message_ids: set[int]) -> None:
        """Have the messages of these ids at hand."""
        asked = self._contents.missing(message_ids)
        if asked:
            async with self._pool.acquire() as connection:
                rows = await self._queue.messages(connection, asked)
            self._contents.trim()
            self._contents.add(asked, rows)

    async def send(
        self,
        delivery: Leased,
        session: Session,
        turn: Callable[[], Awaitable[None]],
        ahead: Callable[[], Leased | None],
    ) -> Disposition | None:
        """Make one attempt on an open session and record what it came to; None when it could not be begun.

        `turn` is waited for before the content leaves; `ahead` gives the delivery that is next on this session, for which this is
        called next (or `forget`).
        """
        if not self._traces.wanted and session.trace is None:
            return await self._attempt(delivery, session, turn, ahead)
        self._traces.begin(session, delivery)
        try:
            return await self._attempt(delivery, session, turn, None)  # a transcript is of one delivery
        finally:
            self._traces.done(session)

    def forget(self, delivery: Leased) -> None:
        """Note that a delivery which `ahead` gave was not begun after all."""
        self._made.pop(delivery.id, None)

    async def _make(self, delivery: Leased, session: Session) -> Mail | None:
        """The mail of a delivery that may be tried now; else None, and its end is told, or it went back."""
        if ended := self._ended_before(delivery):
            self._tell(ended)
            _note(session, f"not tried: {ended.reply}")
            return None
        try:
            await self.load({delivery.message_id})
        except STORE_ERRORS as error:  # its message was evicted, and Postgres is away
            self.hand_back([delivery])
            _note(session, f"not tried, its message could not be read: {error}")
            return None
        self._journal.tried(delivery.id, delivery.epoch)
        try:
            return self._contents.make(delivery)
        except Unsendable as error:
            self._journal.ended(delivery.id, delivery.epoch)
            self._tell(self._unsendable(delivery, error))
            _note(session, f"not tried: {error}")
            return None

    def _make_ahead(self, ahead: Callable[[], Leased | None]) -> Mail | None:
        """The mail of the delivery that is next; None where there is none, or where `_make` has more to do for it."""
        delivery = ahead()
        if delivery is None or delivery.id in self._alone:
            return None
        if self._contents.missing({delivery.message_id}) or self._ended_before(delivery):
            return None
        self._journal.tried(delivery.id, delivery.epoch)
        try:
            mail = self._contents.make(delivery)
        except Unsendable:
            mail = None
        else:
            self._made[delivery.id] = mail, self.clock.monotonic()
        # Made or not, it has not killed us: while it waits for the one before it, it is no suspect.
        self._journal.ended(delivery.id, delivery.epoch)
        return mail

    async def _attempt(
        self,
        delivery: Leased,
        session: Session,
        turn: Callable[[], Awaitable[None]],
        ahead: Callable[[], Leased | None] | None,
    ) -> Disposition | None:
        if (made := self._made.pop(delivery.id, None)) is not None:
            mail, left_at = made
            self._journal.tried(delivery.id, delivery.epoch)
        else:
            self._alone.pop(delivery.id, None)
            mail = await self._make(delivery, session)
            left_at = self.clock.monotonic()
        if mail is None:
            return None

        dotted = False

        def before_dot() -> None:
            nonlocal dotted
            self._journal.dotted(delivery.id, delivery.epoch)
            dotted = True
            self._lease.require()
            if self._stalls.since(left_at) and self.clock.monotonic() > delivery.late_at:
                raise TurnPassed("this process stood still before the final dot")

        try:
            disposition = await session.transact(
                mail, before_dot, turn, None if ahead is None else partial(self._make_ahead, ahead)
            )
        except (LeaseUnproven, TurnPassed):
            self._journal.ended(delivery.id, delivery.epoch)  # nothing was written after its DOT
            self.hand_back([delivery])
            _note(session, "handed back before the final dot: this process was late")
            return None
        if session.stale:  # closed between two messages: no attempt, and no trouble of the lane
            self._journal.ended(delivery.id, delivery.epoch)
            if made is not None:
                self._alone[delivery.id] = None
                if len(self._alone) > _MOST_ALONE:
                    del self._alone[next(iter(self._alone))]
            self.hand_back([delivery])
            _note(session, "the receiver had hung up: handed back, for another connection")
            return None
        if session.trace is not None:
            _note(session, f"{disposition.outcome} ({disposition.bounce_class}): {disposition.text}")
        self.conclude(delivery, disposition, dotted=dotted)
        return disposition

    def conclude(
        self, delivery: Leased, disposition: Disposition, *, dotted: bool, lane_wait_s: float = 0.0
    ) -> None:
        """Write the outcome to the journal and hand it to the acknowledger.

        The journal keeps replies to the final dot alone: whatever was refused before it may be tried again after a crash, and
        what the reply meant (to a greeting, to MAIL, to RCPT) need not be guessed then.
        """
        if not dotted:
            self._journal.ended(delivery.id, delivery.epoch)
        elif disposition.outcome is not Outcome.IN_DOUBT:
            self._journal.answered(
                delivery.id, delivery.epoch, disposition.code, disposition.enhanced, disposition.text
            )
        self._metrics.dispositions.labels(disposition.outcome, disposition.bounce_class).inc()
        self._tell(
            self._policies.result_of(
                disposition,
                delivery_id=delivery.id,
                epoch=delivery.epoch,
                attempts=delivery.attempts,
                priority=delivery.priority,
                lane_wait_s=lane_wait_s,
            )
        )

    def refused(self, delivery: Leased | None, lane: LaneRunner, disposition: Disposition) -> None:
        """Let a lane wait that was refused as a whole; the delivery that met it waits with it and loses no attempt."""
        now = self.clock.monotonic()
        if now >= lane.refused_until:
            lane.refusals += 1
            wait_s = self._policies.lane_wait(disposition, lane.refusals)
            lane.refused_until = now + wait_s
            self.suspensions[lane.lane_id] = (wait_s, lane_why(disposition))
            self._log.info(
                Event.LANE_SUSPENDED,
                lane=lane.lane_id,
                bounce_class=disposition.bounce_class,
                wait_s=round(wait_s, 1),
                code=disposition.code,
                reply=disposition.text[:200],
            )
        if delivery is not None:
            self._journal.tried(delivery.id, delivery.epoch)
            waits = disposition if disposition.outcome is Outcome.DEFERRED else _as_lane_deferral(disposition)
            self.conclude(delivery, waits, dotted=False, lane_wait_s=max(0.0, lane.refused_until - now))

    def hopeless(self, delivery: Leased, disposition: Disposition) -> None:
        """Conclude a delivery whose domain takes no mail (RFC 7505, NXDOMAIN), unless it would not have been begun."""
        if not self.may_leave(delivery):
            self.hand_back([delivery])
        elif ended := self._ended_before(delivery):
            self._tell(ended)
        else:
            self._journal.tried(delivery.id, delivery.epoch)
            self.conclude(delivery, disposition, dotted=False)

    def _ended_before(self, delivery: Leased) -> Result | None:
        """What ends a delivery before it is begun: a suppression that came meanwhile, or its expiry."""
        if delivery.suppressed:
            return Result(
                delivery.id,
                delivery.epoch,
                DeliveryState.SUPPRESSED,
                counts=False,
                reply="suppressed while it waited",
            )
        if delivery.last_moment <= self.clock.monotonic():
            return Result(delivery.id, delivery.epoch, DeliveryState.EXPIRED, counts=False, reply="expired before it could be sent",
                          bounce_class=BounceClass.EXPIRED)  # fmt: skip
        return None

    def _unsendable(self, delivery: Leased, error: Unsendable) -> Result:
        if error.for_good:
            self._log.error(
                Event.DELIVERY_QUARANTINED, delivery_id=delivery.id, lane=delivery.lane_id, error=str(error)
            )
            return Result(
                delivery.id,
                delivery.epoch,
                DeliveryState.QUARANTINED,
                reply=str(error),
                bounce_class=BounceClass.CONTENT,
            )
        return Result(delivery.id, delivery.epoch, DeliveryState.DEFERRED, counts=False, wait_s=_UNSENDABLE_WAIT_S, reply=str(error),
                      bounce_class=BounceClass.POLICY)  # fmt: skip

    def _tell(self, result: Result) -> None:
        self._acknowledger.put(result)


def _note(session: Session, text: str) -> None:
    """Say in the transcript, where there is one, what became of the delivery."""
    if session.trace is not None:
        session.trace("*", text.encode("utf-8", "backslashreplace"))


def _as_lane_deferral(disposition: Disposition) -> Disposition:
    """A refusal at connect is the lane's: the delivery waits, whatever the code."""
    return Disposition(
        Outcome.DEFERRED,
        disposition.bounce_class,
        disposition.code,
        disposition.enhanced,
        disposition.text,
        Scope.LANE,
    )
