"""Sites (the tenants) and their API keys.

Owns the form of a key: `gw_<12 characters>_<32 characters>`, the first part to find it by, the second 160 random bits. A key
is shown once; what is kept is its SHA-256. Must not know HTTP or what a scope allows.

Every function works in the caller's transaction (`store/tenancy.as_site`), except those that look a key up, which come
before any site is known.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.errors import NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("sites")
_CREATE_SITE = _SQL.create_site
_SITES = _SQL.sites
_SITE = _SQL.site
_CREATE_KEY = _SQL.create_key
_KEYS = _SQL.keys
_KEY = _SQL.key
_REVOKE_KEY = _SQL.revoke_key
_FIND_KEY = _SQL.find_key
_TOUCH_KEYS = _SQL.touch_keys
_CHANGE_SITE = _SQL.change_site
_HOLD_SITE = _SQL.hold_site
_RELEASE_SITE = _SQL.release_site
_WAKE_SITE = _SQL.wake_site
_SITE_BACKLOG = _SQL.site_backlog

_ALPHABET: Final = "abcdefghjkmnpqrstvwxyz0123456789"
_PREFIX_LENGTH: Final = 12
_SECRET_LENGTH: Final = 32
_TOKEN: Final = re.compile(rf"gw_([{_ALPHABET}]{{{_PREFIX_LENGTH}}})_[{_ALPHABET}]{{{_SECRET_LENGTH}}}")


class Site(msgspec.Struct, frozen=True):
    """One tenant. `held_why`: all its sending is stopped since `held_at`; None: it is not."""

    id: int
    name: str
    time_zone: str
    status: str
    campaigns: bool
    created_at: datetime
    held_why: str | None = None
    held_at: datetime | None = None


class Key(msgspec.Struct, frozen=True):
    """What is known of a key once it was shown; without a site it is an operator's."""

    id: int
    site_id: int | None
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class Holder(msgspec.Struct, frozen=True):
    """Whom a key speaks for."""

    key_id: int
    site_id: int | None
    scopes: frozenset[str]
    suspended: bool
    campaigns: bool


async def create_site(connection: Connection, name: str, time_zone: str, *, campaigns: bool) -> Site:
    """Make a site."""
    row = await connection.fetchrow(_CREATE_SITE, name, time_zone, campaigns)
    assert row is not None
    return Site(*row)


async def list_sites(connection: Connection, after: int, limit: int) -> list[Site]:
    """Up to `limit` sites with ids above `after`."""
    return [Site(*row) for row in await connection.fetch(_SITES, after, limit)]


async def get_site(connection: Connection, site_id: int) -> Site:
    """One site.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_SITE, site_id)
    if row is None:
        raise NotFound("no such site")
    return Site(*row)


async def change_site(
    connection: Connection, site_id: int, *, name: str | None, time_zone: str | None, campaigns: bool | None
) -> Site:
    """Change a site; None: as it is.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    await connection.fetchval(_CHANGE_SITE, site_id, name, time_zone, campaigns)
    return await get_site(connection, site_id)


async def hold_site(connection: Connection, site_id: int, why: str) -> bool:
    """Stop all sending of a site: no claim takes a delivery of it, and dispatchers begin none; False: it was stopped already."""
    return await connection.fetchval(_HOLD_SITE, site_id, why) is not None


async def release_site(connection: Connection, site_id: int) -> bool:
    """Let a site send again; what the hold parked wakes by `wake_site`, after the commit. False: it was not stopped."""
    return await connection.fetchval(_RELEASE_SITE, site_id) is not None


async def wake_site(connection: Connection, site_id: int) -> None:
    """Wake what the hold of a site had parked; in an operator's transaction."""
    await connection.execute(_WAKE_SITE, site_id)


async def count_backlog(connection: Connection, site_id: int, priority: int, most: int) -> int:
    """How many deliveries of a site and priority wait, for their turn or for another try; up to `most` are counted."""
    return await connection.fetchval(_SITE_BACKLOG, site_id, priority, most) or 0


async def issue_key(
    connection: Connection, site_id: int | None, name: str, scopes: Sequence[str]
) -> tuple[Key, str]:
    """Make a key, an operator's when `site_id` is None; return it with its text, which cannot be had again."""
    prefix = _random(_PREFIX_LENGTH)
    token = f"gw_{prefix}_{_random(_SECRET_LENGTH)}"
    row = await connection.fetchrow(_CREATE_KEY, site_id, name, prefix, digest_of(token), list(scopes))
    assert row is not None
    return _key(row), token


async def list_keys(connection: Connection, site_id: int | None, after: int, limit: int) -> list[Key]:
    """Up to `limit` keys of a site (None: the operators') with ids above `after`, the revoked too."""
    return [_key(row) for row in await connection.fetch(_KEYS, site_id, after, limit)]


async def get_key(connection: Connection, key_id: int) -> Key:
    """One key, revoked or not.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_KEY, key_id)
    if row is None:
        raise NotFound("no such key")
    return _key(row)


async def revoke_key(connection: Connection, key_id: int) -> Key:
    """End a key; again does nothing.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_REVOKE_KEY, key_id)
    if row is None:
        raise NotFound("no such key")
    return _key(row)


async def find_holder(pool: asyncpg.Pool, token: str, *, timeout_s: float = 5.0) -> Holder | None:
    """Return whom a key speaks for, or None when it is unknown or revoked.

    Raises:
        StoreUnavailable: Postgres does not answer.
    """
    form = _TOKEN.fullmatch(token)
    if form is None:  # nor would Postgres take any text: a NUL is an error there
        return None
    with outages_named("looking up a key"):
        async with pool.acquire(timeout=timeout_s) as connection:
            row = await connection.fetchrow(_FIND_KEY, form[1])
    if row is None or not hmac.compare_digest(row["hash"], digest_of(token)):
        return None
    return Holder(
        key_id=row["id"],
        site_id=row["site_id"],
        scopes=frozenset(row["scopes"]),
        suspended=row["site_status"] == "suspended",
        campaigns=bool(row["campaigns"]),
    )


async def touch_keys(pool: asyncpg.Pool, key_ids: Collection[int]) -> None:
    """Note that keys were used now.

    Raises:
        StoreUnavailable: Postgres does not answer.
    """
    with outages_named("noting the use of keys"):
        await pool.execute(_TOUCH_KEYS, list(key_ids))


def digest_of(token: str) -> bytes:
    """What is kept of a key. A fast hash will do: there are 160 random bits in it, and no dictionary."""
    return hashlib.sha256(token.encode()).digest()


def _key(row: asyncpg.Record) -> Key:
    id_, site_id, name, prefix, scopes, created_at, last_used_at, revoked_at = row
    return Key(id_, site_id, name, prefix, tuple(scopes), created_at, last_used_at, revoked_at)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
