"""F28: ten thousand for one slow domain, and a hundred for others: the others do not wait. In claims and tokens, not in seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.queue import Bench

SLOW_RATE = 10.0


async def _claims_until_all_left(
    bench: Bench, wanted: set[int], slow: int, *, rounds: int
) -> tuple[int, int]:
    """Claim as a dispatcher with 40 rows in hand does, 50 ms a round; how many claims the wanted took, and what the slow lane gave."""
    left, given = set(wanted), 0
    for claims in range(1, rounds + 1):
        rows = [row for row in await bench.claim(40, per_lane=20) if row.id]
        given += sum(row.lane_id == slow for row in rows)
        left -= {row.id for row in rows if row.id}
        await bench.acknowledge(rows)
        if not left:
            return claims, given
        await bench.lanes_wait(0.05)
    raise AssertionError(f"{len(left)} of {len(wanted)} had not left after {rounds} claims")


@pytest.fixture
async def bench(pool: asyncpg.Pool) -> AsyncIterator[Bench]:
    async with pool.acquire() as connection:
        yield Bench(connection)


async def test_a_slow_domain_s_backlog_delays_nobody_else(bench: Bench) -> None:
    """The others take no more claims than they do alone."""
    [slow] = await bench.lanes(rate=SLOW_RATE, burst=1, prefix="slow")
    others = await bench.lanes(100, prefix="other")

    async def a_hundred() -> set[int]:
        return {(await bench.fill(await bench.flow(lane), 1))[0] for lane in others}

    alone, _ = await _claims_until_all_left(bench, await a_hundred(), slow, rounds=50)
    await bench.fill(await bench.flow(slow), 10_000)
    await bench.take(40)  # its burst is spent
    beside, given = await _claims_until_all_left(bench, await a_hundred(), slow, rounds=50)
    assert beside <= alone * 2
    # And the slow one had no more than its rate, to the token, in the time that passed.
    assert given <= 1 + SLOW_RATE * 0.05 * beside + SLOW_RATE * 0.25


async def test_a_backlog_without_a_limit_leaves_the_others_their_share(bench: Bench) -> None:
    """The large domain is fast: it may fill what nobody else wants, a lane's share of a claim at a time."""
    [large] = await bench.lanes(prefix="large")
    others = await bench.lanes(100, prefix="other")
    await bench.fill(await bench.flow(large), 3_000)
    wanted = {(await bench.fill(await bench.flow(lane), 1))[0] for lane in others}
    claims, given = await _claims_until_all_left(bench, wanted, large, rounds=200)
    # A lane is put behind the others by each claim, and each claim gives it at most 20.
    assert claims <= 60
    assert given <= 20 * claims


async def test_a_suspended_domain_delays_nobody_else(bench: Bench) -> None:
    dead = await bench.lanes(50, prefix="dead")
    for lane in dead:
        await bench.fill(await bench.flow(lane), 20)
    await bench.connection.execute(
        "SELECT suspend_lanes($1, $2, $3)", dead, [600.0] * len(dead), ["connection refused"] * len(dead)
    )
    [alive] = await bench.lanes(prefix="alive")
    ids = await bench.fill(await bench.flow(alive), 20)
    assert await bench.take(40, per_lane=20) == ids
