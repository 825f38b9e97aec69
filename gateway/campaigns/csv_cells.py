"""Cells of CSV files that we write: what a spreadsheet would take for a formula is made text, and made what it was again. Pure.

Owns the one rule: a cell whose first character, apostrophes aside, is `=`, `+`, `-`, `@`, a tab or a carriage return gets an apostrophe in
front. Two cells never become the same, so that what was exported can be imported again. Must not know what the cells mean.
"""

from __future__ import annotations

from typing import Final

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


def defuse(cell: str) -> str:
    """Make a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.lstrip("'").startswith(_FORMULAS) else cell


def restore(cell: str) -> str:
    """Return what `defuse` was given; a cell that it did not change stays as it is."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULAS) else cell
