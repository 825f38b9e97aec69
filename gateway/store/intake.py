"""The door in: messages and their deliveries, accepted in one round trip.

Owns the numbers that ids are made of, and what one submission writes. Must not know HTTP, templates or who asks: what comes
here is checked. What the database does with it is in `sql/migrations/0009_accept.sql` and `0011_submit.sql`.

Flow: numbers from a block → the next group of the site (`store/group_commit`) → lanes and flows from memory → one call, one
transaction (messages, deliveries, stored answers) → after its commit the `Waker` is told. The wake is never part of the
transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.clock import Clock
from gateway.errors import IdempotencyMismatch
from gateway.model.ids import PLACES
from gateway.model.stream import Stream
from gateway.store.catalogue import load
from gateway.store.group_commit import GroupCommit
from gateway.store.lane_map import FlowKey, LaneMap, Target
from gateway.store.pool import Connection, outages_named
from gateway.store.waker import Waker

_SQL = load("intake")
_RESERVE = _SQL.reserve
_SUBMIT = _SQL.submit
_ACCEPT_DELIVERIES = _SQL.accept_deliveries

PREPARED: Final = (_SUBMIT,)
"""What connections of an intake's pool should have met before a request waits for them."""

_MISMATCH: Final = "this Idempotency-Key was used with another request; expected a new key"
_ACQUIRE_TIMEOUT_S: Final = 5.0
_BLOCK: Final = 32
_BLOCK_AGE_S: Final = 5.0


class Deliveries(msgspec.Struct, frozen=True, gc=False):
    """Who gets one message, at most 1,024. The first three go together: wire form, lane's domain, variables as JSON text."""

    recipients: Sequence[str]
    domains: Sequence[str]
    variables: Sequence[str | None]
    due_at: datetime
    expires_at: datetime


class Submission(msgspec.Struct, frozen=True, gc=False):
    """One message, checked.

    `headers` is a JSON object; `template` names what the content was taken from, for people; `attachments` is what
    `pack_attachments` gave.
    """

    domain_id: int
    stream: Stream
    sender: str
    subject: str
    deliveries: Deliveries
    html: str = ""
    text: str = ""
    reply_to: str = ""
    headers: str = "{}"
    template: str = ""
    attachments: bytes = b""


class Once(msgspec.Struct, frozen=True):
    """A request's Idempotency-Key, the digest of what came with it, and the status that is stored with its answer."""

    key: str
    digest: bytes
    status: int


class Accepted(msgspec.Struct, frozen=True):
    """What came of a submission: the answer to give, and the ids of the deliveries that are suppressed.

    The answer is written as if nobody were suppressed: whoever shows it puts that right, now and when it is replayed.
    """

    status: int
    answer: bytes
    suppressed: frozenset[int]
    replayed: bool = False


class Numbers:
    """Numbers of the sequence `acceptance_id`, fetched some at a time."""

    # Mutable on purpose: a block of numbers. What is left of one after 5 s is thrown away, so that ids stay sorted by time.
    def __init__(
        self, pool: asyncpg.Pool, clock: Clock, *, acquire_timeout_s: float = _ACQUIRE_TIMEOUT_S
    ) -> None:
        self._pool, self._clock, self._timeout_s = pool, clock, acquire_timeout_s
        self._block: deque[int] = deque()
        self._fetched_at = clock.monotonic()
        self._fetching = asyncio.Lock()

    async def take(self, count: int) -> list[int]:
        """Return `count` numbers that nobody else has, ascending.

        Raises:
            StoreUnavailable: Postgres went away.
        """
        while True:
            if self._clock.monotonic() - self._fetched_at > _BLOCK_AGE_S:
                self._block.clear()
            if len(self._block) >= count:
                return [self._block.popleft() for _ in range(count)]
            async with self._fetching:
                if len(self._block) >= count:
                    continue
                with outages_named("reserving numbers"):
                    async with self._pool.acquire(timeout=self._timeout_s) as connection:
                        rows = await connection.fetch(_RESERVE, count + _BLOCK)
                self._fetched_at = self._clock.monotonic()
                self._block.extend(row[0] for row in rows)


