"""`/v1/imports` as calls. Pure: a file is named here, and read when it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.client.call import CSV, PAGE_SIZE, Call, Page, Pages, at, query_of
from gateway.client.results import Import, RowError

TIMEOUT_S: Final = 3_600.0
"""The answer comes when the import has ended."""


def create(file: Path | bytes, *, to_list: str = "", idempotency_key: str = "") -> Call[Import]:
    """Import contacts from CSV (a file, or its content), into a list: its id, or the name of one to make.

    Returns when it has ended; rows that were refused are in `errors`. Only after a connection that broke may it be `running` still: `get` tells.
    """
    return Call(
        "POST",
        "/v1/imports",
        Import,
        query_of(list=to_list or None),
        file,
        CSV,
        idempotency_key,
        TIMEOUT_S,
    )


def get(import_id: str) -> Call[Import]:
    """Show an import and how far it came."""
    return Call("GET", at("/v1/imports/{}", import_id), Import)


def find(*, page_size: int = PAGE_SIZE) -> Pages[Import]:
    """All imports."""
    return Pages("/v1/imports", Page[Import], page_size=page_size)


def errors(import_id: str, *, page_size: int = PAGE_SIZE) -> Pages[RowError]:
    """Why rows were refused, by line; the first 10,000 are kept."""
    return Pages(at("/v1/imports/{}/errors", import_id), Page[RowError], page_size=page_size)


def template() -> Call[str]:
    """A CSV file to start from."""
    return Call("GET", "/v1/imports/template.csv", str)
