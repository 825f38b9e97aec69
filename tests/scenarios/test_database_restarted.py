"""F6, F7: Postgres ends in the middle of claims and acknowledgements, and comes back. A claim is whole or absent; no reply is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.throttle.shaping import Limits
from tests.support.fleet import Fleet
from tests.support.server import Server


def stop_and_start(server: Server) -> None:
    server.stop()
    server.start()


@pytest.mark.parametrize("interrupt", [Server.crash, stop_and_start])
async def test_postgres_ends_and_comes_back_nothing_is_lost_or_sent_twice(
    own_server: Server, tmp_path: Path, interrupt: Callable[[Server], None]
) -> None:
    settings = {"dispatch": {"heartbeat_s": 0.2, "in_flight": 200, "claim_rows": 100}}
    async with Fleet(own_server.dsn, tmp_path, sink_options=("--delay-ms", "20"), settings=settings) as fleet:
        ids = await fleet.submit(1_200, domains=10)
        await fleet.start("one")
        await fleet.start("two")
        for taken in (200, 600):
            await fleet.taken(taken)
            interrupt(own_server)
            await fleet.reconnect()
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert await fleet.ever_in_doubt() == set()
        assert await fleet.ids_in("delivered") == set(ids)


@pytest.mark.parametrize("call", ["claim", "acknowledge", "release"])
async def test_what_postgres_did_while_its_answer_was_lost_is_neither_lost_nor_done_twice(
    db: str, tmp_path: Path, call: str
) -> None:
    # So slow a receiver that much is handed back late, and so also released.
    settings = {
        "dispatch": {"heartbeat_s": 0.1, "in_flight": 100, "claim_rows": 50, "connections_per_lane": 2}
    }
    async with Fleet(db, tmp_path, settings=settings, sink_options=("--delay-ms", "40")) as fleet:
        ids = await fleet.submit(150, domains=5)
        forgetful = await fleet.start("here", "--lose-answers", f"{call}:6")
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert await fleet.ever_in_doubt() == set()
        assert await fleet.ids_in("delivered") == set(ids)
        assert await forgetful.terminate() == 0
        assert f"the answer of {call} was lost on purpose" in forgetful.said


async def test_postgres_is_away_when_a_dispatcher_is_killed_the_journal_knows(
    own_server: Server, tmp_path: Path
) -> None:
    settings = {"dispatch": {"connections_per_lane": 1, "in_flight": 200}}
    limits = Limits(rate_per_s=100.0, burst=1_000)  # a bucket that lasts for ten seconds: nothing goes back
    async with Fleet(
        own_server.dsn, tmp_path, sink_options=("--delay-ms", "50"), settings=settings, limits=limits
    ) as fleet:
        await fleet.stop_upkeep()
        ids = await fleet.submit(60, domains=1)
        first = await fleet.start("here")
        await fleet.taken(5)
        own_server.stop()  # what it holds it goes on sending; nobody takes its acknowledgements
        before = fleet.ledger().accepts
        await fleet.taken(before + 3)
        await first.kill()
        (replayed,) = fleet.dead_journals("here").values()
        own_server.start()
        await fleet.reconnect()
        fleet.start_upkeep()
        told = await fleet.ids_in("delivered")
        assert len(replayed.results.keys() - told) >= 2, "replies that the database has not heard of"

        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert set(findings.duplicates) <= {str(i) for i in replayed.in_doubt}
        assert len(findings.duplicates) <= 1
        assert await fleet.ids_in("delivered") == set(ids)