class _Request(msgspec.Struct, frozen=True):
    """What one caller wants accepted: messages by number, the answer to them, and its key."""

    site_id: int
    messages: Sequence[tuple[int, Submission]]
    accepted_at: datetime
    answer: bytes
    once: Once | None

    @property
    def weight(self) -> int:
        return sum(len(message.deliveries.recipients) for _, message in self.messages)


class Intake:
    """What one process needs to accept deliveries: numbers, lanes, and somebody to wake them."""

    # Mutable on purpose: the keys whose requests are in flight here.
    def __init__(
        self,
        pool: asyncpg.Pool,
        lanes: LaneMap,
        waker: Waker,
        clock: Clock,
        *,
        acquire_timeout_s: float = _ACQUIRE_TIMEOUT_S,
    ) -> None:
        """Take what it works with; who finds no free connection within `acquire_timeout_s` is told that we are unavailable."""
        self._pool, self._lanes, self._waker, self._timeout_s = pool, lanes, waker, acquire_timeout_s
        self.numbers = Numbers(pool, clock, acquire_timeout_s=acquire_timeout_s)
        self._group = GroupCommit[_Request, Accepted](self._commit, lambda request: request.weight)
        self._in_flight: dict[tuple[int, str], tuple[bytes, asyncio.Task[Accepted]]] = {}

    async def submit(
        self,
        site_id: int,
        submissions: Sequence[Submission],
        accepted_at: datetime,
        answer: Callable[[Sequence[int]], bytes],
        once: Once | None,
    ) -> Accepted:
        """Accept messages of one site, all or none; or give what was answered to the same key and body before.

        Args:
            site_id: whose they are.
            submissions: at least one.
            accepted_at: now; what is due later waits.
            answer: makes the answer from the messages' numbers, in the order of `submissions`; message n's delivery at
                place i has the id n * 1024 + i.
            once: the request's Idempotency-Key, if it has one. Of many at the same time one is accepted, the others wait
                for its commit and get its answer.

        Raises:
            IdempotencyMismatch: the key was used with another body.
            StoreUnavailable: Postgres went away; nothing was accepted, or its answer was lost: the key tells.
        """
        if once is None:
            return await self._submit(site_id, submissions, accepted_at, answer, None)
        known = self._in_flight.get((site_id, once.key))
        if known is not None:
            if known[0] != once.digest:
                raise IdempotencyMismatch(_MISMATCH)
            # Shielded: whoever gives up waiting must not end it for the others.
            return msgspec.structs.replace(await asyncio.shield(known[1]), replayed=True)
        task = asyncio.create_task(self._submit(site_id, submissions, accepted_at, answer, once))
        self._in_flight[site_id, once.key] = (once.digest, task)
        task.add_done_callback(lambda _: self._in_flight.pop((site_id, once.key)))
        return await asyncio.shield(task)

    async def _submit(
        self,
        site_id: int,
        submissions: Sequence[Submission],
        accepted_at: datetime,
        answer: Callable[[Sequence[int]], bytes],
        once: Once | None,
    ) -> Accepted:
        numbers = await self.numbers.take(len(submissions))
        messages = list(zip(numbers, submissions, strict=True))
        request = _Request(site_id, messages, accepted_at, answer(numbers), once)
        return await self._group.submit(site_id, request)

    async def _commit(self, requests: Sequence[_Request]) -> list[Accepted]:
        """Accept the requests of one site in one transaction, whose time is that of the last."""
        site_id = requests[0].site_id
        # The urgent first: they are accepted apart.
        entries = sorted(
            (
                (number, message, request.once and request.once.key)
                for request in requests
                for number, message in request.messages
            ),
            key=lambda entry: entry[1].stream.priority,
        )
        messages = [message for _, message, _ in entries]
        rows = await self._rows(site_id, [(number, message) for number, message, _ in entries])
        keyed = sorted(
            ((request.once, request.answer) for request in requests if request.once is not None),
            key=lambda pair: pair[0].key,
        )
        with outages_named("accepting messages"):
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                row = await connection.fetchrow(
                    _SUBMIT,
                    site_id,
                    [once.key for once, _ in keyed],
                    [once.digest for once, _ in keyed],
                    [once.status for once, _ in keyed],
                    [answer for _, answer in keyed],
                    max(request.accepted_at for request in requests),
                    [number for number, _, _ in entries],
                    [key for _, _, key in entries],
                    [m.domain_id for m in messages],
                    [m.stream for m in messages],
                    [m.sender for m in messages],
                    [m.reply_to for m in messages],
                    [m.subject for m in messages],
                    [m.html for m in messages],
                    [m.text for m in messages],
                    [m.headers for m in messages],
                    [m.template for m in messages],
                    [m.attachments for m in messages],
                    sum(len(m.deliveries.recipients) for m in messages if m.stream is Stream.TRANSACTIONAL),
                    *rows.columns,
                    len(requests) == 1,
                )
        assert row is not None, "a function with out parameters gives one row"
        suppressed = frozenset[int](row["suppressed"] or ())
        if row["replayed"]:
            once = requests[0].once
            assert once is not None
            if row["body_hash"] != once.digest:
                raise IdempotencyMismatch(_MISMATCH)
            return [Accepted(row["status"], row["answer"], suppressed, replayed=True)]
        self._waker.wake(rows.lowest)
        return [_accepted(request, suppressed) for request in requests]

    async def _rows(self, site_id: int, messages: Sequence[tuple[int, Submission]]) -> _Rows:
        targets: dict[int, Mapping[str, Target]] = {}
        for priority in {m.stream.priority for _, m in messages}:
            domains = {d for _, m in messages if m.stream.priority == priority for d in m.deliveries.domains}
            targets[priority] = await self._lanes.resolve(FlowKey(site_id, priority), domains)
        rows = _Rows()
        for number, message in messages:
            rows.add(number, message.deliveries, targets[message.stream.priority])
        return rows


