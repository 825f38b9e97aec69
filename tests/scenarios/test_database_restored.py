"""After a restore of an old backup the database has forgotten what was sent since. Nothing leaves until somebody has decided."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.store.embedded import EmbeddedPostgres
from gateway.store.migrate import migrate
from gateway.store.pool import connect
from gateway.store.reconcile import look, put_in_doubt, resend
from tests.support.dispatcher_process import FENCED
from tests.support.fleet import Fleet
from tests.support.postgres import TEST_SETTINGS


class Server:
    """A Postgres of the scenario's own, which can be stopped, copied and put back as it was."""

    def __init__(self, folder: Path) -> None:
        self._data, self._backup = folder / "data", folder / "backup"
        self._running = EmbeddedPostgres(self._data, settings=TEST_SETTINGS)
        self.dsn = self._running.dsn

    def start(self) -> None:
        self._running.start()

    def stop(self) -> None:
        self._running.stop()

    def back_up(self) -> None:
        """Take a copy of a stopped server's data."""
        self.stop()
        subprocess.run(["cp", "-a", self._data, self._backup], check=True)
        self.start()

    def restore(self) -> None:
        """Put the copy in place of the data."""
        self.stop()
        shutil.rmtree(self._data)
        self._backup.rename(self._data)
        self.start()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    # A short path that others may enter: Postgres may run as another user than the tests.
    async with _folder() as folder:
        server = Server(folder)
        server.start()
        try:
            connection = await connect(server.dsn)
            await migrate(connection)
            await connection.close()
            yield server
        finally:
            server.stop()


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    made = subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip()
    Path(made).chmod(0o711)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made)


async def beats(fleet: Fleet, count: int) -> None:
    """Wait until the dispatchers have looked around so often since now."""
    start = await fleet.rows("SELECT last_value AS tick FROM fleet_tick")

    async def passed() -> bool:
        now = await fleet.rows("SELECT last_value AS tick FROM fleet_tick")
        return now[0]["tick"] - start[0]["tick"] >= count

    await fleet.until(f"{count} heartbeats have passed", passed)


async def held(fleet: Fleet) -> bool:
    return bool(await fleet.rows("SELECT why FROM hold WHERE kind = 'fleet'"))


SETTINGS = {"dispatch": {"heartbeat_s": 0.1}, "doubt": {"bulk_wait_s": 0.2}}


@pytest.mark.parametrize("decision", ["in_doubt", "resend"])
async def test_a_dispatcher_that_starts_on_an_older_database_holds_the_fleet(
    server: Server, tmp_path: Path, decision: str
) -> None:
    async with Fleet(server.dsn, tmp_path, settings=SETTINGS) as fleet:
        ids = await fleet.submit(150, domains=10)
        await fleet.stop_upkeep()
        server.back_up()
        await fleet.reconnect()
        first = await fleet.start("here")
        await fleet.taken(150)
        assert await first.terminate() == 0
        server.restore()
        await fleet.reconnect()
        fleet.start_upkeep()
        assert await fleet.ids_in("queued") == set(ids), "it has forgotten that they were sent"

        await fleet.start("here")
        await fleet.until("the fleet is held", lambda: held(fleet))
        new = await fleet.submit(["new@d.test"])
        await fleet.start("elsewhere")  # a host that remembers nothing is held too
        await beats(fleet, 10)
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
    server: Server, tmp_path: Path
) -> None:
    # Heartbeats so rare that the first claim after the restore comes before them, if it does not wait for one.
    settings = SETTINGS | {"dispatch": {"heartbeat_s": 1.5}}
    async with Fleet(server.dsn, tmp_path, settings=settings) as fleet:
        running = await fleet.start("here")
        first = await fleet.submit(50, domains=5)
        await fleet.settled()
        asleep = await fleet.submit(150, domains=10, wake=False)
        await fleet.stop_upkeep()
        server.back_up()  # while the dispatcher runs: it waits for Postgres, and goes on
        await fleet.reconnect()
        fleet.start_upkeep()  # sweeps: they leave now
        await fleet.taken(200)
        await fleet.settled()
        await beats(fleet, 1)
        await fleet.stop_upkeep()
        server.restore()
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
