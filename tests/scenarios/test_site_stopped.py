"""The kill switch on the wire: a site that is held while it is sent to many is off the wire within a second, and nothing is lost.

What is counted is what the sink took; at a known rate that says how long it took.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.store import sites
from gateway.throttle.shaping import Limits
from tests.support.fleet import Fleet

RATE = 100.0
IN_HAND = 20


@pytest.mark.slow
async def test_a_held_site_is_off_the_wire_within_a_second_and_goes_on_when_released(
    db: str, tmp_path: Path
) -> None:
    limits = Limits(rate_per_s=RATE, burst=5, max_connections=4)
    settings = {
        "dispatch": {"in_flight": IN_HAND, "claim_rows": IN_HAND, "urgent_reserve": 2, "heartbeat_s": 1.0}
    }
    async with Fleet(db, tmp_path, settings=settings, limits=limits) as fleet:
        await fleet.submit([f"u{i}@big.test" for i in range(500)])
        await fleet.start("here")
        await fleet.taken(100)
        async with fleet.pool.acquire() as connection:
            assert await sites.hold_site(connection, fleet.site_id, "stop")
        before = fleet.ledger().accepts
        await fleet.heartbeats(2)
        after = fleet.ledger().accepts
        # A second's worth, and what the sink took while the ledger was read.
        assert after - before <= RATE * 1.0 + IN_HAND
        await fleet.heartbeats(2)
        assert fleet.ledger().accepts == after
        async with fleet.pool.acquire() as connection:
            assert await sites.release_site(connection, fleet.site_id)
            await sites.wake_site(connection, fleet.site_id)
        await fleet.settled()
        await fleet.check()
