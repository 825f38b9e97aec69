"""Suppression lists as files: one address a line, or CSV with a header. Pure.

Owns the reading, line by line; what cannot be taken refuses its own line and no other. Must not know where the file is.

CSV has the columns `email` (required), `scope` (`all` or `marketing`), `reason` and `evidence`; others are passed over, so that what `export`
wrote can be read again. A file of bare addresses has neither header nor commas.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from gateway.model.address import AddressError, parse

COLUMNS: Final = ("email", "scope", "reason", "evidence", "created_at")
"""What `export` writes."""

_SCOPES: Final = ("all", "marketing")
REASON_LIMIT: Final = 100
EVIDENCE_LIMIT: Final = 1_000


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A line that can be taken."""

    email: str
    scope: str
    reason: str
    evidence: str


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A line that cannot: its number (from 1), and why."""

    line: int
    why: str


def read_entries(lines: Iterable[str], scope: str, reason: str) -> Iterator[Entry | Refused]:
    """Read a file; `scope` and `reason` are for lines that do not say their own. Empty lines are passed over."""
    reader = csv.reader(lines, strict=False)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refused(reader.line_num, str(error))
            continue
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if header is None:
            names = [cell.lower().removeprefix("\ufeff") for cell in cells]
            header = names if "email" in names else ["email"]
            if header is names:
                continue
            cells[0] = cells[0].removeprefix("\ufeff")
        yield _entry(reader.line_num, dict(zip(header, cells, strict=False)), scope, reason)


def _entry(line: int, row: Mapping[str, str], scope: str, reason: str) -> Entry | Refused:
    try:
        email = parse(row.get("email", "")).wire
    except AddressError as error:
        return Refused(line, f"email: {error}")
    entry = Entry(email, row.get("scope") or scope, row.get("reason") or reason, row.get("evidence", ""))
    if entry.scope not in _SCOPES:
        return Refused(line, f'scope: "{entry.scope}"; expected {" or ".join(_SCOPES)}')
    for name, text, limit in (
        ("reason", entry.reason, REASON_LIMIT),
        ("evidence", entry.evidence, EVIDENCE_LIMIT),
    ):
        if len(text) > limit or "\0" in text:
            return Refused(line, f"{name}: expected at most {limit} characters, and no NUL")
    return entry
