"""F12, F13: the connection ends around the final dot. What the receiver may have is in doubt; what it confirmed is not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.fleet import BULK, TRANSACTIONAL, Fleet

ALWAYS_CUT = """
[[domain]]
name = "cut.test"
always = "dropdot"
"""


def accepts_by_delivery(fleet: Fleet) -> Counter[int]:
    """How often the sink took each delivery."""
    lines = fleet.sink.ledger_path.read_text().splitlines()
    return Counter(int(line.split("\t")[7]) for line in lines if line.startswith("accepted\t"))


@pytest.mark.parametrize("priority", [TRANSACTIONAL, BULK])
async def test_cut_after_the_dot_it_is_in_doubt_and_then_tried_again(
    db: str, tmp_path: Path, priority: int
) -> None:
    async with Fleet(db, tmp_path) as fleet:
        taken = await fleet.submit((f"dropdot.u{i}@d{i % 4}.test" for i in range(10)), priority=priority)
        lost = await fleet.submit((f"lostdot.u{i}@d{i % 4}.test" for i in range(10)), priority=priority)
        others = await fleet.submit(60, domains=4, priority=priority)
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert await fleet.ever_in_doubt() == {*taken, *lost}
        # The receiver had one half of them: those came twice. It did not have the other half: without a retry they were lost.
        assert set(findings.duplicates) == {str(i) for i in taken}
        assert await fleet.ids_in("delivered") == {*taken, *lost, *others}


async def test_cut_each_time_bulk_is_tried_twice_at_most_and_ends_unresolved(db: str, tmp_path: Path) -> None:
    settings = {"doubt": {"transactional_wait_s": 0.1, "bulk_wait_s": 0.1}}
    async with Fleet(db, tmp_path, world=ALWAYS_CUT, settings=settings) as fleet:
        bulk = await fleet.submit((f"b{i}@cut.test" for i in range(5)), priority=BULK, expires_s=4.0)
        urgent = await fleet.submit(
            (f"t{i}@cut.test" for i in range(5)), priority=TRANSACTIONAL, expires_s=4.0
        )
        await fleet.start("here")
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("unresolved") == {*bulk, *urgent}
        tries = accepts_by_delivery(fleet)
        assert {tries[i] for i in bulk} == {2}
        assert min(tries[i] for i in urgent) > 2, "transactional mail is tried until it expires"


async def test_reset_after_the_reply_it_is_delivered_once(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        reset = await fleet.submit(f"resetafter.u{i}@d{i % 4}.test" for i in range(40))
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert await fleet.ids_in("delivered") == set(reset)
        assert findings.duplicates == ()
        assert await fleet.ever_in_doubt() == set()


async def test_a_reply_that_is_none_leaves_it_in_doubt(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        odd = await fleet.submit(f"badreply.u{i}@d{i}.test" for i in range(5))
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert await fleet.ever_in_doubt() == set(odd)
        assert set(findings.duplicates) == {str(i) for i in odd}


async def test_a_silent_receiver_leaves_it_in_doubt_and_other_lanes_alone(db: str, tmp_path: Path) -> None:
    settings = {"dispatch": {"dot_timeout_s": 1.0}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        silent = await fleet.submit(f"hang.u{i}@mute.test" for i in range(5))
        others = await fleet.submit(200, domains=10)
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert await fleet.ever_in_doubt() == set(silent)
        assert set(findings.duplicates) == {str(i) for i in silent}
        assert await fleet.ids_in("delivered") == {*silent, *others}


async def test_cut_before_the_dot_it_is_no_doubt_and_no_duplicate(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        cut = await fleet.submit(f"dropdata.u{i}@d{i % 4}.test" for i in range(8))
        others = await fleet.submit(60, domains=4)
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert await fleet.ever_in_doubt() == set()
        assert findings.duplicates == ()
        assert await fleet.ids_in("delivered") == {*cut, *others}


async def test_a_receiver_that_hangs_up_after_each_message_does_not_make_its_lane_wait(
    db: str, tmp_path: Path
) -> None:
    # An hour of waiting for connection trouble: a lane that were suspended even once would not finish.
    settings = {"retry": {"connection_s": [3_600.0]}, "dispatch": {"connections_per_lane": 2}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        ids = await fleet.submit(f"resetafter.u{i}@d.test" for i in range(60))
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert await fleet.ids_in("delivered") == set(ids)


async def test_a_reply_that_does_not_come_holds_one_connection_and_not_the_lane(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path) as fleet:
        await fleet.submit(["hang.u@d.test"])  # for the ten minutes that RFC 5321 gives a reply to the dot
        await fleet.start("here")
        await fleet.taken(1)
        others = await fleet.submit(["ann@d.test"])

        async def delivered() -> bool:
            return await fleet.ids_in("delivered") == set(others)

        await fleet.until("the next one in the lane is delivered", delivered)
        await fleet.check(settled=False)
