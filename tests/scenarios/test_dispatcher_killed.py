"""F1, F5: a dispatcher is killed with its hands full, or between any two steps of an attempt; another one finishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dispatcher_process import MOMENTS
from tests.support.fleet import Fleet


async def test_killed_with_hundreds_in_flight_nothing_is_lost(db: str, tmp_path: Path) -> None:
    # Nothing goes back as too late, so that it takes as much as it may.
    settings = {"dispatch": {"in_flight": 500, "claim_rows": 500, "late_tolerance_ms": 60_000}}
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "40"), settings=settings) as fleet:
        ids = await fleet.submit(1_200, domains=30)
        first = await fleet.start("here")
        await fleet.taken(200)
        await first.kill()
        held = await fleet.ids_in("leased")
        assert len(held) >= 200, "it should have died with its hands full"
        (replayed,) = fleet.dead_journals("here").values()
        assert replayed.in_doubt, "it should have died between dots and their replies"

        second = await fleet.start("here")
        await fleet.settled()
        assert await second.terminate() == 0
        findings = await fleet.check()

        assert await fleet.ids_in("delivered") == set(ids)
        # Every duplicate stood between dot and reply when the process died, and the books had said so before.
        between = {str(i) for i in replayed.in_doubt}
        assert set(findings.duplicates) <= between
        assert await fleet.ever_in_doubt() == replayed.in_doubt.keys()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_between_any_two_steps_all_arrive_and_doubts_are_told(
    db: str, tmp_path: Path, moment: str
) -> None:
    settings = {"dispatch": {"in_flight": 60, "claim_rows": 40, "connections_per_lane": 3}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        ids = await fleet.submit(200, domains=5)
        first = await fleet.start("here", "--die-at", f"{moment}:60")
        assert await first.ended() == -9
        (replayed,) = fleet.dead_journals("here").values()

        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()

        assert await fleet.ids_in("delivered") == set(ids)
        doubts = await fleet.ever_in_doubt()
        assert set(findings.duplicates) <= {str(i) for i in doubts}
        assert doubts == replayed.in_doubt.keys()
        assert len(doubts) <= 5 * 3, "a connection has at most one message between its dot and the reply"


@pytest.mark.parametrize("moment", ["answered", "acknowledging", "acknowledged"])
async def test_killed_between_reply_and_acknowledgement_nothing_is_sent_twice(
    db: str, tmp_path: Path, moment: str
) -> None:
    # One connection, so that nothing else stands between its dot and the reply; and acknowledgements in large heaps.
    settings = {"dispatch": {"connections_per_lane": 1, "ack_interval_ms": 1_000, "ack_rows": 150}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        ids = await fleet.submit(300, domains=1)
        first = await fleet.start("here", "--die-at", f"{moment}:120")
        assert await first.ended() == -9
        (replayed,) = fleet.dead_journals("here").values()
        assert len(replayed.results) >= 120

        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()

        assert await fleet.ids_in("delivered") == set(ids)
        doubts = await fleet.ever_in_doubt()
        assert len(doubts) <= 1
        assert not set(findings.duplicates) - {str(i) for i in doubts}
        if moment == "answered":
            assert findings.duplicates == ()
