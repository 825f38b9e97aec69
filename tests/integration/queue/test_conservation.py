"""The books balance after every step of any history: a state machine of submitters, dispatchers that die, and upkeep.

After each step: accepted = open + ended, each id once, the tallies are the records. What was once told as delivered stays so.
At the end of each history everything that is open can still be brought to its end: nothing is stuck.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gateway.store import fleet
from gateway.store.books import read_books
from gateway.store.pool import connect
from tests.support.queue import EMPTY, Bench, Row

OWNERS = 3
ENDS = ("delivered", "bounced", "suppressed", "expired", "quarantined")
WAITS = ("deferred", "in_doubt")
POLICY = fleet.DoubtPolicy(transactional_wait_s=5.0, bulk_wait_s=20.0)
_some = st.integers(0, 10**6)


def test_the_books_balance_after_every_step_of_any_history(shared_db: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        connection = runner.run(connect(shared_db))

        class History(RuleBasedStateMachine):
            """Each rule is one call, by whoever would make it."""

            @initialize()
            def begin(self) -> None:
                self.do(self._begin())

            async def _begin(self) -> None:
                await connection.execute(EMPTY)
                self.bench = Bench(connection)
                lanes = await self.bench.lanes(2, connections=4)
                self.flows = [
                    await self.bench.flow(lanes[0], site=1), await self.bench.flow(lanes[0], site=2, priority=0),
                    await self.bench.flow(lanes[0], site=2, broadcast=7), await self.bench.flow(lanes[1], site=1, broadcast=7),
                ]  # fmt: skip
                self.owners = [await self.bench.incarnation() for _ in range(OWNERS)]
                self.held: dict[int, list[Row]] = {owner: [] for owner in self.owners}
                self.known: list[tuple[int, Row]] = []  # every lease there ever was
                self.accepted = 0
                self.delivered: set[int] = set()

            def do(self, what: Any) -> Any:
                return runner.run(what)

            def at(self, owner: int) -> Bench:
                bench = Bench(connection, self.owners[owner])
                bench.alive = self.owners
                return bench

            # -- in ------------------------------------------------------------------------------------------------------

            @rule(flow=st.integers(0, 3), n=st.integers(1, 6), wake=st.booleans(), due_s=st.sampled_from([0, 0, 30]),
                  expires_s=st.sampled_from([40, 1_000]))  # fmt: skip
            def accept(self, flow: int, n: int, wake: bool, due_s: int, expires_s: int) -> None:
                fill = self.bench.fill(self.flows[flow], n, wake=wake, due_in_s=due_s, expires_in_s=expires_s)
                self.accepted += len(self.do(fill))

            # -- out -----------------------------------------------------------------------------------------------------

            @rule(owner=st.integers(0, OWNERS - 1), n=st.integers(1, 8), urgent=st.booleans())
            def claim(self, owner: int, n: int, urgent: bool) -> None:
                rows = [
                    row for row in self.do(self.at(owner).claim(n, per_lane=n, urgent_only=urgent)) if row.id
                ]
                assert not {row.id for row in rows} & self.delivered
                self.held[self.owners[owner]] += rows
                self.known += [(self.owners[owner], row) for row in rows]

            @rule(
                owner=st.integers(0, OWNERS - 1), n=st.integers(1, 5), state=st.sampled_from([*ENDS, *WAITS])
            )
            def acknowledge(self, owner: int, n: int, state: str) -> None:
                held = self.held[self.owners[owner]]
                rows, held[:] = held[:n], held[n:]
                self._tell(owner, rows, state, self.owners[owner])

            @rule(
                which=_some,
                state=st.sampled_from(["delivered", "delivered", "bounced", "deferred", "in_doubt"]),
            )
            def tell_again_or_late(self, which: int, state: str) -> None:
                if self.known:
                    owner, row = self.known[which % len(self.known)]
                    self._tell(0, [row], state, owner)

            def _tell(self, owner: int, rows: list[Row], state: str, told_by: int) -> None:
                if rows:
                    before = self.do(self.bench.states())
                    took = self.do(self.at(owner).acknowledge(rows, state, owner=told_by, wait_s=5.0))
                    after = self.do(self.bench.states())
                    assert took <= len(rows)
                    if state == "delivered":
                        assert after.get(state, 0) - before.get(state, 0) == took
                        self.delivered |= {
                            i for row in rows if (i := row.id) and self.do(self.bench.state_of(i)) == state
                        }
                    elif took == 0:
                        assert after == before

            @rule(owner=st.integers(0, OWNERS - 1), n=st.integers(1, 5))
            def release(self, owner: int, n: int) -> None:
                held = self.held[self.owners[owner]]
                rows, held[:] = held[:n], held[n:]
                self.do(self.at(owner).release(rows))

            @rule(owner=st.integers(0, OWNERS - 1), keep=st.integers(0, 3))
            def release_unknown(self, owner: int, keep: int) -> None:
                held = self.held[self.owners[owner]]
                del held[keep:]
                self.do(
                    connection.fetchval(
                        "SELECT release_unknown($1, $2)", self.owners[owner], [row.id for row in held]
                    )
                )

            @rule(
                owner=st.integers(0, OWNERS - 1),
                journal=st.booleans(),
                doubts=st.integers(0, 3),
                begun=st.integers(0, 3),
            )
            def die(self, owner: int, journal: bool, doubts: int, begun: int) -> None:
                self.do(self._die(owner, journal, doubts, begun))

            async def _die(self, owner: int, journal: bool, doubts: int, begun: int) -> None:
                dead = self.owners[owner]
                rows = [(row.id, row.epoch or 0) for row in self.held.pop(dead) if row.id]
                await fleet.bury(connection, dead)
                await fleet.rescue(
                    connection,
                    dead,
                    POLICY,
                    journal=journal,
                    in_doubt=dict(rows[:doubts]),
                    started=dict(rows[doubts : doubts + begun]),
                )
                assert await connection.fetchval("SELECT count(*) FROM queue WHERE owner_id = $1", dead) == 0
                self.owners[owner] = await self.bench.incarnation()
                self.held[self.owners[owner]] = []

            # -- upkeep --------------------------------------------------------------------------------------------------

            @rule(seconds=st.sampled_from([3, 25, 400]))
            def time_passes(self, seconds: int) -> None:
                self.do(self.bench.pass_time(seconds))

            @rule(limit=st.integers(1, 10))
            def promote(self, limit: int) -> None:
                self.do(connection.fetch("SELECT promote($1, 0)", limit))

            @rule(limit=st.integers(1, 10))
            def expire(self, limit: int) -> None:
                assert self.do(connection.fetchval("SELECT expire_ready($1, 0)", limit)) <= limit

            @rule()
            def sweep(self) -> None:
                self.do(connection.fetchval("SELECT sweep()"))

            @rule(on=st.booleans())
            def pause(self, on: bool) -> None:
                if on:
                    self.do(
                        connection.execute(
                            "INSERT INTO hold (kind, ref, why) VALUES ('broadcast', 7, 'paused') ON CONFLICT DO NOTHING"
                        )
                    )
                else:
                    self.do(self.bench.unhold("broadcast", 7))
                    self.do(connection.fetchval("SELECT wake_held(7, 0)"))

            @rule(limit=st.integers(1, 4))
            def cancel(self, limit: int) -> None:
                self.do(connection.fetchval("SELECT cancel_broadcast_rows(7, $1, 0)", limit))

            # -- always --------------------------------------------------------------------------------------------------

            @invariant()
            def the_books_balance(self) -> None:
                books = self.do(read_books(connection, deep=True))
                assert not books.faults(), books.faults()
                assert books.overall.accepted == self.accepted

            @invariant()
            def delivered_stays_delivered(self) -> None:
                found = self.do(
                    connection.fetchval(
                        "SELECT count(*) FROM ended WHERE id = ANY ($1) AND state = 'delivered'",
                        list(self.delivered),
                    )
                )
                assert found == len(self.delivered)

            def teardown(self) -> None:
                if hasattr(self, "bench"):
                    self.do(self._everything_comes_to_its_end())

            async def _everything_comes_to_its_end(self) -> None:
                await self.bench.unhold("broadcast", 7)
                for index in range(OWNERS):
                    await self._die(index, journal=True, doubts=0, begun=0)
                await connection.execute("SELECT wake_held(7, 0)")
                for _ in range(4):
                    await connection.fetchval("SELECT sweep()")
                    while rows := [row for row in await self.at(0).claim(50) if row.id]:
                        assert await self.at(0).acknowledge(rows) == len(rows)
                    await self.bench.pass_time(500)
                    await connection.fetch("SELECT promote(1000, 0)")
                assert await connection.fetchval("SELECT count(*) FROM queue") == 0
                assert await connection.fetchval("SELECT count(*) FROM ended") == self.accepted

        run_state_machine_as_test(
            History,
            settings=settings(
                max_examples=14, stateful_step_count=20, deadline=None, database=None, derandomize=True, print_blob=False,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
        runner.run(connection.close())
