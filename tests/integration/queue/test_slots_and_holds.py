"""What keeps a claim away: connection slots of the fleet, credit, suspended lanes, holds."""

from __future__ import annotations

import asyncio

import asyncpg

from gateway.store.pool import connect
from tests.support.queue import Bench


async def _fleet(db: str, size: int) -> list[Bench]:
    benches = [Bench(await connect(db), owner) for owner in range(1, size + 1)]
    for bench in benches:
        bench.alive = list(range(1, size + 1))
    return benches


async def _close(benches: list[Bench]) -> None:
    for bench in benches:
        await bench.connection.close()


def _slots(state: asyncpg.Record) -> dict[int, int]:
    slots = state["slots"]
    return dict(zip(slots[::2], slots[1::2], strict=True))


async def test_four_dispatchers_never_have_more_slots_than_the_lane_allows(db: str) -> None:
    """They claim, want 1 to 4 connections each, and give slots up, all at once; after each claim the sum is looked at."""
    benches = await _fleet(db, 4)
    lanes = await benches[0].lanes(3, connections=3)
    for lane in lanes:
        await benches[0].fill(await benches[0].flow(lane), 1_000)
    seen: list[int] = []
    refused = 0

    async def work(bench: Bench) -> None:
        nonlocal refused
        for round_number in range(40):
            wanted = 1 + (round_number + bench.owner) % 4
            rows = await bench.claim(30, per_lane=4, slots=wanted)
            refused += sum(row.id is None for row in rows)
            for row in rows:
                assert (row.slots > 0) == (row.id is not None)
            for state in await bench.connection.fetch("SELECT slots FROM lane_state"):
                slots = _slots(state)
                seen.append(sum(slots.values()))
                assert sum(slots.values()) <= 3
                assert all(n > 0 for n in slots.values())
            if round_number % 5 == bench.owner:
                await bench.connection.execute("SELECT release_slots($1, $2)", bench.owner, lanes)

    await asyncio.gather(*(work(bench) for bench in benches))
    assert max(seen) == 3
    assert refused
    await _close(benches)


async def test_who_has_a_slot_keeps_it_and_the_next_waits_until_it_is_given_up(db: str) -> None:
    a, b = await _fleet(db, 2)
    [lane] = await a.lanes(connections=2)
    await a.fill(await a.flow(lane), 100)
    assert {row.slots for row in await a.claim(5)} == {2}
    refusal = await b.claim(5)
    assert [(row.id, row.lane_id, row.slots) for row in refusal] == [(None, lane, 0)]
    assert len(await a.take(5)) == 5
    await a.connection.execute("SELECT release_slots($1, $2)", a.owner, [lane])
    assert len(await b.take(5, slots=1)) == 5
    assert {row.slots for row in await a.claim(5)} == {1}
    assert _slots(await a.lane_state(lane)) == {1: 1, 2: 1}
    await _close([a, b])


async def test_slots_of_a_dead_incarnation_are_void(db: str) -> None:
    a, b = await _fleet(db, 2)
    [lane] = await a.lanes(connections=1)
    await a.fill(await a.flow(lane), 100)
    assert len(await a.take(5)) == 5
    assert await b.take(5) == []
    b.alive = [2]
    assert len(await b.take(5)) == 5
    assert _slots(await a.lane_state(lane)) == {2: 1}
    await _close([a, b])


async def test_a_claim_that_finds_nothing_takes_no_slot(bench: Bench) -> None:
    """Its rows were cancelled meanwhile: nobody would ever give that slot back."""
    [lane] = await bench.lanes(connections=1)
    flow = await bench.flow(lane)
    await bench.fill(flow, 3)
    await bench.connection.execute("UPDATE queue SET state = 'held'")
    assert await bench.claim() == []
    assert _slots(await bench.lane_state(lane)) == {}


async def test_a_claim_without_a_slot_spends_no_token(db: str) -> None:
    a, b = await _fleet(db, 2)
    [lane] = await a.lanes(rate=1, burst=10, connections=1)
    await a.fill(await a.flow(lane), 100)
    await a.take(2)
    before = (await a.lane_state(lane))["tat"]
    assert await b.take(2) == []
    assert (await a.lane_state(lane))["tat"] == before
    await _close([a, b])


async def test_a_busy_lane_gives_no_more_than_its_credit(bench: Bench) -> None:
    full, half, free = await bench.lanes(3)
    for lane in (full, half, free):
        await bench.fill(await bench.flow(lane), 100)
    rows = await bench.claim(100, per_lane=20, busy={full: 0, half: 7})
    taken = {lane: sum(row.lane_id == lane for row in rows) for lane in (full, half, free)}
    assert taken == {full: 0, half: 7, free: 20}
    assert (await bench.lane_state(full))["ready"]


async def test_a_claim_never_gives_more_than_asked_for(bench: Bench) -> None:
    for lane in await bench.lanes(8):
        await bench.fill(await bench.flow(lane), 50)
    for total in (1, 7, 60, 100):
        assert len(await bench.take(total, per_lane=20)) == total


