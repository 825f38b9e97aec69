"""F31: a delivery that crashes the process. It is found out and put aside; nobody else pays for it."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleet import TRANSACTIONAL, DispatcherProcess, Fleet

QUARANTINED_AFTER = 3


async def test_what_kills_its_dispatcher_is_quarantined_and_the_others_arrive_once(
    db: str, tmp_path: Path
) -> None:
    settings = {"dispatch": {"connections_per_lane": 3}}
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "5"), settings=settings) as fleet:
        before = await fleet.submit(200, domains=8)
        (poison,) = await fleet.submit(["poison@d3.test"])
        after = await fleet.submit(200, domains=8)

        suspects: list[set[int]] = []
        while True:  # as a supervisor does
            dispatcher = await fleet.start("here", "--poison", "poison")

            async def over(dispatcher: DispatcherProcess = dispatcher) -> bool:
                return dispatcher.status is not None or await nothing_open(fleet)

            await fleet.until("it died, or all is done", over)
            if dispatcher.status is None:
                break
            assert dispatcher.status == -9, dispatcher.said
            (replayed,) = fleet.dead_journals("here").values()
            suspects.append(set(replayed.started))
            assert len(suspects) <= QUARANTINED_AFTER, "it should have been put aside by now"

        assert len(suspects) == QUARANTINED_AFTER
        assert poison in suspects[0]
        assert suspects[1:] == [{poison}] * (QUARANTINED_AFTER - 1), "suspects are tried alone"
        findings = await fleet.check()
        assert await fleet.ids_in("quarantined") == {poison}
        assert await fleet.ids_in("delivered") == {*before, *after}
        assert set(findings.duplicates) <= {str(i) for i in await fleet.ever_in_doubt()}


async def test_deaths_that_are_nobodys_fault_quarantine_nobody(db: str, tmp_path: Path) -> None:
    # Killed again and again, each time with deliveries begun: the same ones are suspects at first, and are cleared alone.
    settings = {"dispatch": {"connections_per_lane": 3}}
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "5"), settings=settings) as fleet:
        ids = await fleet.submit(300, domains=4, priority=TRANSACTIONAL)
        for tried in (50, 40, 30, 20):
            dispatcher = await fleet.start("here", "--die-at", f"tried:{tried}")
            assert await dispatcher.ended() == -9
        await fleet.start("here")
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("quarantined") == set()
        assert await fleet.ids_in("delivered") == set(ids)


async def nothing_open(fleet: Fleet) -> bool:
    return not await fleet.ids_in("queued", "leased", "deferred", "held", "in_doubt")
