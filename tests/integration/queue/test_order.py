"""Who goes first: urgent lanes, urgent flows, then fair shares between sites."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.queue import Bench


async def test_an_urgent_lane_goes_before_a_hundred_lanes_of_bulk(bench: Bench) -> None:
    lanes = await bench.lanes(101)
    for lane in lanes[:100]:
        await bench.fill(await bench.flow(lane), 20)
    [urgent] = await bench.fill(await bench.flow(lanes[100], priority=0), 1)
    rows = await bench.claim(50, per_lane=10)
    assert urgent in {row.id for row in rows}
    assert len({row.lane_id for row in rows}) == 5  # and the rest of the claim is for bulk, by lane


async def test_urgent_goes_first_inside_a_lane(bench: Bench) -> None:
    [lane] = await bench.lanes(rate=100, burst=1)
    await bench.fill(await bench.flow(lane, site=1), 500)
    urgent = await bench.fill(await bench.flow(lane, site=1, priority=0), 3)
    assert (await bench.take(10))[:3] == urgent


async def test_a_claim_for_the_urgent_reserve_takes_only_urgent_rows_and_leaves_the_lane_awake(
    bench: Bench,
) -> None:
    [lane] = await bench.lanes()
    bulk = await bench.fill(await bench.flow(lane), 5)
    urgent = await bench.fill(await bench.flow(lane, priority=0), 3)
    # A lane at work here, without room for bulk, still takes what is urgent.
    assert await bench.take(10, per_lane=2, busy={lane: 0}, urgent_only=True) == urgent[:2]
    assert await bench.take(10, per_lane=2, busy={lane: 0}, urgent_only=True) == urgent[2:]
    assert await bench.take(10, per_lane=2, urgent_only=True) == []
    assert await bench.take() == bulk


@pytest.mark.parametrize("grant", [20, 100])
async def test_ten_behind_a_hundred_thousand_are_done_within_twenty_and_a_grant(
    bench: Bench, grant: int
) -> None:
    """The large site has been at it for a while; the small one comes, and does not wait for it."""
    [lane] = await bench.lanes()
    big = await bench.flow(lane, site=1)
    await bench.fill(big, 10_000)
    await bench.connection.execute("UPDATE flow SET vtag = 90000")
    await bench.connection.execute("UPDATE lane_state SET vtime = '{0,89999}'")
    for _ in range(5):
        assert len(await bench.take(grant, per_lane=grant)) == grant
    small = set(await bench.fill(await bench.flow(lane, site=2), 10))
    order: list[int] = []
    while small - set(order):
        order += await bench.take(grant, per_lane=grant)
        assert len(order) <= 1_000
    last = max(order.index(delivery) for delivery in small)
    assert last < 20
    assert len(order) <= 20 + grant


async def test_equal_flows_share_equally_and_weights_count(bench: Bench) -> None:
    [lane] = await bench.lanes()
    flows = [await bench.flow(lane, site=site) for site in (1, 2)]
    heavy = await bench.flow(lane, site=3, weight=3.0)
    for flow in (*flows, heavy):
        await bench.fill(flow, 1_000)
    got: Counter[int] = Counter()
    for _ in range(10):
        got.update(row.flow_id for row in await bench.claim(50, per_lane=50) if row.flow_id)
    assert got.total() == 500
    assert abs(got[flows[0]] - 100) <= 3
    assert abs(got[flows[1]] - 100) <= 3
    assert abs(got[heavy] - 300) <= 6


async def test_a_heavy_flow_has_its_share_among_many(bench: Bench) -> None:
    [lane] = await bench.lanes()
    light = [await bench.flow(lane, site=site) for site in range(1, 11)]
    heavy = await bench.flow(lane, site=99, weight=10.0)
    for flow in (*light, heavy):
        await bench.fill(flow, 400)
    got: Counter[int] = Counter()
    for _ in range(10):
        got.update(row.flow_id for row in await bench.claim(60, per_lane=60) if row.flow_id)
    assert abs(got[heavy] - 300) <= 15


async def test_more_flows_than_a_claim_looks_at_all_get_their_turn(bench: Bench) -> None:
    [lane] = await bench.lanes()
    flows = [await bench.flow(lane, site=site) for site in range(1, 61)]
    for flow in flows:
        await bench.fill(flow, 30)
    got: Counter[int] = Counter()
    for _ in range(30):
        got.update(row.flow_id for row in await bench.claim(40, per_lane=40) if row.flow_id)
    assert got.total() == 1_200
    assert len(got) == 60
    assert max(got.values()) - min(got.values()) <= 6


async def test_a_newcomer_does_not_overtake_beside_a_site_that_trickles(bench: Bench) -> None:
    """A large site works, another has a mail now and then; a third comes with many: the first keeps its half.

    With a virtual time that the trickle held back, the third went alone until it had caught up with hours of work.
    """
    [lane] = await bench.lanes()
    large, trickle = await bench.flow(lane, site=1), await bench.flow(lane, site=2)
    await bench.fill(large, 3_000)
    for _ in range(20):
        await bench.fill(trickle, 1)
        assert len(await bench.take(50, per_lane=50)) == 50
    newcomer = await bench.flow(lane, site=3)
    await bench.fill(newcomer, 1_000)
    got: Counter[int] = Counter()
    for _ in range(4):
        await bench.fill(trickle, 1)
        got.update(row.flow_id for row in await bench.claim(50, per_lane=50) if row.flow_id)
    assert got.total() == 200
    assert got[trickle] == 4
    assert abs(got[large] - got[newcomer]) <= 8


async def test_priorities_have_virtual_times_of_their_own(bench: Bench) -> None:
    """Urgent mail that a site sent in quantity does not push its bulk back, nor the other way."""
    [lane] = await bench.lanes()
    urgent = await bench.flow(lane, site=1, priority=0)
    await bench.fill(urgent, 400)
    assert len(await bench.take(400, per_lane=400)) == 400
    mine, theirs = await bench.flow(lane, site=1), await bench.flow(lane, site=2)
    await bench.fill(mine, 100)
    await bench.fill(theirs, 100)
    got = Counter(row.flow_id for row in await bench.claim(40, per_lane=40))
    assert got == {mine: 20, theirs: 20}


async def test_released_rows_keep_their_place_and_retries_go_first(bench: Bench) -> None:
    [lane] = await bench.lanes()
    flow = await bench.flow(lane)
    ids = await bench.fill(flow, 12)
    first = await bench.claim(4, per_lane=4)
    await bench.claim(4, per_lane=4)
    assert await bench.release(first[:2]) == 2
    assert await bench.acknowledge(first[2:3], "deferred", wait_s=0.0, code=451) == 1
    await bench.connection.fetch("SELECT promote(10, 0)")
    order = await bench.take(10)
    assert sorted(order[:3]) == ids[:3]
    assert order[3:] == ids[8:]
