"""Transcripts on request: who asks for which, and the lines that dispatchers saw.

Owns both tables and their bounds: an hour, 2,000 lines, ten requests at a time; all of it goes an hour after a request's end.
Lines hold addresses, so no site's key reaches them. What is in a line is the dispatcher's (`dispatch/trace`); must not know
SMTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from gateway.errors import Conflict, NotFound
from gateway.model.delivery import OPEN
from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("traces")

SECONDS_MAX: Final = 3_600
LINES_MAX: Final = 2_000
LINE_BYTES_MAX: Final = 4_096
OPEN_MAX: Final = 10


class Kind(StrEnum):
    """What a transcript is asked of."""

    LANE = "lane"
    MESSAGE = "message"
    DELIVERY = "delivery"


class Request(msgspec.Struct, frozen=True):
    """A transcript that is wanted now: of which lane, message or delivery (`ref`), for how long yet, and how many lines."""

    id: int
    kind: Kind
    ref: int
    left_s: float
    lines_left: int

    def wants(self, lane_id: int, message_id: int, delivery_id: int) -> bool:
        """Whether what is said of this delivery, in this lane, belongs to it; 0 stands for none."""
        match self.kind:
            case Kind.LANE:
                return self.ref == lane_id
            case Kind.MESSAGE:
                return self.ref == message_id
            case Kind.DELIVERY:
                return self.ref == delivery_id


class Line(msgspec.Struct, frozen=True):
    """A line for one request. `direction`: C (we), S (the receiver), * (what happened); `connection` 0: about none."""

    request_id: int
    at: datetime
    connection: int
    delivery_id: int | None
    direction: str
    text: str


class Seen(msgspec.Struct, frozen=True):
    """A line as it was kept; `incarnation` is the dispatcher that saw it."""

    id: int
    at: datetime
    incarnation: int
    connection: int
    delivery_id: int | None
    direction: str
    text: str


class Dispatchers(msgspec.Struct, frozen=True):
    """How many live by their own word, the fleet's tick (a living one moves it), and when the last one began or ended."""

    live: int
    tick: int
    last_at: datetime | None


async def lane_of(connection: Connection, domain: str) -> int:
    """The lane that takes mail for a domain (lower case, A-labels).

    Raises:
        NotFound: there is none.
    """
    with outages_named("looking a lane up"):
        found = await connection.fetchval(_SQL.lane_of_domain, domain)
    if found is None:
        raise NotFound(
            f"no lane for {domain}: nothing was accepted for that domain, or it was idle for a week"
        )
    return int(found)


async def require_message(connection: Connection, message_id: int) -> None:
    """See that there is such a message.

    Raises:
        NotFound: there is none.
    """
    with outages_named("looking a message up"):
        if not await connection.fetchval(_SQL.message_exists, message_id):
            raise NotFound("no such message")


async def require_open(connection: Connection, delivery_id: int) -> None:
    """See that there is such a delivery, and that it may be tried yet.

    Raises:
        NotFound: there is none.
        Conflict: it has ended.
    """
    with outages_named("looking a delivery up"):
        state = await connection.fetchval(_SQL.delivery_state, delivery_id)
    if state is None:
        raise NotFound("no such delivery")
    if state not in OPEN:
        raise Conflict(f"this delivery has ended ({state}): no session will speak of it any more")


async def ask(connection: Connection, kind: Kind, ref: int, seconds: float) -> tuple[int, datetime]:
    """Ask for a transcript; return the request's id and when it was made. What ended an hour ago is removed.

    Raises:
        Conflict: so many are open that no other is taken.
    """
    with outages_named("asking for a transcript"):
        async with connection.transaction():
            await connection.execute(_SQL.asking)
            await reap(connection)
            row = await connection.fetchrow(_SQL.ask, kind, ref, float(seconds), LINES_MAX, OPEN_MAX)
    if row is None:
        raise Conflict(
            f"{OPEN_MAX} transcripts are being taken already: end one (Ctrl-C where it runs), or wait"
        )
    return row["id"], row["asked_at"]


async def end(connection: Connection, request_id: int) -> None:
    """End a request before its time; may be called twice."""
    with outages_named("ending a transcript"):
        await connection.execute(_SQL.end_request, request_id)


async def open_requests(connection: Connection) -> list[Request]:
    """The transcripts that are wanted now."""
    with outages_named("reading which transcripts are wanted"):
        rows = await connection.fetch(_SQL.open_requests, OPEN_MAX)
    return [
        Request(row["id"], Kind(row["kind"]), row["ref"], row["left_s"], row["lines_left"]) for row in rows
    ]


async def write(connection: Connection, incarnation: int, lines: Sequence[Line]) -> None:
    """Keep lines, in this order; those that a request has no room for, and those of a removed one, are left out."""
    with outages_named("keeping a transcript"):
        await connection.execute(
            _SQL.write,
            [line.request_id for line in lines],
            [line.at for line in lines],
            [line.connection for line in lines],
            [line.delivery_id for line in lines],
            [line.direction for line in lines],
            [line.text for line in lines],
            incarnation,
        )


async def read(connection: Connection, request_id: int, after: Mapping[int, int]) -> list[Seen]:
    """Lines of a request that were not read before, by time. `after`: incarnation → highest id that was read of it."""
    with outages_named("reading a transcript"):
        rows = await connection.fetch(_SQL.lines, request_id, list(after), list(after.values()))
    return [Seen(*row) for row in rows]


async def remaining(connection: Connection, request_id: int) -> tuple[float, int]:
    """How many seconds a request lasts yet (below 0: it has ended), and how many more lines it takes."""
    with outages_named("reading a transcript"):
        row = await connection.fetchrow(_SQL.remaining, request_id)
    return (row["left_s"], row["lines_left"]) if row else (0.0, 0)


async def reap(connection: Connection) -> int:
    """Remove the requests that ended an hour ago, and their lines; return how many."""
    with outages_named("removing old transcripts"):
        return await connection.fetchval(_SQL.reap_requests) or 0


async def dispatchers(connection: Connection) -> Dispatchers:
    """What there is of dispatchers."""
    with outages_named("looking for dispatchers"):
        row = await connection.fetchrow(_SQL.dispatchers)
    return Dispatchers(*row) if row else Dispatchers(0, 0, None)
