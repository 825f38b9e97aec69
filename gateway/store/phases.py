"""Which code works with which schema: the phases of migrations. Pure.

The version of a schema, and of code, is the number of the newest migration that it has. While a fleet is upgraded node by node, code
of two versions works on one schema, so a migration says in a line of its own what it asks of the code beside it:

    -- phase: expand                    adds something; code that knows nothing of it goes on working
    -- phase: contract from 0018        takes away what code from 0018 on does not use

One that says neither changes what is there: only code that has it works with it, and every older node has to end first.

Two numbers follow. `code_from`, kept in the database with each migration: the oldest code that works with the schema as it stands from
there on. `oldest_schema`, known to the code: the oldest schema that it works with itself, which is its newest migration that is no
contract, since what a contract takes away it does not use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

_LINE: Final = re.compile(r"^-- phase:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_CONTRACT: Final = re.compile(r"contract from (\d{4})")


class Phase(StrEnum):
    """What a migration does to the code that works beside it."""

    EXPAND = "expand"
    CONTRACT = "contract"
    CHANGE = "change"


def read_phase(sql: str, number: int, code_from_before: int) -> tuple[Phase, int]:
    """Return a migration's phase and the oldest code that works with the schema after it.

    Args:
        sql: the migration's text.
        number: its number.
        code_from_before: what this function gave for the migration before; 0 for the first.

    Raises:
        ValueError: the line is there twice or cannot be read, or names code that is newer than the migration.
    """
    said = _LINE.findall(sql)
    if not said:
        return Phase.CHANGE, number
    if len(said) > 1:
        raise ValueError(f"{len(said)} lines begin with `-- phase:`; a migration has one phase: split it")
    if said[0] == Phase.EXPAND:
        return Phase.EXPAND, code_from_before
    if (found := _CONTRACT.fullmatch(said[0])) is None:
        raise ValueError(f"no phase `{said[0]}`; expected `expand` or `contract from 0018`")
    code_from = int(found[1])
    if code_from > number:
        raise ValueError(f"contract from {found[1]}: no code has that one and not {number:04} itself")
    return Phase.CONTRACT, max(code_from, code_from_before)


def oldest_schema(phases: Iterable[tuple[int, Phase]]) -> int:
    """Return the oldest schema that code with these migrations (number, phase) works with; 0 without any."""
    return max((number for number, phase in phases if phase is not Phase.CONTRACT), default=0)
