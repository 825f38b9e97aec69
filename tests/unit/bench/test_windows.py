from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.rate import OVER, least_in_window, most_in_window, most_over

MOMENTS = st.lists(st.integers(0, 200), min_size=1, max_size=60).map(sorted)


def test_counts_the_fullest_window_wherever_it_begins() -> None:
    assert most_in_window([0.0, 0.9, 1.0, 1.1, 1.8, 5.0], 1.0) == 4
    assert most_in_window([0.0, 1.0, 2.0], 1.0) == 1


def test_counts_the_emptiest_window_between_first_and_last() -> None:
    assert least_in_window([0.0, 1.0, 2.0, 3.0, 9.0, 10.0, 11.0], 3.0) == 0
    assert least_in_window([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2.5) == 2


def test_moments_that_do_not_fill_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        least_in_window([0.0, 1.0], 2.0)


@given(MOMENTS, st.integers(1, 50))
def test_no_window_holds_more_than_the_fullest(moments: list[int], window: int) -> None:
    slow = max(sum(begin <= at < begin + window for at in moments) for begin in moments)
    assert most_in_window([float(at) for at in moments], float(window)) == slow


@given(MOMENTS, st.floats(0.1, 3), st.integers(1, 5), st.integers(1, 20))
def test_no_window_of_the_least_length_or_longer_is_fuller(
    moments: list[int], rate: float, burst: int, least: int
) -> None:
    slow = max(
        last - first + 1 - OVER * (rate * max(least, moments[last] - moments[first]) + burst)
        for last in range(len(moments))
        for first in range(last + 1)
        if moments[last] - moments[first] >= least or moments[last] - least < moments[first]
    )
    assert most_over([float(at) for at in moments], rate, burst, float(least)) == pytest.approx(slow)


@given(MOMENTS.filter(lambda m: m[-1] - m[0] >= 20), st.integers(1, 20))
def test_no_window_holds_less_than_the_emptiest(moments: list[int], window: int) -> None:
    begins = [b / 2 for b in range(2 * moments[0], 2 * (moments[-1] - window) + 1)]
    slow = min(sum(begin < at <= begin + window for at in moments) for begin in begins)
    assert least_in_window([float(at) for at in moments], float(window)) == slow
