"""How long a receiver may take: each stage has its own time-out, and content a least pace. A slot is never held for ever."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.model.disposition import BounceClass, Outcome, Scope
from gateway.mta.wire import Mail, Session, SessionFailed, Timeouts, open_session
from tests.support.scripted_smtp import (
    EHLO_PLAIN,
    GREETING,
    OPENING,
    TAKEN,
    Close,
    Drip,
    Hold,
    ScriptedServer,
    Sip,
    Step,
    Until,
    scripted,
)
from tests.support.zoo import OK, in_steps

PATIENT = Timeouts(connect_s=30, banner_s=30, mail_s=30, rcpt_s=30, data_s=30, data_block_s=30, dot_s=30)  # fmt: skip
SHORT_S = 0.2
MAIL = Mail("b@bounces.example", "ann@there.example", b"Subject: hi\r\n\r\nhello\r\n")
LARGE = Mail("b@bounces.example", "ann@there.example", (b"x" * 998 + b"\r\n") * 16_000)
"""More than the buffers of both kernels hold."""


async def connect(server: ScriptedServer, timeouts: Timeouts) -> Session:
    return await open_session("127.0.0.1", server.port, "out.example", timeouts)


def short(stage: str) -> Timeouts:
    """One time-out short, all others long: what ends is what this one watches."""
    return msgspec.structs.replace(PATIENT, **{stage: SHORT_S})


def go() -> None:
    """The dot may be written."""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([Hold()], "time-out at banner"),
        ([Drip(b"220-" + b"x" * 5_000, pause_s=0.005)], "time-out at banner"),
        ([GREETING, Until(b"EHLO"), Hold()], "time-out at ehlo"),
        ([GREETING, Until(b"EHLO"), Drip(b"250-" + b"x" * 5_000, pause_s=0.005)], "time-out at ehlo"),
        ([GREETING, Until(b"EHLO"), b"502 what?\r\n", Until(b"HELO"), Hold()], "time-out at ehlo"),
        ([GREETING, Until(b"EHLO"), b"250-mx\r\n250 STARTTLS\r\n", Until(b"STARTTLS"), Hold()], "time-out at starttls"),
    ],
    ids=["no greeting", "a byte at a time", "no reply to EHLO", "EHLO a byte at a time", "no reply to HELO", "no reply to STARTTLS"],
)  # fmt: skip
async def test_a_receiver_that_does_not_greet_in_time_is_left(script: list[Step], said: str) -> None:
    async with scripted(script) as server:
        with pytest.raises(SessionFailed) as failed:
            await connect(server, short("banner_s"))
    disposition = failed.value.disposition
    assert (disposition.outcome, disposition.bounce_class, disposition.scope) == (
        Outcome.DEFERRED,
        BounceClass.TIMEOUT,
        Scope.LANE,
    )
    assert disposition.text.startswith(said)


@pytest.mark.parametrize(
    ("stage", "commands", "outcome"),
    [("mail", 0, Outcome.DEFERRED), ("rcpt", 1, Outcome.DEFERRED), ("data", 2, Outcome.DEFERRED), ("dot", 3, Outcome.IN_DOUBT)],
)  # fmt: skip
@pytest.mark.parametrize("pipelined", [True, False])
async def test_each_command_has_its_own_time(
    stage: str, commands: int, outcome: Outcome, pipelined: bool
) -> None:
    whole = in_steps(OPENING if pipelined else [GREETING, Until(b"EHLO"), EHLO_PLAIN], messages=1)
    async with scripted([*whole[: 3 + 2 * commands + 1], Hold()]) as server:
        disposition = await (await connect(server, short(f"{stage}_s"))).transact(MAIL, go)
    assert disposition.outcome is outcome
    assert disposition.text.startswith(f"time-out at {stage}")


async def test_a_reply_in_the_last_moment_counts_and_one_after_it_leaves_doubt() -> None:
    """F14: the time-out of one session is the clock of the other, which has longer to wait."""
    late, over = asyncio.Event(), asyncio.Event()
    async with scripted([*OPENING, *TAKEN, Hold(late), OK], [*OPENING, *TAKEN, Hold(over), OK, Close()]) as server:  # fmt: skip
        patient, hasty = await connect(server, PATIENT), await connect(server, short("dot_s"))
        waiting = asyncio.create_task(patient.transact(MAIL, go))
        doubt = await hasty.transact(MAIL, go)
        late.set()
        delivered = await waiting
        over.set()  # the other 250 comes now: nobody is there to read it
        assert not hasty.usable
    assert delivered.outcome is Outcome.DELIVERED
    assert doubt.outcome is Outcome.IN_DOUBT


@pytest.mark.parametrize("reading", [Hold(), Sip(4_096)], ids=["nothing at all", "a little at a time"])
async def test_a_receiver_that_takes_content_too_slowly_is_ended(reading: Step) -> None:
    timeouts = Timeouts(connect_s=30, data_block_s=SHORT_S, min_transfer_bytes_per_s=100_000_000, dot_s=600)
    async with scripted([*OPENING, *TAKEN[:2], reading]) as server:
        session = await connect(server, timeouts)
        disposition = await session.transact(LARGE, go)
        assert not session.usable
    assert disposition.outcome is Outcome.IN_DOUBT
    assert disposition.text.startswith("receiver too slow at dot: took")


async def test_a_receiver_that_is_slow_but_not_too_slow_gets_it_all() -> None:
    timeouts = Timeouts(connect_s=30, data_block_s=5.0, min_transfer_bytes_per_s=1, dot_s=0.001)
    over = asyncio.Event()
    read = [Until(b"x" * 998 + b"\r\n") for _ in range(16_000)]
    async with scripted([*OPENING, *TAKEN[:2], *read[:8_000], Hold(over), *read[8_000:]]) as server:
        session = await connect(server, timeouts)
        sending = asyncio.create_task(session.transact(LARGE, go))
        async with scripted([*OPENING, *TAKEN[:2], Hold()]) as other:
            await (await connect(other, short("data_block_s"))).transact(
                LARGE, go
            )  # so long the first one stands
        assert not sending.done(), "its pause was shorter than a block may take"
        over.set()
        disposition = await sending
    assert disposition.text.startswith("time-out at dot"), (
        "the time for the dot began when all had been taken"
    )


async def test_a_refusal_in_the_middle_of_content_is_read_and_ends_it() -> None:
    async with scripted([*OPENING, *TAKEN[:2], Until(b"x"), b"552 5.3.4 too large\r\n", Hold()]) as server:
        session = await connect(server, PATIENT)
        disposition = await session.transact(LARGE, go)
        assert not session.usable
    assert (disposition.outcome, disposition.bounce_class) == (Outcome.BOUNCED, BounceClass.SIZE)


async def test_nobody_waits_long_for_a_goodbye() -> None:
    async with scripted([*OPENING, Until(b"QUIT"), Hold()]) as server:
        session = await connect(server, PATIENT)
        session.quit()
        assert not session.usable
