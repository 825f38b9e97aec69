"""Group commit: requests that arrive while a transaction is in flight share the next one.

Owns the waiting and the sharing. Must not know what a request is. One at a time costs a round trip, a plan and a flush to disk
each; 32 single submitters fill groups of a dozen by themselves, and a lone one waits for nobody.

A group stands or falls together. Where it falls by anything but an outage, its requests are tried again one by one, so that each
meets its own fate.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from gateway.errors import StoreUnavailable

R = TypeVar("R")
A = TypeVar("A")


class GroupCommit(Generic[R, A]):
    """Shares transactions between requests with the same key (a site: a transaction sees one)."""

    # Mutable on purpose: queues of requests that wait for the next group.
    def __init__(
        self,
        commit: Callable[[Sequence[R]], Awaitable[Sequence[A]]],
        weigh: Callable[[R], int],
        *,
        weight: int = 2_000,
        parallel: int = 2,
    ) -> None:
        """Take what commits a group and gives an answer for each of its requests.

        Args:
            commit: all of the group or nothing; of a group of one, what it raises is the request's.
            weigh: how heavy a request is.
            weight: of a group, unless one request alone is heavier.
            parallel: groups of one key that may be in flight.
        """
        self._commit, self._weigh, self._weight, self._parallel = commit, weigh, weight, parallel
        self._waiting: dict[Hashable, deque[tuple[R, asyncio.Future[A]]]] = {}
        self._running: dict[Hashable, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, key: Hashable, request: R) -> A:
        """Have a request committed, with others or alone; raises what its own commit raised."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, deque())
        waiting.append((request, future))
        if self._running.get(key, 0) < self._parallel:
            self._running[key] = self._running.get(key, 0) + 1
            task = asyncio.create_task(self._work(key), name="group commit")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self, key: Hashable) -> None:
        waiting = self._waiting[key]
        while waiting:
            group = self._take(waiting)
            await self._settle(group)
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key], self._waiting[key]

    def _take(self, waiting: deque[tuple[R, asyncio.Future[A]]]) -> list[tuple[R, asyncio.Future[A]]]:
        group = [waiting.popleft()]
        weight = self._weigh(group[0][0])
        while waiting and weight + self._weigh(waiting[0][0]) <= self._weight:
            group.append(waiting.popleft())
            weight += self._weigh(group[-1][0])
        return group

    async def _settle(self, group: Sequence[tuple[R, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._commit([request for request, _ in group])
        except Exception as error:
            if len(group) > 1 and not isinstance(error, StoreUnavailable):
                for one in group:
                    await self._settle([one])
                return
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(group, answers, strict=True):
            if not future.done():  # its caller may have gone meanwhile
                future.set_result(answer)
