"""Lines of a transcript as they are shown: hostile bytes become text that a terminal shows and Postgres takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.trace import printable
from gateway.store.traces import LINE_BYTES_MAX, Kind, Request


@given(st.binary(max_size=LINE_BYTES_MAX * 2))
def test_any_bytes_become_printable_text_within_the_limit(line: bytes) -> None:
    text = printable(line)
    assert text.isprintable()
    assert len(text.encode()) <= LINE_BYTES_MAX


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200))
def test_plain_text_stays_as_it_is(line: str) -> None:
    assert printable(line.encode()) == line


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"250 ok\x1b[2J", r"250 ok\x1b[2J"),
        (b"250 a\x00b", r"250 a\x00b"),
        (b"250 \xff", r"250 \xff"),
        ("RCPT TO:<jörg@b.example>".encode(), "RCPT TO:<jörg@b.example>"),
        ("250 \u202etxt".encode(), r"250 \u202etxt"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(line: bytes, shown: str) -> None:
    assert printable(line) == shown


@pytest.mark.parametrize(
    "line", [b"x" * (LINE_BYTES_MAX + 1), b"\x00" * LINE_BYTES_MAX, "ö".encode() * LINE_BYTES_MAX]
)
def test_a_long_line_is_cut_with_a_mark(line: bytes) -> None:
    text = printable(line)
    assert text.endswith("… [cut]")
    assert LINE_BYTES_MAX - 4 < len(text.encode()) <= LINE_BYTES_MAX


@pytest.mark.parametrize(
    ("kind", "wanted"), [(Kind.LANE, (7, 1, 2)), (Kind.MESSAGE, (1, 7, 2)), (Kind.DELIVERY, (1, 2, 7))]
)
def test_a_request_wants_its_own_kind_alone(kind: Kind, wanted: tuple[int, int, int]) -> None:
    request = Request(1, kind, 7, 60.0, 10)
    assert [request.wants(*ids) for ids in ((7, 1, 2), (1, 7, 2), (1, 2, 7))] == [
        ids == wanted for ids in ((7, 1, 2), (1, 7, 2), (1, 2, 7))
    ]
