"""Contacts and imports of a site.

Owns the rows and how a contact that comes again is merged: text that is not empty replaces, tags are added, custom fields are
added or replaced. Must not know CSV or HTTP. Functions work in the caller's transaction (`store/tenancy.as_site`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.errors import Conflict, NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("contacts")

LOOK: Final = 5_000
"""Contacts that one page with filters looks at, at most."""


class NewContact(msgspec.Struct, frozen=True):
    """A contact to make or to merge; `email` in wire form, `domain` lower case with A-labels."""

    email: str
    domain: str
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    tags: tuple[str, ...] = ()
    fields: Mapping[str, object] = {}


class Contact(msgspec.Struct, frozen=True):
    """One contact. `fields` is a JSON object as text."""

    id: int
    email: str
    first_name: str
    last_name: str
    phone: str
    tags: list[str]
    fields: str
    source: str
    created_at: datetime
    updated_at: datetime


class Change(msgspec.Struct, frozen=True):
    """What is to be changed of a contact; None: it stays. Of `fields` those that are given, and those that are given as None go."""

    email: str | None = None
    domain: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None
    tags: tuple[str, ...] | None = None
    fields: Mapping[str, object] = {}


class Filters(msgspec.Struct, frozen=True):
    """What contacts must be like: all that is given. `search`: part of address, name or phone, in any case of letters."""

    search: str | None = None
    tag: str | None = None
    list_id: int | None = None


class Found(msgspec.Struct, frozen=True):
    """Contacts that fit, and up to which id was looked; `more`: there may be others behind it."""

    contacts: list[Contact]
    until: int
    more: bool


class Import(msgspec.Struct, frozen=True):
    """One import and its counts: `rows_read` = `created` + `merged` + `refused` when it is done."""

    id: int
    list_id: int | None
    status: str
    rows_read: int
    created: int
    merged: int
    refused: int
    detail: str
    created_at: datetime
    ended_at: datetime | None


class RowError(msgspec.Struct, frozen=True):
    """Why a row, or one field of it, was refused. Lines count from 1, the header's included."""

    line: int
    column: str
    reason: str
    value: str = ""


class Merged(msgspec.Struct, frozen=True):
    """What became of a batch of contacts."""

    created: int
    merged: int


async def merge_contacts(
    connection: Connection, site_id: int, list_id: int | None, contacts: Sequence[NewContact], source: str
) -> Merged:
    """Make or merge contacts, no address twice among them, and put them on a list."""
    ordered = sorted(contacts, key=lambda contact: contact.email.lower())  # two imports at once: no deadlock
    row = await connection.fetchrow(
        _SQL.merge_contacts,
        site_id,
        list_id,
        source,
        [c.email for c in ordered],
        [c.domain for c in ordered],
        [c.first_name for c in ordered],
        [c.last_name for c in ordered],
        [c.phone for c in ordered],
        [msgspec.json.encode(c.tags).decode() for c in ordered],
        [msgspec.json.encode(c.fields).decode() for c in ordered],
    )
    assert row is not None
    return Merged(row["created"], row["merged"])


async def create_contact(connection: Connection, site_id: int, contact: NewContact) -> Contact:
    """Make one contact.

    Raises:
        Conflict: the site has one with this address.
    """
    row = await connection.fetchrow(
        _SQL.create_contact, site_id, contact.email, contact.domain, contact.first_name, contact.last_name, contact.phone,
        list(contact.tags), msgspec.json.encode(contact.fields).decode(),
    )  # fmt: skip
    if row is None:
        raise Conflict("there is a contact with this address already")
    return Contact(*row)


async def list_contacts(
    connection: Connection, site_id: int, after: int, limit: int, email: str | None
) -> list[Contact]:
    """Up to `limit` contacts of a site with ids above `after`; with `email` only the one with that address."""
    return [Contact(*row) for row in await connection.fetch(_SQL.contacts, site_id, after, limit, email)]


