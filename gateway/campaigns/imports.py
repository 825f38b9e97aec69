"""Contacts from a CSV file into a site, in batches.

Owns the batches, the merging inside one, and the import's record. Must not know HTTP, nor what a row may look like
(`campaigns/csv_rows`). Flow: file → lines of bounded length → rows → 1,000 at a time: merge those with the same address, write
contacts, members, errors and counts in one transaction.

The file is read and parsed in a worker thread, the database is talked to in between: the loop stays free, and memory holds one
batch whatever the file's size.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator
from typing import IO, Final

import asyncpg
import msgspec

from gateway.campaigns.csv_rows import COLUMNS, LINE_LIMIT, TOO_LONG, ContactRow, Refused, read_rows
from gateway.errors import Invalid, StoreUnavailable
from gateway.store import contacts
from gateway.store.contacts import Import, Merged, NewContact, RowError
from gateway.store.tenancy import as_site
from gateway.telemetry import Event, log

BATCH: Final = 1_000
ERRORS_KEPT: Final = 10_000
"""Errors of one import that can be read back; the others are only counted."""


class _Batch(msgspec.Struct):
    rows: int
    contacts: list[NewContact]
    doubles: int
    refused: list[RowError]


async def run_import(pool: asyncpg.Pool, site_id: int, started: Import, file: IO[bytes]) -> Import:
    """Read a whole file (at its beginning) into the import's list; return the record as it ended.

    A file that cannot be read at all ends as `failed`, with the reason as `detail`; bad rows do not fail it.

    Raises:
        StoreUnavailable: Postgres went away; the batches before stand, and the import is marked failed if that can be done.
    """
    rows = read_rows(read_lines(file))
    kept = 0
    status, detail = "completed", ""
    try:
        while batch := await asyncio.to_thread(_next_batch, rows):
            async with as_site(pool, site_id) as connection:
                merged = await contacts.merge_contacts(
                    connection, site_id, started.list_id, batch.contacts, "import"
                )
                errors = batch.refused[: ERRORS_KEPT - kept]
                if errors:
                    await contacts.add_row_errors(connection, site_id, started.id, errors)
                kept += len(errors)
                counted = Merged(merged.created, merged.merged + batch.doubles)
                await contacts.note_import(connection, started.id, batch.rows, counted, len(batch.refused))
    except Invalid as error:
        status, detail = "failed", str(error)
    except StoreUnavailable:
        await _try_to_fail(pool, site_id, started.id)
        raise
    async with as_site(pool, site_id) as connection:
        ended = await contacts.end_import(connection, started.id, status, detail)
    log.info(
        Event.IMPORT_DONE,
        import_id=ended.id,
        rows=ended.rows_read,
        errors=ended.refused,
        duration_s=(ended.ended_at - ended.created_at).total_seconds() if ended.ended_at else None,
    )
    return ended


def csv_template() -> str:
    """The file to start from: a header and one example."""
    out = io.StringIO()
    csv.writer(out).writerows(
        [
            (*COLUMNS, "company"),
            ("ada@example.com", "Ada", "Lovelace", "+442079460000", "prospect;london", "Analytical Engines"),
        ]
    )
    return out.getvalue()


def _next_batch(rows: Iterator[ContactRow | Refused]) -> _Batch | None:
    batch = _Batch(rows=0, contacts=[], doubles=0, refused=[])
    by_key: dict[str, NewContact] = {}
    for row in rows:
        batch.rows += 1
        if isinstance(row, Refused):
            batch.refused.append(RowError(row.line, row.column, row.reason, row.value))
        else:
            key = row.email.lower()
            before = by_key.get(key)
            batch.doubles += before is not None
            by_key[key] = _merge(before, row)
        if batch.rows == BATCH:
            break
    batch.contacts = list(by_key.values())
    return batch if batch.rows else None


def _merge(before: NewContact | None, row: ContactRow) -> NewContact:
    """The later row wins where it says something; as the database merges with what it has."""
    if before is None:
        return NewContact(
            row.email, row.domain, row.first_name, row.last_name, row.phone, row.tags, row.fields
        )
    return NewContact(
        email=before.email,
        domain=before.domain,
        first_name=row.first_name or before.first_name,
        last_name=row.last_name or before.last_name,
        phone=row.phone or before.phone,
        tags=tuple(dict.fromkeys((*before.tags, *row.tags))),
        fields={**before.fields, **row.fields},
    )


def read_lines(file: IO[bytes]) -> Iterator[str]:
    """Decoded lines; one above the limit is read past and comes as `TOO_LONG`. Bytes that are not UTF-8 stay visible."""
    while line := file.readline(LINE_LIMIT):
        if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
            while (rest := file.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
                pass
            yield TOO_LONG
        else:
            yield line.decode("utf-8", "surrogateescape")


async def _try_to_fail(pool: asyncpg.Pool, site_id: int, import_id: int) -> None:
    try:
        async with as_site(pool, site_id) as connection:
            await contacts.end_import(connection, import_id, "failed", "the database was not available")
    except StoreUnavailable:
        pass  # it stays `running`; the counts say how far it came