def _accepted(request: _Request, suppressed: frozenset[int]) -> Accepted:
    if suppressed:
        own = {number for number, _ in request.messages}
        suppressed = frozenset(id_ for id_ in suppressed if id_ // PLACES in own)
    return Accepted(request.once.status if request.once else 0, request.answer, suppressed)


class _Rows:
    """Deliveries as columns, and the lowest place in each flow."""

    def __init__(self) -> None:
        self.columns: tuple[list[object], ...] = tuple([] for _ in range(8))
        self.lowest: dict[int, int] = {}

    def add(self, number: int, deliveries: Deliveries, targets: Mapping[str, Target]) -> None:
        ids, of, recipients, variables, lanes, flows, due, expires = self.columns
        count = len(deliveries.recipients)
        first = number * PLACES
        places = [targets[domain] for domain in deliveries.domains]
        ids.extend(range(first, first + count))
        of.extend([number] * count)
        recipients.extend(deliveries.recipients)
        variables.extend(deliveries.variables)
        lanes.extend([target.lane_id for target in places])
        flows.extend([target.flow_id for target in places])
        due.extend([deliveries.due_at] * count)
        expires.extend([deliveries.expires_at] * count)
        for place, target in enumerate(places):
            self.lowest.setdefault(target.flow_id, first + place)


async def accept_broadcast(
    connection: Connection,
    key: FlowKey,
    deliveries: Deliveries,
    *,
    message_id: int,
    acceptance: int,
    targets: Mapping[str, Target],
    accepted_at: datetime,
) -> dict[int, int]:
    """Accept one chunk of a broadcast in the caller's transaction; return what to wake after its commit."""
    rows = _Rows()
    rows.add(acceptance, deliveries, targets)
    ids, _, *others = rows.columns
    await connection.execute(
        _ACCEPT_DELIVERIES,
        key.site_id,
        key.broadcast_id,
        key.priority,
        accepted_at,
        ids,
        [message_id] * len(ids),
        *others,
    )
    return rows.lowest
