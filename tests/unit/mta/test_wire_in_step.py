"""Whatever a receiver says, whenever it says it: a reply is told only of the message that it answers."""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, cast

import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.model.disposition import Disposition, Outcome
from gateway.mta.channel import Channel
from gateway.mta.wire import Mail, Session, Timeouts

TURNS = 8  # of the loop, until everybody who was woken has done what there was to do
TIMEOUTS = Timeouts()
END = b"\r\nhello\r\n.\r\n"


@dataclass
class Wire(asyncio.Transport):
    """A transport in memory: notes what is written, and how much the other side had said by then."""

    spoken: int = 0
    written: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    unsent: int = 0
    closed: bool = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append((self.spoken, bytes(data)))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Told(NamedTuple):
    """What one message came to, and which of the writes were its own; `opened`: its first commands were in the one before them."""

    disposition: Disposition
    first_write: int
    after_last_write: int
    opened: bool = False


async def turn() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def greeted(extensions: dict[str, str], timeouts: Timeouts = TIMEOUTS) -> tuple[Wire, Channel, Session]:
    wire, channel = Wire(), Channel()
    channel.connection_made(wire)
    channel.data_received(b"220 mx\r\n")
    await channel.reply(1.0)
    return wire, channel, Session(channel, extensions, timeouts)


def mail_of(number: int, sender: str = "b") -> Mail:
    return Mail(f"{sender}@bounces.example", f"u{number}@there.example", b"Subject: hi\r\n\r\nhello\r\n")


async def send(wire: Wire, session: Session, mails: list[Mail], *, ahead: bool) -> list[Told]:
    """As a connection sends: with `ahead`, each message opens the next, and what is of no more use or stale is left."""
    told: list[Told] = []
    opened = False
    for mail, following in zip(mails, [*mails[1:], None], strict=True):
        if ahead and not session.usable:
            break
        first = len(wire.written)
        give = following if ahead else None
        disposition = await session.transact(mail, lambda: None, ahead=partial(_give, give))
        if ahead and session.stale:
            break
        told.append(Told(disposition, first, len(wire.written), opened))
        last = wire.written[-1][1] if len(wire.written) > first else b""
        opened = END in last and not last.endswith(END)
    return told


def _give(mail: Mail | None) -> Mail | None:
    return mail


async def play(
    chunks: list[bytes], extensions: dict[str, str], messages: int, *, ahead: bool = False
) -> tuple[Wire, list[Told]]:
    """Send messages while the receiver says these chunks, one at a time, and then hangs up."""
    wire, channel, session = await greeted(extensions)
    mails = [mail_of(number) for number in range(messages)]
    sending = asyncio.create_task(send(wire, session, mails, ahead=ahead))
    await turn()
    for chunk in chunks:
        if not wire.closed:
            wire.spoken += len(chunk)
            channel.data_received(chunk)
            await turn()
    channel.connection_lost(None)
    return wire, await sending


def owed(written: bytes) -> int:
    """How many replies are due for one write."""
    content, dot, behind = written.partition(END)
    return 1 + behind.count(b"\r\n") if dot else content.count(b"\r\n")


_CODES = ("250", "250", "354", "550", "450", "421", "220")
NORMAL = [["250"], ["250"], ["354"], ["250"]]


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """What a receiver says: mostly as it should, with replies left out, doubled, changed, moved or broken."""
    replies: list[list[str]] = [list(reply) for reply in NORMAL * 3]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(replies) - 1)) if replies else 0
        kind = draw(
            st.sampled_from(("leave out", "double", "put in", "change", "move", "many lines", "no code"))
        )
        if kind == "put in" or not replies:
            replies.insert(at, [draw(st.sampled_from(_CODES))])
        elif kind == "leave out":
            del replies[at]
        elif kind == "double":
            replies.insert(at, list(replies[at]))
        elif kind == "change":
            replies[at] = [draw(st.sampled_from(_CODES))]
        elif kind == "move":
            replies.insert(draw(st.integers(0, len(replies) - 1)), replies.pop(at))
        elif kind == "many lines":
            replies[at] = replies[at] * draw(st.integers(2, 3))
        else:
            replies[at] = ["what"]
    said = b""
    for number, lines in enumerate(replies):
        last = len(lines) - 1
        for place, code in enumerate(lines):
            said += f"{code}{' ' if place == last else '-'}r{number}\r\n".encode()
    return said


