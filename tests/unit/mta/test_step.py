"""What the replies behind a message's say of it: a table, and every single fault of a receiver that is sound otherwise."""

from __future__ import annotations

import pytest

from gateway.mta.step import Step, step_behind

TAKEN, NO_SENDER, NO_RECIPIENT, NO_DATA = (250, 250, 354), (550, 503, 503), (250, 550, 503), (250, 250, 451)
OPENINGS = (TAKEN, NO_SENDER, NO_RECIPIENT, NO_DATA)


@pytest.mark.parametrize(
    ("codes", "silent", "step"),
    [
        (TAKEN, False, Step.IN),
        (NO_SENDER, False, Step.IN),
        (NO_RECIPIENT, False, Step.IN),
        (NO_DATA, False, Step.IN),
        ((250, 251, 354), False, Step.IN),
        ((421,), False, Step.IN),  # the connection's end
        ((250, 421), True, Step.IN),
        ((), True, Step.IN),
        ((250,), True, Step.IN),  # a receiver that looks long at recipients
        ((250, 250), True, Step.IN),
        ((250, 550), False, Step.IN),  # … and closed
        ((250, 550), True, Step.TOO_FEW),
        ((550, 503), True, Step.TOO_FEW),
        ((250, 354), False, Step.TOO_FEW),
        ((354,), False, Step.TOO_FEW),
        ((354, 250, 250), False, Step.TOO_FEW),
        ((250, 250, 250), False, Step.TOO_MANY),
        ((550, 250), False, Step.TOO_MANY),
        ((550, 250, 250), False, Step.TOO_MANY),
    ],
)
def test_step(codes: tuple[int, ...], silent: bool, step: Step) -> None:
    assert step_behind(codes, silent=silent) is step


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_dot_without_an_answer_is_seen_whatever_becomes_of_the_next(opening: tuple[int, int, int]) -> None:
    assert step_behind(opening[1:], silent=True) is Step.TOO_FEW


@pytest.mark.parametrize("opening", [TAKEN, NO_RECIPIENT, NO_DATA])
@pytest.mark.parametrize("answer", [250, 450, 550])
def test_an_answer_that_is_said_twice_leaves_no_doubt(opening: tuple[int, int, int], answer: int) -> None:
    assert step_behind((answer, *opening[:2]), silent=False) in (Step.TOO_MANY, Step.IN)
