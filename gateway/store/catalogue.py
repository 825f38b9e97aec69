"""The named queries of `gateway/store/sql/*.sql`: read once at import, used as strings.

Owns the form of those files. Must not know what a query is for, nor a connection.

A file holds queries in this form; text before the first name may only be comments:

    -- name: claim_rows
    -- Takes up to $2 due deliveries of lane $1, oldest first.
    SELECT ...

A module of the store loads its file once, so that a name that does not exist stops the import:

    _SQL = load("queue")
    CLAIM_ROWS = _SQL.claim_rows
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Final

import msgspec

from gateway.errors import GatewayError

_NAME: Final = re.compile(r"^-- name:\s*(?P<name>\S*)\s*$", re.MULTILINE)
_IDENTIFIER: Final = re.compile(r"[a-z][a-z0-9_]*")


class CatalogueError(GatewayError):
    """A file of queries that is not in the form the module describes; the message names file and query."""


class Query(msgspec.Struct, frozen=True):
    """One named SQL statement.

    Attributes:
        name: as in its `-- name:` line.
        doc: its comment lines, joined by newlines.
        sql: the statement, without a trailing semicolon.
    """

    name: str
    doc: str
    sql: str


class Catalogue:
    """The statements of one file, as attributes; iterating gives them with their docs, in the order of the file."""

    def __init__(self, file: str, queries: Sequence[Query]) -> None:
        self._file = file
        self._queries = tuple(queries)
        # Plain strings: asyncpg takes no subclass of str, and a look-up here costs no call.
        vars(self).update((query.name, query.sql) for query in queries)

    def __getattr__(self, name: str) -> str:
        """Refuse an unknown name (known ones are found before this is called)."""
        near = difflib.get_close_matches(name, vars(self), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise AttributeError(f"{vars(self).get('_file', 'sql')} has no query named {name}{hint}")

    def __iter__(self) -> Iterator[Query]:
        """The queries, in the order of the file."""
        return iter(self._queries)


def load(name: str) -> Catalogue:
    """The queries of `gateway/store/sql/<name>.sql`.

    Raises:
        CatalogueError: there is no such file, or it is malformed.
    """
    file = f"{name}.sql"
    source = resources.files("gateway.store") / "sql" / file
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CatalogueError(f"gateway/store/sql has no file {file}") from None
    return parse(text, file)


def parse(text: str, file: str) -> Catalogue:
    """Read the text of a query file; `file` is what messages call it.

    Raises:
        CatalogueError: SQL before the first name, a name twice or not in snake_case, a query without a line of doc or
            without SQL.
    """
    queries: dict[str, Query] = {}
    heads = list(_NAME.finditer(text))
    if not heads:
        raise CatalogueError(f"{file}: no query; each starts with a line `-- name: some_name`")
    preamble = text[: heads[0].start()]
    if any(line.strip() and not line.startswith("--") for line in preamble.splitlines()):
        raise CatalogueError(f"{file}: SQL before the first `-- name:` line")
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        name = head["name"]
        body = text[head.end() : after.start() if after else len(text)]
        if not _IDENTIFIER.fullmatch(name):
            raise CatalogueError(f"{file}: {name!r} is no name: lower case letters, digits and _")
        if name in queries or hasattr(Catalogue, name):
            raise CatalogueError(f"{file}: {name} stands there twice, or is a reserved word")
        queries[name] = _query(name, body, file)
    return Catalogue(file, list(queries.values()))


def _query(name: str, body: str, file: str) -> Query:
    lines = body.strip().splitlines()
    doc: list[str] = []
    while lines and lines[0].startswith("--"):
        doc.append(lines.pop(0).removeprefix("--").strip())
    # Trailing comment lines belong to the next section of the file, not to this query.
    while lines and (not lines[-1].strip() or lines[-1].startswith("--")):
        lines.pop()
    sql = "\n".join(lines).strip().removesuffix(";").rstrip()
    if not any(doc):
        raise CatalogueError(f"{file}: {name} has no line of doc below its name")
    if not sql:
        raise CatalogueError(f"{file}: {name} has no SQL")
    return Query(name=name, doc="\n".join(doc), sql=sql)
