from __future__ import annotations

import pytest

from gateway.dispatch.window import LEAST, START, Window


def test_begins_small_and_never_above_what_may_be_held() -> None:
    assert Window(500).size == START
    assert Window(40).size == 40


def test_doubles_until_the_first_one_was_late() -> None:
    window = Window(500)
    window.filled()
    assert window.size == 2 * START
    window.filled()
    window.filled()
    assert window.size == 500


def test_grows_with_each_claim_that_was_filled() -> None:
    window = Window(500)
    window.late(1)
    sizes = []
    for _ in range(40):
        window.settle()
        window.filled()
        sizes.append(window.size)
    assert sizes == sorted(sizes)
    assert sizes[-1] == 500


def test_shrinks_once_however_many_were_late() -> None:
    window = Window(500)
    window.late(80)
    window.late(15)
    window.settle()
    after = window.size
    window.settle()
    assert after == window.size == int(START * 0.6)


@pytest.mark.parametrize(("most", "least"), [(500, LEAST), (3, 3)])
def test_never_shrinks_to_nothing(most: int, least: int) -> None:
    window = Window(most)
    for _ in range(50):
        window.late(1)
        window.settle()
    assert window.size == least


def test_settles_where_a_process_sends_in_time() -> None:
    # It sends 30 in the time that a delivery may be late: what waits behind them goes back.
    window, sizes = Window(500), []
    for _ in range(200):
        window.settle()
        late = max(0, window.size - 30)
        if late:
            window.late(late)
        else:
            window.filled()
        sizes.append(window.size)
    assert all(LEAST <= size <= 36 for size in sizes[20:])
