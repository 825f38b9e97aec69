"""Bare CR and LF, endless lines and endless sessions end a connection, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.feedback.line_guard import LineGuard

GOOD = b"EHLO a\r\nMAIL FROM:<>\r\n\r\n.\r\n"


def feed(data: bytes, cuts: list[int] | None = None, **limits: int) -> bytes:
    guard = LineGuard(**limits)
    places = [0, *sorted(cuts or []), len(data)]
    for start, end in pairwise(places):
        if said := guard.check(data[start:end]):
            return said
    return b""


@pytest.mark.parametrize(
    "data", [b"a\n.\nb", b"a\r.\rb\r\n", b"a\n.\r\n", b"\n", b"a\r\r\n", b"a\r\n\n", b"MAIL\nRCPT\r\n"]
)
def test_refuses_bare_cr_and_lf(data: bytes) -> None:
    assert feed(data).startswith(b"500 5.5.2 bare")
    assert feed(data, list(range(len(data)))).startswith(b"500 5.5.2 bare")


@given(st.lists(st.integers(0, len(GOOD)), max_size=8))
def test_takes_good_lines_however_they_are_cut(cuts: list[int]) -> None:
    assert feed(GOOD, cuts) == b""


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_the_verdict_does_not_depend_on_the_cuts(data: bytes, cuts: list[int]) -> None:
    whole = feed(data)
    assert feed(data, [min(cut, len(data)) for cut in cuts]) == whole


def test_a_last_cr_waits_for_what_comes() -> None:
    guard = LineGuard()
    assert guard.check(b"a\r") == b""
    assert guard.check(b"\n") == b""
    assert guard.check(b"b\r") == b""
    assert guard.check(b"c").startswith(b"500")


def test_an_endless_line_ends_within_its_limit() -> None:
    guard = LineGuard(longest_line=100)
    assert guard.check(b"x" * 60) == b""
    assert guard.check(b"y" * 40) == b""
    assert guard.check(b"z").startswith(b"500 5.5.2 line too long")
    assert feed((b"x" * 100 + b"\r\n") * 3, longest_line=100) == b""


def test_an_endless_session_ends() -> None:
    assert feed(b"x\r\n" * 50, most=100).startswith(b"421 4.3.4")