def ends_of_replies(stream: bytes) -> list[tuple[int, int, int]]:
    """(start, end, code) of every reply that is one, up to the first that is none."""
    found: list[tuple[int, int, int]] = []
    at = 0
    while match := re.compile(rb"(?:\d{3}-[^\n]*\n)*(\d{3})(?: [^\n]*)?\r?\n").match(stream, at):
        found.append((at, match.end(), int(match[1])))
        at = match.end()
    return found


def check(stream: bytes, wire: Wire, told: list[Told]) -> None:
    replies = ends_of_replies(stream)
    for message in told:
        writes = wire.written[message.first_write : message.after_last_write]
        due = sum(owed(data) for _, data in wire.written[: message.first_write])
        if message.disposition.outcome is Outcome.DELIVERED:
            spoken, content = writes[-1]
            assert END in content
            before = [reply for reply in replies if reply[1] <= spoken]
            due += sum(owed(data) for _, data in writes[:-1])
            assert len(before) == due, "every command before the dot was answered once"
            assert spoken == (before[-1][1] if before else 0), "and not a byte more had come"
            assert 200 <= replies[due][2] < 300, "the reply to the dot is a 2xx"
            if not content.endswith(
                END
            ):  # the next was opened behind it: no 354 stands where MAIL or RCPT is answered
                behind = [code for _, end, code in replies[due + 1 : due + 3] if end <= wire.spoken]
                assert not any(300 <= code < 400 for code in behind)
        elif message.disposition.outcome is Outcome.BOUNCED:
            start, _, code = replies[int(re.findall(r"\br(\d+)", message.disposition.text)[0])]
            assert code >= 500
            writes = wire.written[message.first_write - message.opened : message.after_last_write]
            assert writes, "what was refused had been said"
            assert start >= writes[0][0], "a reply from before the message is not of the message"
        elif message.disposition.outcome is Outcome.IN_DOUBT:
            assert END in writes[-1][1], "without a dot there is no doubt"


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(at) if end > start]


@pytest.mark.parametrize(
    ("extensions", "ahead"),
    [({"pipelining": ""}, False), ({}, False), ({"pipelining": ""}, True)],
    ids=["pipelined", "in steps", "opened ahead"],
)
@given(stream=streams(), cuts=st.lists(st.integers(0, 400), max_size=30))
@example(stream=b"250 r0\r\n" * 2 + b"354 r2\r\n" + b"250 r3\r\n" * 2, cuts=[])
@example(
    stream=b"250 r0\r\n" * 2 + b"354 r2\r\n" + b"250 r3\r\n", cuts=[26]
)  # half of the last before the dot
@example(stream=(b"250 r0\r\n" * 2 + b"354 r2\r\n") * 3, cuts=[24])  # no reply to a dot
@settings(deadline=None, max_examples=400)
def test_delivered_is_said_only_where_the_dot_was_answered_with_2xx(
    stream: bytes, cuts: list[int], extensions: dict[str, str], ahead: bool
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        wire, told = runner.run(play(cut(stream, cuts), extensions, messages=3, ahead=ahead))
    assert ahead or len(told) == 3
    check(stream, wire, told)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10), st.booleans())
@settings(deadline=None, max_examples=200)
def test_nothing_that_a_receiver_says_is_an_error_of_ours(
    stream: bytes, cuts: list[int], ahead: bool
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        _, told = runner.run(play(cut(stream, cuts), {"pipelining": ""}, messages=2, ahead=ahead))
    assert ahead or len(told) == 2


async def test_a_message_each_is_delivered_where_each_reply_comes_in_its_turn() -> None:
    chunks = [b"250 a\r\n250 b\r\n354 c\r\n", b"250 d\r\n"] * 3
    _, told = await play(chunks, {"pipelining": ""}, messages=3)
    assert [message.disposition.outcome for message in told] == [Outcome.DELIVERED] * 3


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [(b"250 ok\r\n", Outcome.IN_DOUBT), (b"354 go\r\n", Outcome.IN_DOUBT), (b"552 5.3.4 too large\r\n", Outcome.BOUNCED),
     (b"421 4.3.2 bye\r\n", Outcome.DEFERRED)],
    ids=["250", "354", "552", "421"],
)  # fmt: skip
async def test_a_reply_before_all_of_the_message_has_left_accepts_nothing(
    reply: bytes, outcome: Outcome
) -> None:
    wire, channel, session = await greeted({"pipelining": ""})
    sending = asyncio.create_task(
        session.transact(Mail("b@b.example", "a@a.example", b"hello\r\n"), lambda: None)
    )
    await turn()
    wire.unsent = 5
    channel.data_received(b"250 a\r\n250 b\r\n354 c\r\n")
    await turn()
    channel.data_received(reply)
    disposition = await sending
    assert disposition.outcome is outcome
    assert not session.usable
    assert wire.closed, "the rest of the message, and its dot, never leave"


