"""F2: SIGTERM. A dispatcher claims nothing more, finishes what it has begun within its grace time, and leaves nothing behind."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.fleet import Fleet


async def test_told_to_stop_it_finishes_what_it_began_and_hands_back_the_rest(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "40")) as fleet:
        ids = await fleet.submit(1_500, domains=20)
        first = await fleet.start("here")
        await fleet.taken(150)
        assert await first.terminate() == 0

        assert await fleet.ids_in("leased") == set()
        assert len(await fleet.ids_in("queued")) >= 200, "it should have stopped in the middle"
        # What it had begun it finished: the sink's ledger and the books agree to the letter, with nothing in doubt.
        findings = await fleet.check()
        assert findings.accepts == findings.delivered == len(await fleet.ids_in("delivered"))
        assert await fleet.ever_in_doubt() == set()
        (incarnation,) = await fleet.rows("SELECT status FROM incarnation")
        assert incarnation["status"] == "closed"
        assert list(fleet.journal_dir("here").iterdir()) == []

        await fleet.start("here")
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == set(ids)


async def test_out_of_grace_what_awaits_a_reply_is_in_doubt_and_the_rest_goes_back(
    db: str, tmp_path: Path
) -> None:
    settings = {"dispatch": {"grace_s": 0.3}, "doubt": {"bulk_wait_s": 0.2}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        silent = await fleet.submit(f"hang.u{i}@d{i}.test" for i in range(5))  # taken, never a reply
        others = await fleet.submit(100, domains=5)
        first = await fleet.start("here")
        await fleet.taken(105)
        assert await first.terminate() == 0
        assert await fleet.ids_in("delivered") == set(others)
        assert await fleet.ids_in("leased") == set()
        assert await fleet.ever_in_doubt() == set(silent)
        assert list(fleet.journal_dir("here").iterdir()) == []

        # Anybody may go on, on any host; the receiver answers this time.
        await fleet.start("elsewhere")
        await fleet.settled()
        findings = await fleet.check()
        assert set(findings.duplicates) == {str(i) for i in silent}
        assert await fleet.ids_in("delivered") == {*silent, *others}


async def test_a_rolling_restart_loses_and_doubles_nothing(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "20")) as fleet:
        ids = await fleet.submit(1_500, domains=20)
        running = [await fleet.start(host) for host in ("one", "two")]
        for count, host in ((200, "one"), (500, "two"), (800, "one")):
            await fleet.taken(count)
            running.append(await fleet.start(host))
            assert await running.pop(0).terminate() == 0
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert await fleet.ever_in_doubt() == set()
        assert await fleet.ids_in("delivered") == set(ids)


async def test_a_second_signal_changes_nothing(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "40")) as fleet:
        await fleet.submit(500, domains=10)
        first = await fleet.start("here")
        await fleet.taken(50)
        first.signal(signal.SIGTERM)
        assert await first.terminate() == 0
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("leased") == set()
