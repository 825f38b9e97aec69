"""After a restore of an old backup the database has forgotten what was sent since. Nothing leaves until somebody has decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.store.reconcile import look, put_in_doubt, resend
from tests.support.dispatcher_process import FENCED
from tests.support.fleet import Fleet
from tests.support.server import Server


async def held(fleet: Fleet) -> bool:
    return bool(await fleet.rows("SELECT why FROM hold WHERE kind = 'fleet'"))


SETTINGS = {"dispatch": {"heartbeat_s": 0.1}, "doubt": {"bulk_wait_s": 0.2}}


@pytest.mark.parametrize("decision", ["in_doubt", "resend"])
async def test_a_dispatcher_that_starts_on_an_older_database_holds_the_fleet(
    own_server: Server, tmp_path: Path, decision: str
) -> None:
    async with Fleet(own_server.dsn, tmp_path, settings=SETTINGS) as fleet:
        ids = await fleet.submit(150, domains=10)
        await fleet.stop_upkeep()
        own_server.back_up()
        await fleet.reconnect()
        first = await fleet.start("here")
        await fleet.taken(150)
        assert await first.terminate() == 0
        own_server.restore()
        await fleet.reconnect()
        fleet.start_upkeep()
        assert await fleet.ids_in("queued") == set(ids), "it has forgotten that they were sent"

        await fleet.start("here")
        await fleet.until("the fleet is held", lambda: held(fleet))
        new = await fleet.submit(["new@d.test"])
        await fleet.start("elsewhere")  # a host that remembers nothing is held too
        await fleet.heartbeats(10)
        assert await fleet.ids_in("leased") == set()
        assert fleet.ledger().accepts == 150

        async with fleet.pool.acquire() as connection:
            assert (await look(connection)).held
            if decision == "in_doubt":
                assert await put_in_doubt(connection, 0.2, 0.2) == 150
            else:
                await resend(connection)
        await fleet.settled()
        findings = await fleet.check(settled=decision == "in_doubt")
        assert await fleet.ids_in("delivered") == {*ids, *new}
        assert set(findings.duplicates) == {str(i) for i in ids}
        assert set(findings.duplicates_not_in_doubt) == (
            set() if decision == "in_doubt" else {str(i) for i in ids}
        )


async def test_a_dispatcher_under_which_the_database_goes_back_stops_and_holds_the_fleet(
    own_server: Server, tmp_path: Path
) -> None:
    # Heartbeats so rare that the first claim after the restore comes before them, if it does not wait for one.
    settings = SETTINGS | {"dispatch": {"heartbeat_s": 1.5}}
    async with Fleet(own_server.dsn, tmp_path, settings=settings) as fleet:
        running = await fleet.start("here")
        first = await fleet.submit(50, domains=5)
        await fleet.settled()
        asleep = await fleet.submit(150, domains=10, wake=False)
        await fleet.stop_upkeep()
        own_server.back_up()  # while the dispatcher runs: it waits for Postgres, and goes on
        await fleet.reconnect()
        fleet.start_upkeep()  # sweeps: they leave now
        await fleet.taken(200)
        await fleet.settled()
        await fleet.heartbeats(1)
        await fleet.stop_upkeep()
        own_server.restore()
        await fleet.reconnect()
        assert await fleet.ids_in("queued") == set(asleep), "it has forgotten that they were sent"
        assert await fleet.rows("SELECT status FROM incarnation") == [("live",)], (
            "and takes the dispatcher for its own"
        )
        fleet.start_upkeep()

        assert await running.ended() == FENCED, running.said
        await fleet.start("here")
        await fleet.until("the fleet is held", lambda: held(fleet))
        assert fleet.ledger().accepts == 200
        async with fleet.pool.acquire() as connection:
            await put_in_doubt(connection, 0.2, 0.2)
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("delivered") == {*first, *asleep}
