"""What the replies behind a message's say of it: a table, and every single fault of a receiver that is sound otherwise."""

from __future__ import annotations

import pytest

from gateway.mta.step import Step, step_behind

TAKEN, NO_SENDER, NO_RECIPIENT, NO_DATA = (250, 250, 354), (550, 503, 503), (250, 550, 503), (250, 250, 451)
OPENINGS = (TAKEN, NO_SENDER, NO_RECIPIENT, NO_DATA)


@pytest.mark.parametrize(
    ("codes", "step"),
    [
        (TAKEN, Step.IN),
        (NO_SENDER, Step.IN),
        (NO_RECIPIENT, Step.IN),
        (NO_DATA, Step.IN),
        ((250, 251, 354), Step.IN),
        ((421,), Step.IN),  # the connection's end
        ((250, 421), Step.IN),
        ((250,), Step.IN),  # a receiver that looks long at recipients
        ((250, 250), Step.IN),
        ((), Step.OPEN),
        ((250, 550), Step.OPEN),
        ((550, 503), Step.OPEN),
        ((250, 354), Step.TOO_FEW),
        ((354,), Step.TOO_FEW),
        ((354, 250, 250), Step.TOO_FEW),
        ((250, 250, 250), Step.TOO_MANY),
        ((550, 250), Step.TOO_MANY),
        ((550, 250, 250), Step.TOO_MANY),
    ],
)
def test_step(codes: tuple[int, ...], step: Step) -> None:
    assert step_behind(codes) is step


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_dot_without_an_answer_is_never_in_step(opening: tuple[int, int, int]) -> None:
    assert step_behind(opening[1:]) in (Step.TOO_FEW, Step.OPEN)


@pytest.mark.parametrize("opening", [TAKEN, NO_RECIPIENT, NO_DATA])
@pytest.mark.parametrize("answer", [250, 450, 550])
def test_an_answer_that_is_said_twice_leaves_no_doubt(opening: tuple[int, int, int], answer: int) -> None:
    assert step_behind((answer, *opening[:2])) in (Step.TOO_MANY, Step.IN)
