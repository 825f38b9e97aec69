"""Server-Sent Events, however they are cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import sse
from gateway.client.events import EVENT_LIMIT_BYTES, Event, EventError, Parser

STREAM = (
    sse.retry(2_000)
    + sse.event("progress", b'{"n":1}', "a")
    + sse.HEARTBEAT
    + sse.event("end", b'{"n":2}', "b")
    + b"id: c\ndata: cut off\n"
)
TOLD = [Event("progress", b'{"n":1}', "a"), None, Event("end", b'{"n":2}', "b")]


def read(pieces: list[bytes]) -> tuple[list[Event | None], Parser]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)], parser


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_what_the_gateway_writes_is_read_in_any_pieces(cuts: list[int], line_end: bytes) -> None:
    text = STREAM.replace(b"\n", line_end)
    places = [0, *sorted(cuts), len(text)]
    told, parser = read([text[a:b] for a, b in pairwise(places)])
    assert told == TOLD
    assert parser.retry_s == 2.0


def test_data_of_several_lines_and_fields_that_nobody_knows() -> None:
    told, parser = read([b"data: one\ndata:two\nwhat: ever\nretry: soon\nid: x\0y\n\n\n"])
    assert told == [Event("message", b"one\ntwo", "")]
    assert parser.retry_s is None


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(EventError, match="more than"):
        read([b"data: "] + [b"x" * 65_536] * (EVENT_LIMIT_BYTES // 65_536 + 1))


@given(st.binary())
def test_any_bytes_are_read_to_their_end(text: bytes) -> None:
    read([text])
