"""Lists of a site and who is on them.

Owns the rows. What puts whole files on a list is in `store/contacts`; the audience of a broadcast, in `store/broadcasts`. Functions work in
the caller's transaction (`store/tenancy.as_site`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from gateway.errors import Conflict, NotFound
from gateway.store.catalogue import load
from gateway.store.contacts import Contact
from gateway.store.pool import Connection

_SQL = load("lists")


class ContactList(msgspec.Struct, frozen=True):
    """One list and the number of its members."""

    id: int
    name: str
    members: int
    created_at: datetime


async def create_list(connection: Connection, site_id: int, name: str) -> ContactList:
    """Make a list.

    Raises:
        Conflict: the site has one with this name.
    """
    row = await connection.fetchrow(_SQL.create_list, site_id, name)
    if row is None:
        raise Conflict("there is a list with this name already")
    return ContactList(*row)


async def find_or_create_list(connection: Connection, site_id: int, name: str) -> ContactList:
    """The list with this name, made where there is none."""
    row = await connection.fetchrow(_SQL.create_list, site_id, name)
    row = row or await connection.fetchrow(_SQL.list_by_name, site_id, name)
    assert row is not None, "who just could not make it can see it"
    return ContactList(*row)


async def list_lists(connection: Connection, site_id: int, after: int, limit: int) -> list[ContactList]:
    """Up to `limit` lists of a site with ids above `after`."""
    return [ContactList(*row) for row in await connection.fetch(_SQL.lists, site_id, after, limit)]


async def get_list(connection: Connection, list_id: int) -> ContactList:
    """One list.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_SQL.list, list_id)
    if row is None:
        raise NotFound("no such list")
    return ContactList(*row)


async def change_list(connection: Connection, list_id: int, name: str) -> ContactList:
    """Give a list another name.

    Raises:
        NotFound: there is none that the transaction may see.
        Conflict: the site has another one with this name.
    """
    try:
        row = await connection.fetchrow(_SQL.change_list, list_id, name)
    except asyncpg.UniqueViolationError as error:
        raise Conflict("there is a list with this name already") from error
    if row is None:
        raise NotFound("no such list")
    return ContactList(*row)


async def list_members(connection: Connection, list_id: int, after: int, limit: int) -> list[Contact]:
    """Up to `limit` contacts on a list, with ids above `after`."""
    return [Contact(*row) for row in await connection.fetch(_SQL.members, list_id, after, limit)]


async def add_members(connection: Connection, list_id: int, contact_ids: Sequence[int]) -> set[int]:
    """Put contacts on a list; return those that are there now: the others are no contacts of its site."""
    return {row[0] for row in await connection.fetch(_SQL.add_members, list_id, contact_ids)}


async def delete_list(connection: Connection, list_id: int) -> None:
    """Remove a list; its contacts stay.

    Raises:
        NotFound: there is none that the transaction may see.
        Conflict: a broadcast goes to it.
    """
    try:
        gone = await connection.fetchval(_SQL.delete_list, list_id)
    except (asyncpg.ForeignKeyViolationError, asyncpg.RestrictViolationError) as error:
        raise Conflict("a broadcast uses this list") from error
    if gone is None:
        raise NotFound("no such list")


async def add_member(connection: Connection, list_id: int, contact_id: int) -> None:
    """Put a contact on a list; again does nothing.

    Raises:
        NotFound: no such list or contact that the transaction may see.
    """
    if not await connection.fetchval(_SQL.add_member, list_id, contact_id):
        raise NotFound("no such list or contact")


async def remove_member(connection: Connection, list_id: int, contact_id: int) -> None:
    """Take a contact off a list.

    Raises:
        NotFound: it is not on that list, or one of the two is not there.
    """
    if await connection.fetchval(_SQL.remove_member, list_id, contact_id) is None:
        raise NotFound("no such member of this list")