async def test_what_nobody_asked_for_is_not_kept() -> None:
    wire, channel, session = await greeted({})
    for _ in range(100):
        channel.data_received(b"250 x\r\n" * 1_000)
    assert wire.closed
    assert not session.usable
    assert len(cast(bytes, channel._rest)) < 100  # pyright: ignore[reportPrivateUsage]


async def opened_behind(
    replies: bytes, *, unsent: int = 0, timeouts: Timeouts = TIMEOUTS
) -> tuple[Disposition, Session, Mail]:
    """A message with another one opened behind it; what is said to both after the dot comes in two packets."""
    wire, channel, session = await greeted({"pipelining": ""}, timeouts)
    first, second = mail_of(0), mail_of(1)
    sending = asyncio.create_task(session.transact(first, lambda: None, ahead=lambda: second))
    await turn()
    wire.unsent = unsent
    channel.data_received(b"250 a\r\n250 b\r\n354 c\r\n")
    await turn()
    of_first, end, of_second = replies.partition(b"\r\n")
    for packet in (of_first + end, of_second):
        if packet and not wire.closed:
            channel.data_received(packet)
            await turn()
    return await sending, session, second


@pytest.mark.parametrize(("unsent", "outcome"), [(10, Outcome.DELIVERED), (200, Outcome.IN_DOUBT)])
async def test_a_message_is_accepted_though_the_commands_behind_it_are_not_taken(
    unsent: int, outcome: Outcome
) -> None:
    disposition, session, _ = await opened_behind(b"250 d\r\n250 e\r\n250 f\r\n354 g\r\n", unsent=unsent)
    assert disposition.outcome is outcome
    assert session.usable is (outcome is Outcome.DELIVERED)


async def test_a_refused_sender_that_was_opened_ahead_is_asked_for_again_elsewhere() -> None:
    disposition, session, second = await opened_behind(b"250 d\r\n550 e\r\n503 f\r\n503 g\r\n")
    assert (disposition.outcome, session.usable) == (Outcome.DELIVERED, True)
    await session.transact(second, lambda: None)
    assert (session.stale, session.usable, session.one_by_one) == (True, False, False)


async def test_a_receiver_that_throws_away_what_came_behind_a_dot_refuses_nothing() -> None:
    short = Timeouts(mail_s=0.2, in_step_s=0.01)
    disposition, session, second = await opened_behind(b"250 d\r\n", timeouts=short)
    assert (disposition.outcome, session.usable) == (Outcome.DELIVERED, True)
    await session.transact(second, lambda: None)
    assert (session.stale, session.usable, session.one_by_one) == (True, False, True)


@pytest.mark.parametrize(
    ("replies", "outcome"),
    [
        (b"250 e\r\n250 f\r\n354 g\r\n", Outcome.IN_DOUBT),  # those to MAIL, RCPT and DATA
        (b"550 e\r\n354 f\r\n", Outcome.IN_DOUBT),
        (b"250 e\r\n550 f\r\n503 g\r\n", Outcome.IN_DOUBT),
        (b"250 d\r\n250 d\r\n250 e\r\n250 f\r\n354 g\r\n", Outcome.DELIVERED),
        (b"250 d\r\n550 d\r\n250 e\r\n250 f\r\n354 g\r\n", Outcome.DELIVERED),
        (b"550 d\r\n550 d\r\n250 e\r\n250 f\r\n354 g\r\n", Outcome.BOUNCED),
        (b"250 d\r\nwhat\r\n", Outcome.DELIVERED),
    ],
)
async def test_out_of_step_behind_a_message_the_session_ends(replies: bytes, outcome: Outcome) -> None:
    disposition, session, _ = await opened_behind(replies, timeouts=Timeouts(in_step_s=0.01))
    assert disposition.outcome is outcome
    assert (session.usable, session.one_by_one) == (False, True)
