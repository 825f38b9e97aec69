"""F4: a machine is gone with its journals. Nobody can say what it had sent: all it held is in doubt, and told so."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleet import BULK, TRANSACTIONAL, Fleet

SETTINGS = {
    "dispatch": {
        "lease_s": 1.5,
        "heartbeat_s": 0.2,
        "late_tolerance_ms": 60_000,
    },  # nothing goes back as too late
    "doubt": {"transactional_wait_s": 0.2, "bulk_wait_s": 0.4},
}


async def test_what_a_lost_host_held_is_in_doubt_and_then_tried_again(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "40"), settings=SETTINGS) as fleet:
        urgent = await fleet.submit((f"u{i}@t{i % 5}.test" for i in range(200)), priority=TRANSACTIONAL)
        bulk = await fleet.submit((f"u{i}@b{i % 15}.test" for i in range(600)), priority=BULK)
        lost = await fleet.start("lost")
        await fleet.taken(150)
        await lost.kill()
        held = await fleet.ids_in("leased")
        assert len(held) >= 100
        fleet.lose_host("lost")

        await fleet.start("other", "--journal-grace-s", "0.3")
        await fleet.settled()
        findings = await fleet.check()
        assert await fleet.ever_in_doubt() == held
        assert set(findings.duplicates) <= {str(i) for i in held}
        assert await fleet.ids_in("delivered") == {*urgent, *bulk}


async def test_a_dead_host_that_keeps_its_journal_is_waited_for(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "40"), settings=SETTINGS) as fleet:
        ids = await fleet.submit(400, domains=10)
        dead = await fleet.start("rebooting")
        await fleet.taken(100)
        await dead.kill()
        (replayed,) = fleet.dead_journals("rebooting").values()

        await fleet.start("other")  # leaves a dead host JOURNAL_GRACE_S to come back

        async def called_dead() -> bool:
            rows = await fleet.rows("SELECT status FROM incarnation WHERE pid = $1", dead.pid)
            return rows[0]["status"] == "dead"

        await fleet.until("its silence was noticed", called_dead)
        await fleet.heartbeats(4)
        await fleet.start("rebooting")
        await fleet.settled()
        await fleet.check()
        assert await fleet.ever_in_doubt() == replayed.in_doubt.keys()
        assert await fleet.ids_in("delivered") == set(ids)
