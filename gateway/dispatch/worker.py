"""One connection of a lane: its deliveries one after the other, the next one opened behind the one before.

Owns the session and what is under way on it. While content leaves, the lane is asked for the delivery that is next; its MAIL, RCPT
and DATA go in the same write, and a message costs one round trip. Such a delivery is this connection's as long as the one before it
comes to its end soon; where it does not, the connection ends first or a hold comes, it goes back, for nothing of its content has
left. A receiver that does not bear it is told of to the lane. Must not know when a delivery's moment is (`lane`, `pace`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from gateway.model.delivery import Leased
from gateway.model.disposition import Disposition
from gateway.mta.wire import Session


class Begun(msgspec.Struct, frozen=True):
    """A delivery whose moment has come.

    `at`: when its content may leave; `begun_at`: when it was begun (both monotonic).
    """

    delivery: Leased
    at: float
    begun_at: float


class Line(Protocol):
    """What a connection asks of its lane."""

    @property
    def waiting(self) -> int:
        """Deliveries that have not been begun."""
        ...

    async def open(self) -> Session | None:
        """Give a session, a new one or one that idles; None where nothing waits any more."""
        ...

    async def next(self) -> Begun | None:
        """Wait for the moment of the next delivery; None when it went back instead."""
        ...

    def next_now(self) -> Begun | None:
        """The next delivery, if its moment is now."""
        ...

    def may_go_on(self, begun: Begun) -> bool:
        """Whether what was opened ahead may have its content."""
        ...

    def put_back(self, begun: Begun, *, free: bool) -> None:
        """Take back what was opened ahead and not begun; `free`: this connection takes what is next."""
        ...

    def one_by_one(self) -> None:
        """Give nothing to be opened ahead any more."""
        ...

    async def content_turn(self, begun: Begun) -> None:
        """Wait until content may leave."""
        ...

    def ended(self, begun: Begun, disposition: Disposition | None) -> None:
        """Take note of an attempt's end; None: it was not made."""
        ...


class Sender(Protocol):
    """What a connection asks of the dispatcher."""

    async def send(
        self,
        delivery: Leased,
        session: Session,
        turn: Callable[[], Awaitable[None]],
        ahead: Callable[[], Leased | None],
    ) -> Disposition | None:
        """Make one attempt and record its outcome; return it, or None when it was not begun.

        `turn` is waited for before the content leaves; `ahead` gives the delivery that is next on this session, for which this is
        called next (or `forget`).
        """
        ...

    def forget(self, delivery: Leased) -> None:
        """Take note that what `ahead` gave was not begun after all."""
        ...


class Worker:
    """One connection's work, to be run once."""

    # Mutable on purpose: what is under way.
    def __init__(self, lane: Line, sender: Sender, messages_per_connection: Callable[[], int]) -> None:
        """Take where deliveries come from, what sends them, and after how many a connection is closed, as that is now."""
        self._lane, self._sender, self._per_connection = lane, sender, messages_per_connection
        self._session: Session | None = None
        self._following: Begun | None = None  # opened ahead
        self._let_go = False  # of what was opened ahead: the session's open transaction is nobody's

    async def run(self) -> Session | None:
        """Work until nothing waits; the session, where it may be used again."""
        try:
            while (begun := await self._next()) is not None or self._lane.waiting:
                if begun is not None:
                    await self._send(begun)
        except BaseException:
            if self._session is not None:
                self._session.abort()
            self._drop_following(free=False)
            raise
        if self._fit():
            return self._session
        if self._session is not None:
            self._session.quit()
        return None

    def let_go(self, whether: Callable[[Begun], bool]) -> bool:
        """Give back what was opened ahead, if `whether` says so, though the one before it has not ended; return whether it went.

        The connection then ends with that one.
        """
        if self._following is None or not whether(self._following):
            return False
        self._let_go = True
        self._drop_following(free=False)
        return True

    def _fit(self) -> bool:
        session = self._session
        return (
            session is not None
            and session.usable
            and not self._let_go
            and session.transactions < self._per_connection()
        )

    async def _next(self) -> Begun | None:
        """What is to be sent now, with a session to send it on; None: ask again, while something waits."""
        if (following := self._following) is not None:
            session = self._session
            if (
                session is not None
                and (session.usable or session.refused_ahead)
                and self._lane.may_go_on(following)
            ):
                self._following = None
                return following
            if self._session is not None:
                self._session.abort()  # its transaction is open, and can only be ended so
                self._session = None
            self._drop_following(free=True)
        if not self._lane.waiting:
            return None
        if self._session is not None and not self._fit():
            self._session.quit()
            self._session, self._let_go = None, False
        if self._session is None:
            self._session = await self._lane.open()
            if self._session is None:
                return None
        return await self._lane.next()

    async def _send(self, begun: Begun) -> None:
        session, disposition = self._session, None
        assert session is not None

        async def turn() -> None:
            await self._lane.content_turn(begun)

        try:
            disposition = await self._sender.send(begun.delivery, session, turn, self._ahead)
        finally:
            self._lane.ended(begun, disposition)
        if session.one_by_one:
            self._lane.one_by_one()

    def _ahead(self) -> Leased | None:
        if not self._fit():
            return None
        self._following = self._lane.next_now()
        return self._following.delivery if self._following is not None else None

    def _drop_following(self, *, free: bool) -> None:
        following, self._following = self._following, None
        if following is not None:
            self._sender.forget(following.delivery)
            self._lane.put_back(following, free=free)
