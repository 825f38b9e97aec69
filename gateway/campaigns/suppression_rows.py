"""A CSV file of suppressions, row by row, and the file that we make of them.

Owns the columns: `email` (required), `scope`, `reason`, `evidence`; others are passed over, so that our own export, and other systems',
can be read. A file whose first line is an address has no header: it is one address a line. Must not know where rows go. A row that cannot be
taken is refused alone, as in a file of contacts (`campaigns/csv_rows`).
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from gateway.campaigns.csv_cells import defuse, restore
from gateway.campaigns.csv_rows import Refused, records, shown, values_of
from gateway.model.address import AddressError, parse

SCOPES: Final = ("all", "marketing")
COLUMNS: Final = ("email", "scope", "reason", "evidence", "delivery", "created_at")
"""Columns of the file that we make; the last two are for people."""
REASON_LIMIT: Final = 100
EVIDENCE_LIMIT: Final = 1_000


class SuppressionRow(msgspec.Struct, frozen=True, gc=False):
    """A row that can be taken; `email` in wire form."""

    line: int
    email: str
    scope: str
    reason: str
    evidence: str


def read_suppressions(
    lines: Iterable[str], scope: str = SCOPES[0], reason: str = "import"
) -> Iterator[SuppressionRow | Refused]:
    """Read a file given as decoded lines (`errors="surrogateescape"`), with their line ends.

    Args:
        lines: the file.
        scope: of rows that do not say it.
        reason: of rows that do not say it.

    Raises:
        Invalid: there is no header, or not a usable one: nothing of the file can be read.
    """
    rest = iter(lines)
    first = next(rest, "")
    bare = first.removeprefix("\ufeff")
    is_bare = "@" in bare and "," not in bare
    begin = ["email\n", bare] if is_bare else [first] if first else []
    for record in records(itertools.chain(begin, rest)):
        line = record.line - is_bare
        if isinstance(record, Refused):
            yield msgspec.structs.replace(record, line=line)
            continue
        values = values_of(msgspec.structs.replace(record, line=line))
        yield values if isinstance(values, Refused) else _row(line, values, scope, reason)


def write_rows(rows: Iterable[Sequence[str]]) -> bytes:
    """Make lines of a CSV file; no cell of them is a formula."""
    out = io.StringIO()
    csv.writer(out).writerows([[defuse(cell) for cell in row] for row in rows])
    return out.getvalue().encode()


def _row(line: int, values: dict[str, str], scope: str, reason: str) -> SuppressionRow | Refused:
    given = restore(values.get("email", ""))
    try:
        email = parse(given).wire
    except AddressError as error:
        return Refused(line, "email", str(error), shown(given))
    scope = values.get("scope", scope).lower()
    if scope not in SCOPES:
        return Refused(line, "scope", "expected all or marketing", shown(scope))
    reason = restore(values.get("reason", reason))
    evidence = restore(values.get("evidence", ""))
    for column, text, limit in (("reason", reason, REASON_LIMIT), ("evidence", evidence, EVIDENCE_LIMIT)):
        if len(text) > limit:
            return Refused(line, column, f"{len(text)} characters; at most {limit}", shown(text))
    return SuppressionRow(line, email, scope, reason, evidence)
