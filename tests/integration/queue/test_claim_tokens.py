"""A claim is the spending of tokens: exact against the Python bucket, and over any number of claimers."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.store import queue
from gateway.store.pool import connect
from gateway.throttle import bucket
from tests.support.queue import Bench

_US = 1e-6
_ZERO = datetime(1970, 1, 1, tzinfo=UTC)


def _stamp(moment: datetime) -> float:
    return (moment - _ZERO) / timedelta(seconds=1)


async def test_the_claim_agrees_with_the_bucket(db: str) -> None:
    """n, the start of the grant and the next `tat` over random rates, bursts, backlogs and gaps; times to a few microseconds."""
    connection = await connect(db)
    bench = Bench(connection)
    [lane] = await bench.lanes()
    flow = await bench.flow(lane)
    rounds = 0

    async def one(rate: float, burst: int, debt_s: float, want: int) -> None:
        nonlocal rounds
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(
                "UPDATE lane_state SET rate_per_s = $1, burst = $2, tat = clock_timestamp() + $3",
                rate / bucket.PACE, burst, timedelta(seconds=debt_s),
            )  # fmt: skip
            before = await bench.lane_state(lane)
            rows = await bench.claim(want, per_lane=want)
            after = await bench.lane_state(lane)
            if rows:
                now = rows[0].claimed_at
                assert rows[0].peak_per_s == pytest.approx(rate / bucket.PACE * bucket.PEAK_PACE)
                wanted = bucket.grant(rate, burst, _stamp(before["tat"]), now, want)
                got = len(rows)
                assert _stamp(after["tat"]) == pytest.approx(wanted.tat, abs=3 * _US + got * _US / 1e3)
                for place in (0, got - 1):
                    planned = bucket.leave_at(place, wanted.t0, rate / bucket.PACE * bucket.PLAN_PACE, burst)
                    assert rows[place].leave_at == pytest.approx(planned, abs=3 * _US)
                assert rows[0].turn_ends == pytest.approx(
                    bucket.turn_ends(wanted.t0, got, rate, burst, now), abs=5 * _US
                )
                assert {row.more for row in rows} == {got < 600}
                asked_at = bucket.token_at(wanted.t0, got, rate, burst)
                early = 0.5 * (max(1.0, rate * bucket.QUANTUM_S) - 1) / rate
                assert _stamp(after["token_at"]) == pytest.approx(
                    max(now + 0.001, asked_at - early), abs=5 * _US
                )
            else:
                # Nothing was taken: by the oracle there was no token either, at any moment of the claim.
                now = _stamp(after["used_at"])
                wanted = bucket.grant(rate, burst, _stamp(before["tat"]), now, want)
                got = 0
                assert after["tat"] == before["tat"]
                assert _stamp(after["token_at"]) > now
            # A token at the edge of the clock's microsecond may count or not.
            t0 = wanted.t0
            exact = rate * (now - t0) + burst + max(1.0, rate * bucket.QUANTUM_S)
            if abs(exact - round(exact)) > 1e-4 * max(1.0, rate * 1e-2):
                assert got == wanted.n
            else:
                assert abs(got - wanted.n) <= 1
            rounds += 1
        finally:
            await transaction.rollback()

    await bench.fill(flow, 600)
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )  # fmt: skip
    @given(
        rate=st.one_of(st.floats(0.01, 50), st.floats(50, 5_000)),
        burst=st.integers(1, 300),
        debt_s=st.floats(-2, 200).map(lambda s: round(s, 6)),
        want=st.integers(1, 500),
    )
    def check(rate: float, burst: int, debt_s: float, want: int) -> None:
        # Debts beyond what the oracle calls honest are drawn too: a clock that went back.
        asyncio.run_coroutine_threadsafe(one(rate, burst, debt_s, want), loop).result()

    await asyncio.to_thread(check)
    assert rounds >= 150
    await connection.close()


async def test_a_lane_without_tokens_is_not_looked_at_until_it_has_one(bench: Bench) -> None:
    [lane] = await bench.lanes(rate=0.1, burst=2)
    await bench.fill(await bench.flow(lane), 20)
    assert len(await bench.take()) == 3  # the burst, and one borrowed
    state = await bench.lane_state(lane)
    assert not state["ready"]
    assert not state["asleep"]
    assert await bench.take() == []
    assert (await bench.lane_state(lane))["used_at"] == state["used_at"]
    await bench.pass_time(9.0)
    assert await bench.take() == []
    await bench.pass_time(1.5)
    assert len(await bench.take()) == 1


async def test_a_throttled_lane_takes_nothing_from_another(bench: Bench) -> None:
    slow, fast = await bench.lanes(2)
    await bench.connection.execute(
        "UPDATE lane_state SET rate_per_s = 0.01, burst = 1 WHERE lane_id = $1", slow
    )
    await bench.fill(await bench.flow(slow), 1_000)
    await bench.fill(await bench.flow(fast), 1_000)
    rows = await bench.claim(1_000, per_lane=998)
    assert [row.lane_id for row in rows].count(slow) == 2
    assert [row.lane_id for row in rows].count(fast) == 998
    assert {row.lane_id for row in await bench.claim(1_000)} == {fast}


async def test_a_new_rate_rescales_the_debt_and_wakes_the_lane(bench: Bench) -> None:
    [lane] = await bench.lanes(rate=1, burst=1)
    await bench.fill(await bench.flow(lane), 20)
    assert len(await bench.take()) == 2
    await queue.set_lane_limits(bench.connection, [queue.LaneLimits(lane, "d0.example", 200.0, 1.0, 5)])
    state = await bench.lane_state(lane)
    assert state["ready"]
    # Two deliveries were owed: two seconds at the old rate, 10 ms at the new one.
    owed = await bench.connection.fetchval(
        "SELECT extract(epoch FROM tat - clock_timestamp()) FROM lane_state WHERE lane_id = $1", lane
    )
    assert float(owed) <= 0.01
    assert len(await bench.take()) == 18  # a quantum of 31 may be borrowed, and no more were there


@pytest.mark.parametrize("rate", [200.0, 2_000.0])
async def test_several_claimers_never_take_twice_nor_more_than_the_rate(db: str, rate: float) -> None:
    """Four claimers on one lane, as fast as they can, for a second and a half."""
    burst, claimers, run_s = 10, 4, 1.5
    connections = [await connect(db) for _ in range(claimers)]
    first = Bench(connections[0])
    [lane] = await first.lanes(rate=rate, burst=burst)
    await first.fill(await first.flow(lane), math.ceil(rate * (run_s + 1)) + 200)
    taken: list[tuple[int, float]] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + run_s

    async def claimer(owner: int) -> None:
        bench = Bench(connections[owner - 1], owner)
        bench.alive = list(range(1, claimers + 1))
        while loop.time() < end:
            for row in await bench.claim(50, per_lane=50):
                if row.id is not None and row.leave_at is not None:
                    taken.append((row.id, max(row.leave_at, row.claimed_at)))
            await asyncio.sleep(0.002)

    await asyncio.gather(*(claimer(owner) for owner in range(1, claimers + 1)))
    assert len({delivery for delivery, _ in taken}) == len(taken)
    # Over every window: no more leave than the rate and the burst allow. leave_at is exact but for the clock's microsecond.
    times = sorted(at for _, at in taken)
    tat = -math.inf
    for at in times:
        assert at >= tat - (burst - 1) / rate - 1e-4, "a delivery was planned before its token"
        tat = max(tat, at) + 1 / rate
    # And the rate is reached: what was not taken was not lost to the claimers' getting in each other's way.
    assert len(taken) >= rate * run_s * 0.9
    for connection in connections:
        await connection.close()


async def test_what_leaves_first_comes_first(bench: Bench) -> None:
    """The order of the rows is the order of leaving, also where flows and priorities are mixed."""
    [lane] = await bench.lanes(rate=204, burst=5)
    bulk_a = await bench.flow(lane, site=1)
    bulk_b = await bench.flow(lane, site=2)
    await bench.fill(bulk_a, 40)
    await bench.fill(bulk_b, 40)
    urgent = await bench.fill(await bench.flow(lane, site=3, priority=0), 4)
    rows = await bench.claim(30)
    assert [row.id for row in rows[:4]] == urgent
    leaves = [row.leave_at for row in rows if row.leave_at is not None]
    assert leaves == sorted(leaves)
    assert len(leaves) == 30


async def test_claims_of_nothing_change_nothing(bench: Bench) -> None:
    await bench.lanes(3)
    before = await bench.connection.fetch("SELECT ctid, * FROM lane_state ORDER BY lane_id")
    assert await bench.claim() == []
    assert await bench.connection.fetch("SELECT ctid, * FROM lane_state ORDER BY lane_id") == before


async def test_a_lane_from_before_the_floor_is_found_by_the_next_look(
    pool: asyncpg.Pool, bench: Bench
) -> None:
    [lane] = await bench.lanes()
    await bench.fill(await bench.flow(lane), 1)
    await bench.connection.execute("UPDATE lane_state SET next_due = now() - interval '1 hour'")
    assert await bench.take(since=datetime.now(UTC) - timedelta(seconds=2)) == []
    assert await bench.connection.fetchval("SELECT ready_floor() <= now() - interval '1 hour'")
    assert len(await bench.take()) == 1
