"""F17, F18: a receiver that takes its time is left; its slot is free again, and nobody else has waited for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet import TRANSACTIONAL, Fleet
from tests.support.scripted_smtp import (
    GREETING,
    OPENING,
    TAKEN,
    Drip,
    Relay,
    ScriptedServer,
    Sip,
    Step,
    Until,
    scripted,
)

ONE_A_SECOND = 1.0
LARGE = "<p>" + ("x" * 996 + "\r\n") * 4_000
"""More than the kernels' buffers hold."""


async def meanwhile(fleet: Fleet, slow: ScriptedServer) -> list[int]:
    """While the receiver is slow, to each new connection anew: mail in other lanes is delivered."""
    # The lane may have one connection: a second one means that the first one's slot was given back.
    await fleet.until("it was left and tried again", lambda: len(slow.heard) >= 2)
    others = await fleet.submit(100, domains=5)

    async def delivered() -> bool:
        return await fleet.ids_in("delivered") >= set(others)

    await fleet.until("the others are delivered", delivered)
    return others


@pytest.mark.parametrize(
    ("script", "stage"),
    [
        ([Drip(GREETING, ONE_A_SECOND)], "banner"),
        ([GREETING, Until(b"EHLO"), Drip(b"250 mx.example\r\n", ONE_A_SECOND)], "ehlo"),
    ],
    ids=["banner", "reply to EHLO"],
)
async def test_a_greeting_of_one_byte_a_second_is_not_waited_for(
    db: str, tmp_path: Path, script: list[Step], stage: str
) -> None:
    settings = {"dispatch": {"connections_per_lane": 1, "banner_timeout_s": 0.3}}
    async with Fleet(db, tmp_path, settings=settings) as fleet, scripted(script) as slow:
        fleet.route("slow.test", slow.port)
        waiting = await fleet.submit(f"u{i}@slow.test" for i in range(5))
        await fleet.start("here")
        others = await meanwhile(fleet, slow)
        assert not await fleet.ids_in("delivered") & set(waiting)
        assert (await fleet.lane_says("slow.test")).startswith(f"time-out at {stage}: no reply in 0.3 s")
        slow.later = [Relay(fleet.sink.port)]
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == {*waiting, *others}
        assert await fleet.ever_in_doubt() == set()
        assert await fleet.rows("SELECT id FROM ended WHERE attempts <> 1") == [], (
            "it was the lane that waited"
        )


async def test_a_receiver_that_reads_one_byte_a_second_is_left_and_what_it_had_is_in_doubt(
    db: str, tmp_path: Path
) -> None:
    settings = {"dispatch": {"connections_per_lane": 1, "data_block_timeout_s": 0.3}}
    reading: list[Step] = [*OPENING, *TAKEN[:2], Sip(1, ONE_A_SECOND)]
    async with (
        Fleet(db, tmp_path, settings=settings) as fleet,
        scripted(reading, window_bytes=16_384) as slow,
    ):
        fleet.route("slow.test", slow.port)
        large = await fleet.message(priority=TRANSACTIONAL, html=LARGE)
        (taken,) = await fleet.submit(["u@slow.test"], priority=TRANSACTIONAL, message_id=large)
        await fleet.start("here")
        others = await meanwhile(fleet, slow)
        slow.later = [Relay(fleet.sink.port)]
        await fleet.settled()
        assert (await fleet.check()).duplicates == (), "the receiver never had the whole of it"
        assert await fleet.ids_in("delivered") == {taken, *others}
        assert await fleet.ever_in_doubt() == {taken}
        told = {row["reply"] for row in await fleet.rows("SELECT reply FROM event WHERE kind = 'in_doubt'")}
        assert all(reply.startswith("receiver too slow at dot: took ") for reply in told), told
