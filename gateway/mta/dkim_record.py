"""Whether DNS has the DKIM key record that a domain was told to publish. Pure.

Owns the comparison (RFC 6376 §3.6.1): by what the tags mean, since providers split, fold and reorder the text. Must not know how DNS is
asked (`mta/dns`), nor what follows.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from gateway.mta.mx_plan import Absent, Answer, Found


class RecordState(StrEnum):
    """How a record stands in DNS."""

    FOUND = "found"
    OTHER = "other"
    """Something else is published there: another key, a mistyped one, or several."""
    MISSING = "missing"
    UNANSWERED = "unanswered"
    """DNS gave no answer that says anything."""


class RecordCheck(msgspec.Struct, frozen=True):
    """A record and what was found in its place; `why` is for what was not answered."""

    state: RecordState
    found: tuple[str, ...] = ()
    why: str = ""


def check_record(expected: str, answer: Answer[str]) -> RecordCheck:
    """Compare a key record with the TXT records at its name. Other TXT records (a wildcard's) do not matter, a second key does."""
    if isinstance(answer, Absent):
        return RecordCheck(RecordState.MISSING)
    if not isinstance(answer, Found):
        return RecordCheck(RecordState.UNANSWERED, why=answer.why)
    keys = [value for value in answer.values if "p" in tags(value)]
    if [_meaning(value) for value in keys] == [_meaning(expected)]:
        return RecordCheck(RecordState.FOUND, tuple(keys))
    return RecordCheck(RecordState.OTHER, answer.values)


def tags(value: str) -> dict[str, str]:
    """Read a tag list (RFC 6376 §3.2), without white space in its values; of a name that stands twice, the first."""
    found: dict[str, str] = {}
    for part in value.split(";"):
        name, equals, text = part.partition("=")
        if equals:
            found.setdefault(name.strip(), re.sub(r"\s", "", text))
    return found


def _meaning(value: str) -> tuple[str, str, str]:
    read = tags(value)
    return read.get("v", "DKIM1"), read.get("k", "rsa"), read["p"]
