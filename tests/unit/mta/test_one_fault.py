"""A receiver that is sound but for one reply, which it leaves out or says twice: no message is told what was said of another."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.model.disposition import Outcome
from gateway.mta.channel import Channel
from gateway.mta.wire import Session, Timeouts
from tests.unit.mta.test_wire_in_step import Told, Wire, mail_of, send, turn

COURSES = ("taken", "sender", "recipient", "content")
"""What becomes of a message: it is taken, or refused at one of these."""
SHORT = Timeouts(mail_s=0.01, rcpt_s=0.01, data_s=0.01, dot_s=0.01, in_step_s=0.01)


@dataclass
class Receiver(Wire):
    """Answers what is written, each command in its turn; the fault_at-th reply (from 0) is said so many times."""

    fault_at: int = -1
    times: int = 1
    in_pieces: bool = False
    channel: Channel | None = None
    said: int = 0
    course: str = ""
    number: str = ""
    in_content: bool = False
    packets: list[bytes] = field(default_factory=list[bytes])
    speaking: asyncio.Task[None] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        replies = [self._reply(line.decode()) for line in bytes(data).splitlines()]
        if self.in_pieces:
            self.packets += [reply for several in replies for reply in several]
        else:
            self.packets.append(b"".join(reply for several in replies for reply in several))
        if self.speaking is None or self.speaking.done():
            self.speaking = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        while self.packets and not self.closed:
            if (packet := self.packets.pop(0)) and self.channel is not None:
                self.channel.data_received(packet)
            await turn()

    def _reply(self, line: str) -> list[bytes]:
        code = self._code(line)
        if not code:
            return []
        self.said += 1
        return [f"{code} m{self.number}\r\n".encode()] * (self.times if self.said - 1 == self.fault_at else 1)

    def _code(self, line: str) -> int:
        if self.in_content:
            if line != ".":
                return 0
            self.in_content = False
            return 550 if self.course == "content" else 250
        if found := re.match(r"MAIL FROM:<(\w+)-(\d)@", line):
            self.course, self.number = found[1], found[2]
            return 550 if self.course == "sender" else 250
        if line.startswith("RCPT"):
            return {"sender": 503, "recipient": 550}.get(self.course, 250)
        if line.startswith("DATA"):
            self.in_content = self.course not in ("sender", "recipient")
            return 354 if self.in_content else 503
        return 250 if line.startswith("RSET") else 0


async def play(courses: list[str], receiver: Receiver, timeouts: Timeouts = SHORT) -> list[Told]:
    receiver.channel = channel = Channel()
    channel.connection_made(receiver)
    channel.data_received(b"220 mx\r\n")
    await channel.reply(1.0)
    session = Session(channel, {"pipelining": ""}, timeouts)
    mails = [mail_of(number, f"{course}-{number}") for number, course in enumerate(courses)]
    return await send(receiver, session, mails, ahead=True)


@given(
    courses=st.lists(st.sampled_from(COURSES), min_size=3, max_size=3),
    fault_at=st.integers(0, 13),
    twice=st.booleans(),
    in_pieces=st.booleans(),
)
@example(courses=["content", "taken", "taken"], fault_at=3, twice=False, in_pieces=False)
@example(courses=["taken", "recipient", "taken"], fault_at=3, twice=False, in_pieces=False)
@example(courses=["taken", "sender", "taken"], fault_at=3, twice=False, in_pieces=False)
@example(courses=["content", "sender", "taken"], fault_at=3, twice=True, in_pieces=True)
@settings(deadline=None, max_examples=300)
def test_one_reply_left_out_or_said_twice_is_told_of_no_other_message(
    courses: list[str], fault_at: int, twice: bool, in_pieces: bool
) -> None:
    # What comes in pieces may come late; a reply that is left out is missed by those that came in time.
    receiver = Receiver(fault_at=fault_at, times=2 if twice else 0, in_pieces=in_pieces and twice)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(play(courses, receiver))
    for number, (disposition, *_) in enumerate(told):
        if disposition.code:
            assert disposition.text == f"m{number}"
        if disposition.outcome is Outcome.DELIVERED:
            assert courses[number] == "taken"
        elif disposition.outcome is Outcome.BOUNCED:
            assert courses[number] != "taken"


@given(courses=st.lists(st.sampled_from(COURSES), min_size=1, max_size=4))
@settings(deadline=None, max_examples=100)
def test_of_a_sound_receiver_each_message_hears_what_was_said_of_it(courses: list[str]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(play(courses, Receiver(), Timeouts()))
    outcomes = [Outcome.DELIVERED if course == "taken" else Outcome.BOUNCED for course in courses]
    assert [message.disposition.outcome for message in told] == outcomes[: len(told)]
    left = courses[len(told) :]
    assert not left or left[0] == "sender", (
        "a sender that is refused behind another message is asked for again"
    )
