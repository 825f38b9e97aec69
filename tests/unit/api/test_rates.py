"""Requests of one key: its rate over any window, a burst after a pause, and nobody else's trouble."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import rates as rates_module
from gateway.api.rates import Rates
from gateway.errors import RateLimited
from tests.support.clock import FakeClock


def takes(rates: Rates, key: int, rate_per_s: float, burst: int) -> bool:
    try:
        rates.take(key, rate_per_s, burst)
    except RateLimited:
        return False
    return True


def test_a_burst_is_taken_at_once_and_then_the_rate_with_the_time_to_wait() -> None:
    clock = FakeClock()
    rates = Rates(clock)
    assert [takes(rates, 1, 2.0, 3) for _ in range(4)] == [True, True, True, False]
    with pytest.raises(RateLimited) as refused:
        rates.take(1, 2.0, 3)
    assert refused.value.retry_after_s == pytest.approx(0.5)
    clock.skip(refused.value.retry_after_s)
    assert takes(rates, 1, 2.0, 3)
    assert not takes(rates, 1, 2.0, 3)


def test_one_keys_requests_are_not_anothers() -> None:
    rates = Rates(FakeClock())
    assert takes(rates, 1, 1.0, 1)
    assert not takes(rates, 1, 1.0, 1)
    assert takes(rates, 2, 1.0, 1)


@given(
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60),
    st.floats(0.5, 50.0),
    st.integers(1, 10),
)
def test_no_window_sees_more_than_rate_and_burst(gaps: list[float], rate_per_s: float, burst: int) -> None:
    clock = FakeClock()
    rates = Rates(clock)
    taken: list[float] = []
    for gap_s in gaps:
        clock.skip(gap_s)
        if takes(rates, 1, rate_per_s, burst):
            taken.append(clock.monotonic())
    for first, began in enumerate(taken):
        for last in range(first, len(taken)):
            window_s = taken[last] - began
            assert last - first + 1 <= rate_per_s * window_s + burst + 1e-6


def test_keys_that_ask_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "_KEPT", 10)
    clock = FakeClock()
    rates = Rates(clock)
    for key in range(100):
        clock.skip(1.0)
        assert takes(rates, key, 10.0, 1)
        assert len(rates._tats) <= 10


def test_each_answer_says_what_is_left_and_when_all_is_there_again() -> None:
    clock = FakeClock()
    rates = Rates(clock)
    said = [rates.take(1, 2.0, 3) for _ in range(3)]
    assert [one["ratelimit"] for one in said] == ['"key";r=2;t=1', '"key";r=1;t=1', '"key";r=0;t=2']
    assert {one["ratelimit-policy"] for one in said} == {'"key";q=3;w=2'}
    clock.skip(1.0)
    assert rates.take(1, 2.0, 3)["ratelimit"] == '"key";r=1;t=1'


@given(rate_per_s=st.floats(0.01, 10_000), burst=st.integers(1, 1_000))
def test_what_is_said_to_be_left_is_taken(rate_per_s: float, burst: int) -> None:
    rates = Rates(FakeClock())
    left = int(rates.take(1, rate_per_s, burst)["ratelimit"].split(";")[1].removeprefix("r="))
    assert left == burst - 1
    assert all(takes(rates, 1, rate_per_s, burst) for _ in range(left))
    assert not takes(rates, 1, rate_per_s, burst)
