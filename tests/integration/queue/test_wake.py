"""Nothing sleeps that should not: wakes against claims, the sweep for what no wake came for, floors and out-of-order ids."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import asyncpg

from gateway.store.pool import connect
from tests.support.queue import Bench


async def _quiet(connections: list[asyncpg.Connection]) -> None:
    for connection in connections:
        await connection.close()


async def test_rows_woken_while_they_are_claimed_are_never_stranded(db: str) -> None:
    """Three submitters and three claimers over six lanes for two seconds; then claims alone must find every row.

    No sweep runs. With a claim of one statement, or a wake that looks before it locks, some rows stay behind.
    """
    lanes_count, run_s = 6, 2.0
    submitting = [await connect(db, settings={"synchronous_commit": "off"}) for _ in range(3)]
    claiming = [await connect(db, settings={"synchronous_commit": "off"}) for _ in range(3)]
    benches = [Bench(c, i + 1) for i, c in enumerate(claiming)]
    lanes = await benches[0].lanes(lanes_count)
    flows = [await benches[0].flow(lane, site=site) for lane in lanes for site in (1, 2)]
    accepted = 0
    taken: set[int] = set()
    loop = asyncio.get_running_loop()
    end = loop.time() + run_s

    async def submit(index: int) -> None:
        nonlocal accepted
        bench, dice = Bench(submitting[index]), random.Random(index)
        while loop.time() < end:
            made = {
                flow: await bench.fill(flow, 1, wake=False)
                for flow in dice.sample(flows, dice.choice((1, 1, 2)))
            }
            accepted += len(made)
            await bench.wake(list(made), [ids[0] for ids in made.values()])
            await asyncio.sleep(dice.random() * 0.002)

    async def claim(bench: Bench) -> None:
        bench.alive = [1, 2, 3]
        empty = 0
        while empty < 20:
            ids = await bench.take(50, slots=1)
            assert not taken.intersection(ids)
            taken.update(ids)
            if ids:
                empty = 0
            elif loop.time() < end:
                await asyncio.sleep(0.001)
            else:
                empty += 1

    await asyncio.gather(*(submit(i) for i in range(3)), *(claim(bench) for bench in benches))
    left = await claiming[0].fetchval("SELECT count(*) FROM queue WHERE state = 'queued'")
    assert accepted > 100
    assert (left, len(taken)) == (0, accepted)
    assert await claiming[0].fetchval("SELECT count(*) FROM lane_state WHERE next_due <> 'infinity'") == 0
    await _quiet([*submitting, *claiming])


async def test_a_row_committed_between_the_locks_and_the_look_is_seen_or_woken(db: str) -> None:
    """A claim that is just putting a lane to sleep holds the lane: a wake waits for it, and is not lost."""
    claimer, submitter = await connect(db), await connect(db)
    bench = Bench(claimer)
    [lane] = await bench.lanes()
    flow = await bench.flow(lane)
    await bench.fill(flow, 1)
    transaction = claimer.transaction()
    await transaction.start()
    assert len(await bench.take()) == 1  # and, not committed yet, the lane sleeps
    other = Bench(submitter)
    [late] = await other.fill(flow, 1, wake=False)
    waking = asyncio.create_task(other.wake([flow], [late]))
    while not await claimer.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
        await asyncio.sleep(0.005)
    await transaction.commit()
    await waking
    assert await bench.take() == [late]
    await _quiet([claimer, submitter])


async def test_a_wake_of_several_lanes_takes_them_in_order(db: str) -> None:
    """Wakes over the same lanes, named in every order, at once: no deadlock."""
    connections = [await connect(db) for _ in range(4)]
    first = Bench(connections[0])
    lanes = await first.lanes(30)
    flows = [await first.flow(lane) for lane in lanes]

    async def wake_all(connection: asyncpg.Connection, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(40):
            some = dice.sample(flows, len(flows))
            await Bench(connection).wake(some, [0] * len(some))
            await connection.execute(
                "UPDATE lane_state SET next_due = 'infinity' WHERE lane_id = $1", dice.choice(lanes)
            )

    await asyncio.gather(*(wake_all(c, i) for i, c in enumerate(connections)))
    await _quiet(connections)


async def test_ids_that_commit_out_of_order_are_all_taken(bench: Bench) -> None:
    """A younger acceptance commits, is claimed, and moves the floor above an older one, which then commits."""
    [lane] = await bench.lanes()
    flow = await bench.flow(lane)
    old = await bench.fill(flow, 3, wake=False)
    await bench.connection.execute("UPDATE queue SET state = 'held'")  # as if its transaction were still open
    young = await bench.fill(flow, 3)
    assert await bench.take() == young
    await bench.connection.execute("UPDATE queue SET state = 'queued' WHERE state = 'held'")
    await bench.wake([flow], [old[0]])
    assert await bench.take() == old


async def test_the_sweep_finds_a_row_whose_wake_never_came(bench: Bench) -> None:
    [lane] = await bench.lanes()
    ids = await bench.fill(await bench.flow(lane), 2, wake=False)
    assert await bench.take() == []
    assert await bench.connection.fetchval("SELECT sweep()") == 1
    assert await bench.take() == ids


async def test_the_sweep_finds_a_floor_that_is_too_high(bench: Bench) -> None:
    [lane] = await bench.lanes()
    flow = await bench.flow(lane)
    ids = await bench.fill(flow, 2)
    await bench.connection.execute("UPDATE flow SET floor = $1", ids[1] + 1)
    assert await bench.take() == []
    assert await bench.connection.fetchval("SELECT sweep()") == 1
    assert await bench.take() == ids


async def test_the_sweep_finds_an_urgent_flow_in_a_lane_not_marked_urgent(bench: Bench) -> None:
    [lane] = await bench.lanes()
    ids = await bench.fill(await bench.flow(lane, priority=0), 1)
    await bench.connection.execute("UPDATE lane_state SET urgent = false")
    assert await bench.take(urgent_only=True) == []
    assert await bench.connection.fetchval("SELECT sweep()") == 1
    assert await bench.take(urgent_only=True) == ids


async def test_the_sweep_leaves_alone_what_is_awake_or_held(bench: Bench) -> None:
    a, b, c = await bench.lanes(3)
    await bench.fill(await bench.flow(a, site=1), 1)
    await bench.fill(await bench.flow(b, site=2), 1, wake=False)
    await bench.fill(await bench.flow(c, site=3, broadcast=9), 1, wake=False)
    await bench.hold("site", 2)
    await bench.hold("broadcast", 9)
    assert await bench.connection.fetchval("SELECT sweep()") == 0
    # A hold that has run out holds nothing back.
    await bench.connection.execute("UPDATE hold SET until_at = now() - interval '1 s' WHERE kind = 'site'")
    assert await bench.connection.fetchval("SELECT sweep()") == 1
    assert len(await bench.take()) == 2


async def test_one_sweep_mends_orphans_of_a_reaped_flow(bench: Bench) -> None:
    """A process still remembers a flow that was reaped: its rows get a new one, and it is awake at once."""
    [lane] = await bench.lanes()
    flow = await bench.flow(lane, site=4, broadcast=8)
    ids = await bench.fill(flow, 5)
    await bench.connection.execute("DELETE FROM flow")
    assert await bench.take() == []
    assert await bench.connection.fetchval("SELECT sweep()") == 1
    rows = await bench.claim()
    assert [row.id for row in rows] == ids
    new = await bench.connection.fetchrow("SELECT * FROM flow")
    assert new["id"] != flow
    assert (new["lane_id"], new["site_id"], new["broadcast_id"], new["priority"]) == (lane, 4, 8, 1)


async def test_one_sweep_mends_orphans_of_a_reaped_lane(bench: Bench) -> None:
    """The lane is gone too: the rows go to the lane that their domain has now, or to a new one."""
    gone, other = await bench.lanes(2)
    flow = await bench.flow(gone, site=4)
    ids = await bench.fill(flow, 3, domain="d1.example") + await bench.fill(flow, 2, domain="New.Example")
    await bench.connection.execute("DELETE FROM flow")
    await bench.connection.execute("DELETE FROM lane_state WHERE lane_id = $1", gone)
    await bench.connection.execute("DELETE FROM lane WHERE id = $1", gone)
    assert await bench.take() == []
    assert await bench.connection.fetchval("SELECT sweep()") == 2
    rows = await bench.claim()
    assert sorted(row.id for row in rows if row.id) == ids
    by_lane = dict(await bench.connection.fetch("SELECT lane_id, domain FROM domain_lane"))
    assert {row.id: by_lane[row.lane_id] for row in rows} == dict.fromkeys(
        ids[:3], "d1.example"
    ) | dict.fromkeys(ids[3:], "new.example")
    assert other in by_lane


async def test_reaping_takes_idle_flows_and_lanes_but_nothing_that_waits(bench: Bench) -> None:
    """A delivery scheduled for next month keeps its flow and its lane."""
    idle, waiting, ready = await bench.lanes(3)
    await bench.flow(idle)
    [scheduled] = await bench.fill(
        await bench.flow(waiting), 1, due_in_s=30 * 86_400, expires_in_s=31 * 86_400, wake=False
    )
    [queued] = await bench.fill(await bench.flow(ready), 1, wake=False)
    await bench.connection.execute("UPDATE flow SET used_at = now() - interval '40 days'")
    await bench.connection.execute("UPDATE lane_state SET used_at = now() - interval '40 days'")
    for _ in range(2):
        await bench.connection.fetchval("SELECT reap($1, $2, 100)", timedelta(days=1), timedelta(days=7))
    left = {row[0] for row in await bench.connection.fetch("SELECT lane_id FROM lane_state")}
    assert left == {waiting, ready}
    assert {row[0] for row in await bench.connection.fetch("SELECT id FROM lane")} == left
    assert {row[0] for row in await bench.connection.fetch("SELECT lane_id FROM flow")} == left
    await bench.pass_time(30 * 86_400 + 1)
    await bench.connection.fetch("SELECT promote(100, 0)")
    await bench.connection.fetchval("SELECT sweep()")
    assert sorted(await bench.take()) == sorted([scheduled, queued])


async def test_a_new_wake_brings_a_reaped_lane_s_domain_back(bench: Bench) -> None:
    [lane] = await bench.lanes()
    await bench.connection.execute("UPDATE lane_state SET used_at = now() - interval '40 days'")
    assert await bench.connection.fetchval("SELECT reap($1, $1, 100)", timedelta(days=7)) == 1
    [again] = await bench.lanes()
    assert again != lane
    ids = await bench.fill(await bench.flow(again), 1)
    assert await bench.take() == ids
