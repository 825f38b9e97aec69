"""F3: a dispatcher stands still for longer than its lease, as a paused virtual machine does. It must not wake up sending."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.dispatcher_process import FENCED
from tests.support.fleet import DispatcherProcess, Fleet

LEASE = {"lease_s": 1.5, "heartbeat_s": 0.2}


async def called_dead(fleet: Fleet, frozen: DispatcherProcess) -> None:
    async def closed() -> bool:
        rows = await fleet.rows("SELECT status FROM incarnation WHERE pid = $1", frozen.pid)
        return [row["status"] for row in rows] == ["closed"]

    await fleet.until("the frozen dispatcher was taken over", closed)


@pytest.mark.parametrize("successor", ["here", "elsewhere"])
async def test_frozen_past_its_lease_it_fences_itself_and_sends_nothing_more(
    db: str, tmp_path: Path, successor: str
) -> None:
    settings = {"dispatch": LEASE, "doubt": {"bulk_wait_s": 0.3}}
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "60"), settings=settings) as fleet:
        ids = await fleet.submit(800, domains=20)
        frozen = await fleet.start("here")
        await fleet.taken(150)
        frozen.signal(signal.SIGSTOP)
        held = await fleet.ids_in("leased")
        assert held
        await fleet.start(successor, "--journal-grace-s", "0.3")
        await called_dead(fleet, frozen)
        await fleet.settled()
        before = fleet.ledger().accepts

        frozen.signal(signal.SIGCONT)
        assert await frozen.ended() == FENCED, frozen.said
        # What it had dotted before may still have been on its way; what it had not, others had sent meanwhile.
        await fleet.check()
        doubts = await fleet.ever_in_doubt()
        assert fleet.ledger().accepts - before <= len(doubts)
        assert doubts <= held
        if successor == "here":
            assert len(doubts) <= 20 * 5, "with the journal at hand only what was dotted is in doubt"
        else:
            assert doubts == held, "without it everything that was held is"
        assert await fleet.ids_in("delivered") == set(ids)


async def test_a_reply_that_came_while_it_was_frozen_still_counts(db: str, tmp_path: Path) -> None:
    # Nobody retries what is in doubt here: only the reply that waits in the frozen process's socket can end it.
    # It is fenced before it could tell Postgres: its journal has to.
    settings = {"dispatch": LEASE | {"ack_interval_ms": 1_000}, "doubt": {"bulk_wait_s": 600.0}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        slow = await fleet.submit(f"slow600.u{i}@d{i}.test" for i in range(10))
        frozen = await fleet.start("here")

        async def dotted() -> bool:
            return len(await fleet.ids_in("leased")) == 10 and _dots(fleet) == 10

        await fleet.until("all have left their dot", dotted)
        frozen.signal(signal.SIGSTOP)
        second = await fleet.start("here")
        await called_dead(fleet, frozen)
        assert await fleet.ids_in("in_doubt") == set(slow)
        await fleet.taken(10)  # the sink has replied by now, to a process that does not read

        frozen.signal(signal.SIGCONT)
        assert await frozen.ended() == FENCED, frozen.said
        assert await second.terminate() == 0
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert await fleet.ids_in("delivered") == set(slow)


def _dots(fleet: Fleet) -> int:
    return sum(file.read_bytes().count(b"DOT ") for file in fleet.journal_dir("here").glob("*.log"))


async def test_a_pause_within_the_lease_changes_nothing(db: str, tmp_path: Path) -> None:
    settings = {"dispatch": {"lease_s": 30.0, "heartbeat_s": 0.2}}
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "20"), settings=settings) as fleet:
        ids = await fleet.submit(500, domains=10)
        paused = await fleet.start("here")
        await fleet.start("elsewhere")
        await fleet.taken(100)
        paused.signal(signal.SIGSTOP)
        await fleet.taken(200)  # the other one goes on alone
        paused.signal(signal.SIGCONT)
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert await fleet.ever_in_doubt() == set()
        assert await fleet.ids_in("delivered") == set(ids)