async def find_contacts(
    connection: Connection, site_id: int, filters: Filters, after: int, limit: int
) -> Found:
    """Up to `limit` contacts of a site that fit, with ids above `after`, in their order.

    No more than `LOOK` contacts are looked at, so that fewer may be found, or none, though there are `more`: go on after `until`.
    """
    look = max(LOOK, limit + 1)
    rows = await connection.fetch(
        _SQL.find_contacts, site_id, after, look, limit + 1, filters.search and filters.search.lower(), filters.tag, filters.list_id
    )  # fmt: skip
    until, looked = rows[0]["until"], rows[0]["looked"]
    found = [Contact(*tuple(row)[2:]) for row in rows if row["id"] is not None]
    if len(found) > limit:
        return Found(found[:limit], found[limit - 1].id, more=True)
    return Found(found, after if until is None else until, more=looked == look)


async def change_contact(connection: Connection, contact_id: int, change: Change) -> Contact:
    """Change a contact.

    Raises:
        NotFound: there is none that the transaction may see.
        Conflict: the site has another one with this address.
    """
    try:
        row = await connection.fetchrow(
            _SQL.change_contact, contact_id, change.email, change.domain, change.first_name, change.last_name, change.phone,
            None if change.tags is None else list(change.tags), msgspec.json.encode(change.fields).decode(),
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict("there is a contact with this address already") from error
    if row is None:
        raise NotFound("no such contact")
    return Contact(*row)


async def get_contact(connection: Connection, contact_id: int) -> Contact:
    """One contact.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_SQL.contact, contact_id)
    if row is None:
        raise NotFound("no such contact")
    return Contact(*row)


async def variables_of(connection: Connection, contact_id: int) -> Mapping[str, object]:
    """What a template may say of a contact: as in a broadcast.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    found = await connection.fetchval(_SQL.variables, contact_id)
    if found is None:
        raise NotFound("no such contact")
    return msgspec.json.decode(found, type=dict[str, object])


async def delete_contact(connection: Connection, contact_id: int) -> None:
    """Remove a contact from all lists and for good.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    if await connection.fetchval(_SQL.delete_contact, contact_id) is None:
        raise NotFound("no such contact")


async def begin_import(connection: Connection, site_id: int, list_id: int | None) -> Import:
    """Note that an import runs."""
    row = await connection.fetchrow(_SQL.begin_import, site_id, list_id)
    assert row is not None
    return Import(*row)


async def note_import(
    connection: Connection, import_id: int, rows: int, merged: Merged, refused: int
) -> None:
    """Add to an import's counts, in the transaction that wrote what is counted."""
    await connection.execute(_SQL.note_import, import_id, rows, merged.created, merged.merged, refused)


async def end_import(connection: Connection, import_id: int, status: str, detail: str) -> Import:
    """Say how an import ended: `completed`, or `failed` and why."""
    row = await connection.fetchrow(_SQL.end_import, import_id, status, detail)
    if row is None:
        raise NotFound("no such import")
    return Import(*row)


async def list_imports(connection: Connection, site_id: int, after: int, limit: int) -> list[Import]:
    """Up to `limit` imports of a site with ids above `after`."""
    return [Import(*row) for row in await connection.fetch(_SQL.imports, site_id, after, limit)]


async def get_import(connection: Connection, import_id: int) -> Import:
    """One import.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_SQL.import_, import_id)
    if row is None:
        raise NotFound("no such import")
    return Import(*row)


async def add_row_errors(
    connection: Connection, site_id: int, import_id: int, errors: Sequence[RowError]
) -> None:
    """Keep why rows were refused."""
    await connection.execute(
        _SQL.add_row_errors,
        site_id,
        import_id,
        [e.line for e in errors],
        [e.column for e in errors],
        [e.reason for e in errors],
        [e.value for e in errors],
    )


async def list_row_errors(
    connection: Connection, import_id: int, after: tuple[int, str], limit: int
) -> list[RowError]:
    """Up to `limit` errors of an import after a (line, column), in that order."""
    return [RowError(*row) for row in await connection.fetch(_SQL.row_errors, import_id, *after, limit)]
