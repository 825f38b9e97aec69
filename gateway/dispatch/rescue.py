"""Taking over what a dead dispatcher held, with its journal where we have it.

Owns the order: its results first (a 250 it read is never lost), then what was in doubt, its suspects, the rest. All in one
transaction that holds the incarnation's row, so that of several rescuers one works. Idempotent: killed halfway, the next
rescuer finds the same journal and the rows still there.
"""

from __future__ import annotations

from pathlib import Path

import asyncpg

from gateway.dispatch.outcome import Policies
from gateway.model.delivery import Result
from gateway.model.disposition import Disposition, Outcome, Stage
from gateway.mta import journal
from gateway.mta.reply import Judge, Reply
from gateway.store import fleet
from gateway.store.fleet import DoubtPolicy
from gateway.store.queue import Queue
from gateway.telemetry import Event, get_logger

_BATCH = 1_000


class Rescuer:
    """Rescues on behalf of one living dispatcher."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        queue: Queue,
        journal_dir: Path,
        policies: Policies,
        doubt: DoubtPolicy,
        judge: Judge,
    ) -> None:
        self._pool, self._queue, self._journal_dir = pool, queue, journal_dir
        self._policies, self._doubt, self._judge = policies, doubt, judge
        self._log = get_logger()

    def retune(self, doubt: DoubtPolicy) -> None:
        """Treat what is found in doubt from now on by another policy."""
        self._doubt = doubt

    async def bury_the_dead_here(self) -> int:
        """Rescue every incarnation whose journal lies here unlocked: its process is gone. Return how many.

        A journal goes only when the database says that its incarnation is closed: until then another rescuer may need it,
        and one that this database does not know belongs to a database that may come back.
        """
        dead = journal.find_dead(self._journal_dir)
        for incarnation in dead:
            async with self._pool.acquire() as connection:
                await fleet.bury(connection, incarnation)
            await self.take_over(incarnation, has_journal=True)
            async with self._pool.acquire() as connection:
                if await fleet.status(connection, incarnation) == "closed":
                    journal.remove(self._journal_dir, incarnation)
        return len(dead)

    async def take_over(self, incarnation: int, *, has_journal: bool) -> dict[str, int] | None:
        """Rescue one dead incarnation; return rows by the state they came to, None when another has it or had it.

        What its journal knows as answered is told in any case: a 250 counts whoever holds the row now. Its process may still
        stand (stopped, not dead): then what it had begun are no suspects, it did not die of them.
        """
        replayed = (
            journal.replay(self._journal_dir, incarnation) if has_journal else journal.Replay({}, {}, {})
        )
        gone = incarnation in journal.find_dead(self._journal_dir)
        results = [self._result(i, *said) for i, said in replayed.results.items()]
        async with self._pool.acquire() as connection, connection.transaction():
            locked = await fleet.lock_dead(connection, incarnation)
            for start in range(0, len(results), _BATCH):
                await self._queue.acknowledge(connection, results[start : start + _BATCH], owner=incarnation)
            if not locked:
                return None
            moved = await fleet.rescue(
                connection,
                incarnation,
                self._doubt,
                journal=has_journal,
                in_doubt=replayed.in_doubt,
                started=replayed.started if gone else {},
            )
        self._log.warning(
            Event.RESCUE_DONE,
            incarnation=incarnation,
            journal=has_journal,
            results=len(results),
            **{f"rows_{state}": n for state, n in moved.items()},
        )
        return moved

    def _result(self, delivery_id: int, epoch: int, code: int, enhanced: str | None, text: str) -> Result:
        if 200 <= code < 300:
            disposition = Disposition(
                Outcome.DELIVERED,
                self._judge(Reply(250, None, ""), Stage.DOT).bounce_class,
                code,
                enhanced,
                text,
            )
        else:
            disposition = self._judge(Reply(code or 451, enhanced, text), Stage.DOT)
        return self._policies.result_of(
            disposition, delivery_id=delivery_id, epoch=epoch, attempts=0, priority=0
        )
