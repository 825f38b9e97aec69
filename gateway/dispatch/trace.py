"""Transcripts that an operator asked for: which sessions are watched in this process, and the lines on their way to Postgres.

Owns who gets which line, and the bounds of what waits here. Sending never waits for it: lines go into a list, and `exchange` writes
them in batches, beside the heartbeat; what finds no room, or no Postgres, is left out and counted. Where nobody asks, no session has
a tracer, and a message costs one look. Must not know SQL, nor what a line means.

A session that is opened while anything is asked for keeps the lines of its opening, so that each delivery which is asked for comes
with the greeting of its own connection, whoever that was opened for.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Final

from gateway.clock import Clock
from gateway.model.delivery import Leased
from gateway.mta.wire import Session
from gateway.store import traces
from gateway.store.pool import Connection
from gateway.store.traces import LINE_BYTES_MAX, Line, Request

BUFFER_LINES: Final = 2_000
"""Lines that wait for Postgres, of all requests together."""

OPENING_LINES: Final = 200
"""Lines that are kept of one session's opening."""

_CUT: Final = "… [cut]"


def printable(line: bytes) -> str:
    """Return a line as text of at most `LINE_BYTES_MAX` octets in UTF-8; what a terminal would obey or not show is escaped."""
    text = line[:LINE_BYTES_MAX].decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    octets = text.encode()
    if len(line) <= LINE_BYTES_MAX and len(octets) <= LINE_BYTES_MAX:
        return text
    return octets[: LINE_BYTES_MAX - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


class Tracer:
    """Watches one session (`mta.channel.Trace`); the addresses tried for it count as one connection."""

    # Mutable on purpose: the delivery that the session speaks of now.
    def __init__(self, owner: Traces, number: int, lane_id: int, opener: Leased | None) -> None:
        self.number, self.lane_id = number, lane_id
        self.opening = opener is not None  # no transaction yet
        self.delivery = opener
        self.kept: list[tuple[datetime, str, str]] | None = [] if opener else None  # None: it was open before
        self.told: set[int] = set()  # requests that have its opening, or know that there is none to see
        self._owner = owner

    def __call__(self, direction: str, line: bytes) -> None:
        """Take a line."""
        self._owner.take(self, direction, printable(line))


class Traces:
    """What is watched in one dispatcher."""

    # Mutable on purpose: what is asked for, and the lines that wait.
    def __init__(self, incarnation: int, clock: Clock) -> None:
        self.wanted = False
        self._incarnation, self._clock = incarnation, clock
        self._requests: list[Request] = []
        self._ends: dict[int, float] = {}  # request → monotonic
        self._left: dict[int, int] = {}  # request → lines
        self._waiting: list[Line] = []
        self._lost: Counter[int] = Counter()
        self._connections = 0

    def opening(self, delivery: Leased) -> Tracer | None:
        """A tracer for a session that is about to be opened for `delivery`; None where nobody asks for anything."""
        return self._tracer(delivery.lane_id, delivery) if self.wanted else None

    def begin(self, session: Session, delivery: Leased) -> None:
        """Watch what `session` says of `delivery`, if somebody asks; call before its transaction."""
        asking = self._asking(delivery.lane_id, delivery)
        tracer = session.trace
        if not self.wanted:
            session.trace = None
            return
        if not isinstance(tracer, Tracer):
            if not asking:
                return
            session.trace = tracer = self._tracer(delivery.lane_id, None)
        tracer.opening, tracer.delivery = False, delivery
        for request in asking:
            if request.id not in tracer.told:
                tracer.told.add(request.id)
                kept = tracer.kept
                if kept is None:
                    before = (
                        f"this connection was open before; it has had {session.transactions} transactions"
                    )
                    kept = [(self._clock.now(), "*", before)]
                for at, direction, text in kept:
                    self._put(Line(request.id, at, tracer.number, None, direction, text))

    def done(self, session: Session) -> None:
        """Take the end of a transaction: what is said now is of no delivery."""
        if isinstance(tracer := session.trace, Tracer):
            tracer.delivery = None

    def take(self, tracer: Tracer, direction: str, text: str) -> None:
        """Take a line of a session."""
        at, delivery = self._clock.now(), tracer.delivery
        if tracer.opening and tracer.kept is not None and len(tracer.kept) < OPENING_LINES:
            tracer.kept.append((at, direction, text))
        delivery_id = delivery.id if delivery is not None and not tracer.opening else None
        for request in self._asking(tracer.lane_id, delivery):
            tracer.told.add(request.id)
            self._put(Line(request.id, at, tracer.number, delivery_id, direction, text))

    async def exchange(self, connection: Connection) -> None:
        """Write what waits, and learn what is asked for.

        Raises:
            StoreUnavailable: what was to be written is lost, and the transcript will say so.
        """
        lines, self._waiting = self._waiting, []
        lost, self._lost = self._lost, Counter()
        try:
            if lines or lost:
                await traces.write(connection, self._incarnation, [*lines, *self._gaps(lost)])
        except BaseException:
            self._lost += lost + Counter(line.request_id for line in lines)
            raise
        found = await traces.open_requests(connection)
        now = self._clock.monotonic()
        self._ends = {request.id: now + request.left_s for request in found}
        said = Counter(line.request_id for line in self._waiting)  # meanwhile
        self._left = {request.id: request.lines_left - said[request.id] for request in found}
        self._watch(found)

    def expire(self) -> None:
        """Forget requests whose time is up; for when Postgres is away and cannot say so."""
        now = self._clock.monotonic()
        self._watch([request for request in self._requests if self._ends[request.id] > now])

    def _watch(self, requests: list[Request]) -> None:
        self._requests, self.wanted = requests, bool(requests)

    def _tracer(self, lane_id: int, opener: Leased | None) -> Tracer:
        self._connections += 1
        return Tracer(self, self._connections, lane_id, opener)

    def _asking(self, lane_id: int, delivery: Leased | None) -> list[Request]:
        message_id, delivery_id = (delivery.message_id, delivery.id) if delivery is not None else (0, 0)
        return [
            request for request in self._requests if request.wants(lane_id, message_id, delivery_id)
        ]  # no id is 0

    def _put(self, line: Line) -> None:
        left = self._left[line.request_id]
        if left <= 0:
            return
        if len(self._waiting) >= BUFFER_LINES:
            self._lost[line.request_id] += 1
            return
        self._left[line.request_id] = left - 1
        self._waiting.append(line)

    def _gaps(self, lost: Counter[int]) -> list[Line]:
        now = self._clock.now()
        return [
            Line(
                request_id,
                now,
                0,
                None,
                "*",
                f"lines missing here: {count} (Postgres did not take them in time)",
            )
            for request_id, count in lost.items()
        ]
