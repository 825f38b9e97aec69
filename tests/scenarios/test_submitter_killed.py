"""An app, or the process that serves it, is killed while it submits: what it was told is accepted is; nothing is half there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.store.queue import sweep
from tests.support.fleet import Fleet
from tests.support.submitter_process import acknowledged, spawn


@pytest.mark.parametrize("batch", [1, 100])
async def test_killed_while_it_submits_what_was_acknowledged_is_sent(
    db: str, tmp_path: Path, batch: int
) -> None:
    told = tmp_path / "told"
    async with Fleet(db, tmp_path) as fleet:
        await fleet.start("here")
        app = spawn(db, fleet.site_id, fleet.messages[1], batch, told)
        await fleet.until("it has submitted for a while", lambda: len(acknowledged(told)) >= 5 * batch + 50)
        app.kill()
        app.join(10)
        promised = acknowledged(told)

        # In the books: whole acceptances, all that were acknowledged, and at most the one whose answer was under way.
        rows = await fleet.rows("SELECT id, deliveries FROM acceptance ORDER BY id")
        accepted = [row["id"] * 1024 + place for row in rows for place in range(row["deliveries"])]
        assert {row["deliveries"] for row in rows} == {batch}
        assert accepted[: len(promised)] == promised
        assert len(accepted) - len(promised) in (0, batch)
        fleet.submitted += accepted

        async with fleet.pool.acquire() as connection:
            await sweep(connection)  # upkeep does, every 10 s: the last wake may have died with the app
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert await fleet.ids_in("delivered") == set(accepted)


async def test_killed_between_insert_and_wake_the_sweep_finds_what_sleeps(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        await fleet.stop_upkeep()  # which sweeps by itself
        await fleet.start("here")
        first = await fleet.submit(["a@woken.test"])
        await fleet.settled()
        asleep = await fleet.submit(["b@woken.test", "c@asleep.test"], wake=False)
        last = await fleet.submit(["d@other.test"])
        await fleet.taken(2)
        assert await fleet.ids_in("queued") == set(asleep), "nobody told the dispatchers of these"

        async with fleet.pool.acquire() as connection:
            assert await sweep(connection) == 2
            assert await sweep(connection) == 0
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("delivered") == {*first, *asleep, *last}
