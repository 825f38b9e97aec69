"""Where a message ends, however it is cut into blocks: at CRLF.CRLF and nowhere else."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mta.mime import dot_stuff
from gateway.submission.dots import DotReader, unclean

LINES = st.lists(
    st.sampled_from([b"", b".", b"..", b".a", b"a.", b"text", b"\n.\n", b"\r.\r", b"\n.\r"]), max_size=8
)


def read(stream: bytes, cuts: list[int], limit: int = 10_000) -> tuple[DotReader, bytes]:
    """Feed a stream in blocks; the reader, and what was behind the end."""
    reader = DotReader(limit)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    for start, end in pairwise(places):
        rest = reader.feed(stream[start:end])
        if rest is not None:
            return reader, rest + stream[end:]
    raise AssertionError("no end was found")


@given(LINES, st.lists(st.integers(0, 80), max_size=6), st.sampled_from([b"", b"QUIT\r\n", b".\r\n"]))
@example([], [], b"")
@example([b"."], [1, 2, 3, 4, 5], b"QUIT\r\n")
def test_what_was_stuffed_comes_out_again(lines: list[bytes], cuts: list[int], behind: bytes) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    stuffed = dot_stuff(message) if message else b""
    reader, rest = read(stuffed + b".\r\n" + behind, cuts)
    assert reader.content() == message
    assert rest == behind


@pytest.mark.parametrize("smuggled", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n"])
def test_nothing_but_crlf_dot_crlf_ends_a_message(smuggled: bytes) -> None:
    reader = DotReader(1_000)
    assert reader.feed(b"a" + smuggled + b"MAIL FROM:<x@y.example>\r\n") is None
    assert reader.feed(b".\r\n") == b""
    assert unclean(reader.content())


def test_a_message_beyond_the_limit_is_read_to_its_end_and_not_kept() -> None:
    reader = DotReader(100)
    assert reader.feed(b"x" * 101) is None
    assert (reader.dropped, reader.too_large, reader.kept_bytes) == (True, True, 0)
    assert reader.feed(b"\r\n.\r\nNOOP\r\n") == b"NOOP\r\n"
    assert reader.content() == b""


def test_a_message_without_end_is_known_for_one() -> None:
    reader = DotReader(100)
    while not reader.endless:
        assert reader.feed(b"x" * 65_536) is None
    assert reader.kept_bytes == 0


def test_what_was_dropped_is_not_kept_and_still_ends() -> None:
    reader = DotReader(1_000)
    reader.feed(b"some")
    reader.drop()
    assert reader.feed(b"thing\r\n.\r\n") == b""
    assert (reader.dropped, reader.too_large, reader.content()) == (True, False, b"")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\r\nb\r\n", ""),
        (b"a\nb\r\n", "bare"),
        (b"a\rb\r\n", "bare"),
        (b"a\0b\r\n", "NUL"),
        ("ü\r\n".encode(), ""),
    ],
)
def test_octets_that_cannot_be_sent_on_are_named(content: bytes, says: str) -> None:
    assert says in unclean(content)
    assert bool(says) == bool(unclean(content))