async def test_a_suspended_lane_is_not_looked_at_until_its_time_is_up(bench: Bench) -> None:
    a, b = await bench.lanes(2)
    for lane in (a, b):
        await bench.fill(await bench.flow(lane), 5)
    await bench.connection.execute("SELECT suspend_lanes($1, $2, $3)", [a], [30.0], ["421 too many"])
    await bench.connection.execute("SELECT suspend_lanes($1, $2, $3)", [a], [5.0], ["421 again"])
    assert {row.lane_id for row in await bench.claim()} == {b}
    state = await bench.lane_state(a)
    assert state["suspended_why"] == "421 again"
    await bench.wake([await bench.flow(a)], [0])
    assert await bench.take() == []
    await bench.pass_time(29.0)  # the longer suspension counts
    assert await bench.take() == []
    await bench.pass_time(1.1)
    assert len(await bench.take()) == 5


async def test_a_held_broadcast_stops_at_once_and_goes_on_where_it_was(bench: Bench) -> None:
    [lane] = await bench.lanes()
    held = await bench.flow(lane, broadcast=7)
    other = await bench.flow(lane, site=2)
    ids = await bench.fill(held, 10)
    await bench.fill(other, 5)
    assert (await bench.take(2, per_lane=2))[0] == ids[0]
    await bench.hold("broadcast", 7)
    assert {row.flow_id for row in await bench.claim()} == {other}
    assert await bench.take() == []
    assert (await bench.lane_state(lane))["asleep"]
    await bench.unhold("broadcast", 7)
    assert await bench.take() == []  # nobody woke it yet
    assert await bench.connection.fetchval("SELECT wake_held(7, 0)") == 1
    assert await bench.take() == ids[1:]


async def test_a_held_site_stops_in_every_lane(bench: Bench) -> None:
    lanes = await bench.lanes(3)
    for lane in lanes:
        await bench.fill(await bench.flow(lane, site=1), 2)
        await bench.fill(await bench.flow(lane, site=1, priority=0), 1)
        await bench.fill(await bench.flow(lane, site=2), 2)
    await bench.hold("site", 1)
    assert {row.site_id for row in await bench.claim()} == {2}
    assert await bench.take() == []
    await bench.unhold("site", 1)
    assert await bench.connection.fetchval("SELECT wake_held(0, 1)") == 6
    rows = await bench.claim()
    assert [row.site_id for row in rows] == [1] * 9
    assert await bench.connection.fetchval("SELECT count(*) FROM lane_state WHERE urgent") == 0


async def test_a_hold_on_the_fleet_stops_everything_and_wakes_by_itself(bench: Bench) -> None:
    [lane] = await bench.lanes()
    ids = await bench.fill(await bench.flow(lane), 2)
    await bench.fill(await bench.flow(lane, priority=0), 1)
    await bench.hold("fleet")
    assert await bench.take() == []
    assert await bench.take(urgent_only=True) == []
    await bench.unhold("fleet")
    assert (await bench.take())[1:] == ids


async def test_a_hold_that_has_run_out_holds_nothing(bench: Bench) -> None:
    [lane] = await bench.lanes()
    ids = await bench.fill(await bench.flow(lane, broadcast=7), 2)
    await bench.hold("broadcast", 7)
    await bench.connection.execute("UPDATE hold SET until_at = now() - interval '1 s'")
    assert await bench.take() == ids


async def test_a_hold_lifted_while_a_claim_is_under_way_strands_nothing(db: str) -> None:
    """The claim is held up at the lane's lock; by the time it has it, the hold is gone and was woken: it must see that."""
    claimer, operator, blocker = [await connect(db) for _ in range(3)]
    bench = Bench(claimer)
    [lane] = await bench.lanes()
    ids = await bench.fill(await bench.flow(lane, broadcast=7), 3)
    await bench.hold("broadcast", 7)
    # A trigger that waits stands in for a slow moment inside the claim, after its locks.
    await operator.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ begin perform pg_advisory_xact_lock(1); return new; end $$;"
        "CREATE TRIGGER wait BEFORE UPDATE ON flow FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    await blocker.execute("SELECT pg_advisory_lock(1)")
    claiming = asyncio.create_task(bench.take())
    while not await operator.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    ):
        await asyncio.sleep(0.005)
    await operator.execute("DELETE FROM hold")
    waking = asyncio.create_task(operator.fetchval("SELECT wake_held(7, 0)"))
    while not await blocker.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'wake_held'"
    ):
        await asyncio.sleep(0.005)
    await blocker.execute("SELECT pg_advisory_unlock(1)")
    assert await claiming == []
    assert await waking == 1
    assert await bench.take() == ids
    await operator.execute("DROP FUNCTION wait CASCADE")
    for connection in (claimer, operator, blocker):
        await connection.close()
