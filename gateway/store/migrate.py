"""Brings a database to the schema that this code works with.

Owns the order of `sql/migrations/NNNN_name.sql`, the record of what was applied (table `gateway_migration`: number, name,
sha256), and the lock that lets one migrator work at a time. Must not know what a migration does.

Rules: numbers count 0001, 0002 … without a gap; a file runs once, in one transaction with its record; an applied file is
never changed or removed, a mistake gets a new file. A database with migrations that this code does not have is newer than
the code, and is refused.

The lock is polled, never waited for in the database: see `try_lock` in `sql/migrate.sql`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from gateway.errors import GatewayError
from gateway.store.catalogue import load
from gateway.store.pool import Connection

MIGRATIONS_DIR: Final = Path(__file__).parent / "sql" / "migrations"

_SQL = load("migrate")
_CREATE_LEDGER = _SQL.create_ledger
_LEDGER_EXISTS = _SQL.ledger_exists
_APPLIED = _SQL.applied
_RECORD = _SQL.record
_TRY_LOCK = _SQL.try_lock
_UNLOCK = _SQL.unlock
_LOCK_HOLDER = _SQL.lock_holder

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK_POLL_S = 0.1


class MigrationError(GatewayError):
    """The database and the migrations do not fit, or one failed; the message says which, and what to do."""


class Migration(msgspec.Struct, frozen=True):
    """One file: its number, its whole name (`0001_queue`), its text and the SHA-256 of that text in hex."""

    number: int
    name: str
    sql: str
    sha256: str


class Applied(msgspec.Struct, frozen=True):
    """One row of the record: what was applied, and when (UTC)."""

    number: int
    name: str
    sha256: str
    applied_at: datetime


class Status(msgspec.Struct, frozen=True):
    """Where a database stands.

    Attributes:
        applied: what the database has, in order.
        pending: names that `migrate` would apply, in order.
        problem: why `migrate` would refuse, or an empty string.
    """

    applied: tuple[Applied, ...]
    pending: tuple[str, ...]
    problem: str


def read_migrations(folder: Path = MIGRATIONS_DIR) -> tuple[Migration, ...]:
    """The migrations of a folder, in order. Line ends do not count for the digest.

    Raises:
        MigrationError: a file's name is not NNNN_name.sql, or a number is missing or taken twice.
    """
    migrations: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(
                f"{path}: the name of a migration is NNNN_name.sql, such as 0007_add_lane_pause.sql"
            )
        number = int(match[1])
        if number != len(migrations) + 1:
            raise MigrationError(
                f"{path}: number {len(migrations) + 1:04} was expected here; migrations count from 0001 without a gap, "
                "each number once"
            )
        sql = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        digest = hashlib.sha256(sql.encode()).hexdigest()
        migrations.append(Migration(number=number, name=path.stem, sql=sql, sha256=digest))
    return tuple(migrations)


def check(applied: Sequence[Applied], migrations: Sequence[Migration]) -> str:
    """What keeps these migrations from going on where the database stands; an empty string when nothing does."""
    known = {migration.number: migration for migration in migrations}
    newest = max(known, default=0)
    for row in applied:
        migration = known.get(row.number)
        if migration is None and row.number > newest:
            return (
                f"the database is newer than this code: it has {row.name}, the code ends at {newest:04}; "
                "run the newer version of the gateway"
            )
        if migration is None or migration.name != row.name:
            return (
                f"{row.name} was applied to the database but its file is missing; "
                "put the file back as it was (git log -- gateway/store/sql/migrations)"
            )
        if migration.sha256 != row.sha256:
            return (
                f"{row.name} has changed since it was applied on {row.applied_at:%Y-%m-%d %H:%M} UTC; "
                "put the file back as it was and write the change as a new migration"
            )
    numbers = [row.number for row in applied]
    if numbers != list(range(1, len(numbers) + 1)):
        return "the record has a gap: a row of gateway_migration was removed; restore it from a backup"
    return ""


async def status(connection: Connection, folder: Path = MIGRATIONS_DIR) -> Status:
    """Where the database stands; changes nothing.

    Raises:
        MigrationError: the folder itself is malformed.
    """
    migrations = read_migrations(folder)
    applied = await _read_applied(connection)
    have = {row.number for row in applied}
    return Status(
        applied=applied,
        pending=tuple(migration.name for migration in migrations if migration.number not in have),
        problem=check(applied, migrations),
    )


async def migrate(
    connection: Connection, folder: Path = MIGRATIONS_DIR, *, lock_timeout_s: float = 60.0
) -> list[str]:
    """Apply what is pending, in order, and return the names; an empty list when there was nothing to do.

    Safe to call from many processes at once: one works, the others poll and then find nothing to do.

    Args:
        connection: outside a transaction, as a user that may create everything the migrations create.
        folder: where the files are.
        lock_timeout_s: how long another migrator may take.

    Raises:
        MigrationError: the database and the folder do not fit, another migrator works for too long, or a migration failed,
            which leaves the database as the one before it made it.
    """
    migrations = read_migrations(folder)
    await _lock(connection, lock_timeout_s)
    try:
        await connection.execute(_CREATE_LEDGER)
        applied = await _read_applied(connection)
        if problem := check(applied, migrations):
            raise MigrationError(problem)
        pending = migrations[len(applied) :]
        for migration in pending:
            await _apply(connection, migration)
        return [migration.name for migration in pending]
    finally:
        if not connection.is_closed():
            await connection.execute(_UNLOCK)


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(_RECORD, migration.number, migration.name, migration.sha256)
    except asyncpg.PostgresError as error:
        # Postgres counts characters from 1; a line is what an editor can go to.
        position = getattr(error, "position", None)
        line = migration.sql.count("\n", 0, int(position) - 1) + 1 if position else None
        where = f"{migration.name}.sql" + (f", line {line}" if line else "")
        raise MigrationError(f"{where}: {error}; nothing of it was applied") from error


async def _read_applied(connection: Connection) -> tuple[Applied, ...]:
    if not await connection.fetchval(_LEDGER_EXISTS):
        return ()
    return tuple(Applied(**dict(row)) for row in await connection.fetch(_APPLIED))


async def _lock(connection: Connection, timeout_s: float) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await connection.fetchval(_TRY_LOCK):
        if asyncio.get_running_loop().time() > deadline:
            holder = await connection.fetchrow(_LOCK_HOLDER)
            who = f"session {holder['pid']} ({holder['application_name']})" if holder else "another session"
            raise MigrationError(
                f"{who} has been migrating this database for more than {timeout_s:g} s; wait or end it"
            )
        await asyncio.sleep(_LOCK_POLL_S)
