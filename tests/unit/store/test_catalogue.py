"""The form of the query files."""

from __future__ import annotations

import pytest

from gateway.store.catalogue import CatalogueError, load, parse

TWO = """\
-- What this file is for.

-- name: claim_rows
-- Takes up to $1 rows,
-- oldest first.
SELECT id -- with its own comment
FROM queue
LIMIT $1;

-- A heading between two queries.

-- name: count_rows
-- All of them.
SELECT count(*) FROM queue
"""


def test_queries_are_plain_strings_without_the_semicolon() -> None:
    queries = parse(TWO, "queue.sql")
    assert queries.claim_rows == "SELECT id -- with its own comment\nFROM queue\nLIMIT $1"
    assert type(queries.claim_rows) is str  # asyncpg takes no subclass
    assert queries.count_rows == "SELECT count(*) FROM queue"


def test_iterating_gives_names_and_docs_in_the_order_of_the_file() -> None:
    assert [(query.name, query.doc) for query in parse(TWO, "queue.sql")] == [
        ("claim_rows", "Takes up to $1 rows,\noldest first."),
        ("count_rows", "All of them."),
    ]


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    queries = parse(TWO, "queue.sql")
    with pytest.raises(
        AttributeError, match=r"queue\.sql has no query named claim_row; did you mean claim_rows\?"
    ):
        _ = queries.claim_row


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1", "no query; each starts with"),
        ("SELECT 1;\n-- name: a\n-- doc\nSELECT 2", "SQL before the first"),
        ("-- name: a\nSELECT 1", "a has no line of doc"),
        ("-- name: a\n--\nSELECT 1", "a has no line of doc"),
        ("-- name: a\n-- doc\n", "a has no SQL"),
        ("-- name: a\n-- doc\n;\n", "a has no SQL"),
        ("-- name: a\n-- doc\nSELECT 1\n-- name: a\n-- doc\nSELECT 2", "a stands there twice"),
        ("-- name: Claim\n-- doc\nSELECT 1", "'Claim' is no name"),
        ("-- name:\n-- doc\nSELECT 1", "'' is no name"),
    ],
)
def test_a_malformed_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        parse(text, "queue.sql")


def test_load_reads_the_packages_own_files() -> None:
    assert load("migrate").unlock.startswith("SELECT pg_advisory_unlock")
    with pytest.raises(CatalogueError, match=r"has no file nothing_here\.sql"):
        load("nothing_here")
