"""A CSV file of contacts, row by row: each a checked contact, or why it is refused.

Owns the columns, the limits and the words of refusal. Must not know where the file comes from or where contacts go. Pure:
lines in, rows out, one at a time; memory does not grow with the file.

Columns: `email` (required), `first_name`, `last_name`, `phone`, `tags` (separated by `;`), and any other as a custom field.
A byte order mark, CRLF and quoted line ends are read; what is wrong (bad UTF-8, NUL, a huge field or line, too many columns, no
address) refuses its own row and no other.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from gateway.errors import Invalid
from gateway.model.address import AddressError, parse

COLUMNS: Final = ("email", "first_name", "last_name", "phone", "tags")
LINE_LIMIT: Final = 256 * 1024
"""Longest line, in characters; longer ones come as `TOO_LONG`."""
TOO_LONG: Final = "\0\0line too long\0\0\n"
"""What the reader of lines puts in place of a line above the limit."""

_FIELD_LIMIT: Final = 2_000
_COLUMN_LIMIT: Final = 200
_TAG_LIMIT: Final = 100
_VALUE_SHOWN: Final = 80
_HEADER: Final = re.compile(r"[a-z0-9][a-z0-9_]{0,62}")
_UNREADABLE: Final = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not UTF-8


class ContactRow(msgspec.Struct, frozen=True, gc=False):
    """A row that can be taken. `email` is in wire form, `domain` lower case with A-labels."""

    line: int
    email: str
    domain: str
    first_name: str
    last_name: str
    phone: str
    tags: tuple[str, ...]
    fields: dict[str, str]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A row that cannot: the line where it begins (from 1), the column (or none), why, and the beginning of the value."""

    line: int
    column: str
    reason: str
    value: str = ""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A row as it stands in the file: the line where it begins, the columns' names, its cells."""

    line: int
    names: tuple[str, ...]
    cells: list[str]


def read_rows(lines: Iterable[str]) -> Iterator[ContactRow | Refused]:
    """Read contacts from a file given as decoded lines (`errors="surrogateescape"`), with their line ends.

    Raises:
        Invalid: there is no header, or not a usable one: nothing of the file can be read.
    """
    for record in records(lines):
        yield record if isinstance(record, Refused) else _contact(record)


def records(lines: Iterable[str]) -> Iterator[Record | Refused]:
    """Read the rows of a file with a header, one of whose columns is `email`.

    Raises:
        Invalid: there is no header, or not a usable one: nothing of the file can be read.
    """
    csv.field_size_limit(LINE_LIMIT)
    reader = csv.reader(iter(lines), strict=False)
    try:
        names = header(next(reader))
    except StopIteration:
        raise Invalid([("", "the file is empty; expected a header line with a column email")]) from None
    except csv.Error as error:
        raise Invalid([("", f"the header cannot be read: {error}")]) from error
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refused(line, "", f"no CSV: {error}")
            continue
        if row:
            yield Record(line, names, row)


def header(row: Sequence[str]) -> tuple[str, ...]:
    """Return the columns' names in lower case, spaces as underscores.

    Raises:
        Invalid: no column `email`, a name twice or in a form that templates could not use, or too many columns.
    """
    if len(row) > _COLUMN_LIMIT:
        raise Invalid([("", f"{len(row)} columns; at most {_COLUMN_LIMIT}")])
    names = tuple(re.sub(r"[\s-]+", "_", name.strip().lower().removeprefix("\ufeff")) for name in row)
    for place, name in enumerate(names, 1):
        if not _HEADER.fullmatch(name):
            raise Invalid([("", f"column {place} has no usable name; expected letters, digits and _")])
        if name in names[: place - 1]:
            raise Invalid([("", f"the column {name} stands there twice")])
    if "email" not in names:
        raise Invalid([("", f"no column email; there are {', '.join(names[:20])}")])
    return names


def values_of(record: Record) -> dict[str, str] | Refused:
    """Return the cells that say something, by their columns, without the white space around them."""
    line, names, row = record.line, record.names, record.cells
    if TOO_LONG.strip() in row[0]:
        return Refused(line, "", f"a line of more than {LINE_LIMIT} characters")
    if len(row) > len(names):
        return Refused(line, "", f"{len(row)} fields, but the header has {len(names)} columns")
    values: dict[str, str] = {}
    for name, raw in zip(names, row, strict=False):
        if problem := _problem(raw):
            return Refused(line, name, problem, shown(raw))
        if value := raw.strip():
            values[name] = value
    return values


def shown(value: str) -> str:
    """The beginning of a value, as it can be told and stored."""
    return _UNREADABLE.sub("\ufffd", value[:_VALUE_SHOWN]).replace("\0", "\ufffd")


def _contact(record: Record) -> ContactRow | Refused:
    values = values_of(record)
    if isinstance(values, Refused):
        return values
    line, names, row = record.line, record.names, record.cells
    try:
        address = parse(values.pop("email", ""))
    except AddressError as error:
        return Refused(
            line,
            "email",
            str(error),
            shown(row[names.index("email")]) if len(row) > names.index("email") else "",
        )
    tags = tuple(dict.fromkeys(tag for part in values.pop("tags", "").split(";") if (tag := part.strip())))
    if any(len(tag) > _TAG_LIMIT for tag in tags):
        return Refused(line, "tags", f"a tag of more than {_TAG_LIMIT} characters")
    return ContactRow(
        line=line,
        email=address.wire,
        domain=address.domain,
        first_name=values.pop("first_name", ""),
        last_name=values.pop("last_name", ""),
        phone=values.pop("phone", ""),
        tags=tags,
        fields=values,
    )


def _problem(value: str) -> str:
    if len(value) > _FIELD_LIMIT:
        return f"{len(value)} characters; at most {_FIELD_LIMIT}"
    if "\0" in value:
        return "a NUL character"
    if not value.isascii() and _UNREADABLE.search(value):
        return "not UTF-8"
    return ""
