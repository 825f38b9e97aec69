"""What is kept of a lane's refusal says to everybody what it means, and to operators what was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.disposition import BounceClass, Disposition, Outcome
from gateway.model.lane_why import LaneRefusal, lane_why, refusal_of


@given(
    st.sampled_from(BounceClass),
    st.sampled_from([0, 421, 450, 554]),
    st.sampled_from([None, "4.7.1", "5.10.255"]),
    st.text(max_size=400),
)
def test_class_and_codes_come_back_whatever_was_said(
    bounce_class: BounceClass, code: int, enhanced: str | None, text: str
) -> None:
    why = lane_why(Disposition(Outcome.DEFERRED, bounce_class, code, enhanced, text))
    codes = " ".join(str(part) for part in (code, enhanced) if part)
    assert refusal_of(why) == LaneRefusal(bounce_class, codes)
    assert why.endswith(text[:300])


@pytest.mark.parametrize(
    "why", ["", "421 4.7.0 <ann@a.example> too many", "stopped by hand", "rate 4217 x: y", "slow: y"]
)
def test_words_of_others_say_nothing_to_everybody(why: str) -> None:
    assert refusal_of(why) is None
