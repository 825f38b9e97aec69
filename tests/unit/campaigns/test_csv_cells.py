"""Cells of exported files: no spreadsheet computes them, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.campaigns.csv_cells import defuse, restore

CELLS = st.text(st.sampled_from("=+-@\t\r'a\n \""), max_size=6)


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_what_begins_as_a_formula_gets_an_apostrophe(begin: str) -> None:
    assert defuse(f"{begin}cmd|' /C calc'!A0") == f"'{begin}cmd|' /C calc'!A0"
    assert defuse(begin) == f"'{begin}"


@pytest.mark.parametrize("cell", ["", "a", "a=1", "o'neil@x.example", "'", "1", " =1"])
def test_what_is_none_stays_as_it_is(cell: str) -> None:
    assert defuse(cell) == restore(cell) == cell


@given(CELLS | st.text())
def test_a_cell_is_what_it_was_again(cell: str) -> None:
    assert not defuse(cell).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert restore(defuse(cell)) == cell
