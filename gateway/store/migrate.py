"""Brings a database to the schema that this code works with.

Owns the order of `sql/migrations/NNNN_name.sql`, the record of what was applied (table `gateway_migration`: number, name,
sha256), and the lock that lets one migrator work at a time. Must not know what a migration does.

Rules: numbers count 0001, 0002 … without a gap; a file runs once, in one transaction with its record; an applied file is
never changed or removed, a mistake gets a new file. A database with migrations that this code does not have is newer than
the code: it is refused unless they are such as code this old works with (`phases`). And no migration is applied that a node which
works on the database (`nodes`) does not go with.

The lock is polled, never waited for in the database: see `try_lock` in `sql/migrate.sql`. A table is waited for briefly, again and again:
whoever comes while we wait, waits behind us, and a backup may hold a table for an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from gateway.errors import GatewayError
from gateway.store import nodes, phases
from gateway.store.catalogue import load
from gateway.store.phases import Phase
from gateway.store.pool import Connection

MIGRATIONS_DIR: Final = Path(__file__).parent / "sql" / "migrations"

_SQL = load("migrate")
_CREATE_LEDGER = _SQL.create_ledger
_EXTEND_LEDGER = _SQL.extend_ledger
_LEDGER_EXISTS = _SQL.ledger_exists
_APPLIED = _SQL.applied
_RECORD = _SQL.record
_TRY_LOCK = _SQL.try_lock
_UNLOCK = _SQL.unlock
_LOCK_HOLDER = _SQL.lock_holder
_WAIT_FOR_TABLES = _SQL.wait_for_tables

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK_POLL_S = 0.1
_TABLE_WAIT_MS = 2_000  # while a migration waits for a table, all others wait behind it
_PAUSE_S = 1.0  # time for those


class MigrationError(GatewayError):
    """The database and the migrations do not fit, or one failed; the message says which, and what to do."""


class MigratorBusy(MigrationError):
    """Another migrator works for too long: it may have done in a while."""


class Migration(msgspec.Struct, frozen=True):
    """One file: its number, its whole name (`0001_queue`), its text and the SHA-256 of that text in hex.

    `phase` and `code_from` (the oldest code that works with the schema after it) are as `phases.read_phase` has them.
    """

    number: int
    name: str
    sql: str
    sha256: str
    phase: Phase
    code_from: int


class Applied(msgspec.Struct, frozen=True):
    """One row of the record: what was applied, when (UTC), and the oldest code that works with the schema from there on."""

    number: int
    name: str
    sha256: str
    applied_at: datetime
    code_from: int


class Status(msgspec.Struct, frozen=True):
    """Where a database stands.

    Attributes:
        applied: what the database has, in order.
        pending: names of what this code has and the database has not, in order.
        missing: those of them that this code does not work without.
        problem: why this code does not go with the database however much is pending, or an empty string.
    """

    applied: tuple[Applied, ...]
    pending: tuple[str, ...]
    missing: tuple[str, ...]
    problem: str

    def complaint(self, where: str = "the database") -> str:
        """Say why this code cannot work on the database as it stands, and what to do; an empty string when it can."""
        if self.problem or not self.missing:
            return self.problem
        return (
            f"{where} lacks {len(self.missing)} of the migrations ({self.missing[0]} is the first): "
            "run `gateway migrate`, or start with --migrate"
        )


class Joined(msgspec.Struct, frozen=True):
    """What became of the schema when a node began: names that were applied, and contracts that wait for older nodes to end."""

    applied: tuple[str, ...]
    waiting: tuple[str, ...]


def read_migrations(folder: Path = MIGRATIONS_DIR) -> tuple[Migration, ...]:
    """The migrations of a folder, in order. Line ends do not count for the digest.

    Raises:
        MigrationError: a file's name is not NNNN_name.sql, a number is missing or taken twice, or a phase cannot be read.
    """
    migrations: list[Migration] = []
    code_from = 0
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
        try:
            phase, code_from = phases.read_phase(sql, number, code_from)
        except ValueError as error:
            raise MigrationError(f"{path}: {error}") from error
        migrations.append(Migration(number, path.stem, sql, digest, phase, code_from))
    return tuple(migrations)


def check(applied: Sequence[Applied], migrations: Sequence[Migration]) -> str:
    """What keeps code with these migrations from going on where the database stands; an empty string when nothing does."""
    known = {migration.number: migration for migration in migrations}
    newest = max(known, default=0)
    needed = max((row.code_from for row in applied), default=0)
    for row in applied:
        migration = known.get(row.number)
        if migration is None and row.number > newest:
            if newest >= needed:
                continue
            return (
                f"the database is newer than this code: it has {row.name}, the code ends at {newest:04}, and only code from "
                f"{needed:04} on works with it; run the newer version of the gateway"
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
    return _status(await _read_applied(connection), read_migrations(folder))


async def migrate(
    connection: Connection, folder: Path = MIGRATIONS_DIR, *, lock_timeout_s: float = 60.0
) -> list[str]:
    """Apply what is pending, in order, and return the names; an empty list when there was nothing to do.

    Safe to call from many processes at once: one works, the others poll and then find nothing to do. A contract that a node with
    older code still needs undone is left pending, for the next call.

    Args:
        connection: outside a transaction, as a user that may create everything the migrations create.
        folder: where the files are.
        lock_timeout_s: how long another migrator may take, and how long tables that others use are tried for.

    Raises:
        MigrationError: the database and the folder do not fit, another migrator works for too long, a node runs older code than a
            migration allows beside it (then nothing was applied), or a migration failed, which leaves the database as the one
            before it made it.
    """
    migrations = read_migrations(folder)
    async with _alone(connection, lock_timeout_s):
        return await _apply_pending(connection, migrations, lock_timeout_s)


async def take_part(
    connection: Connection,
    folder: Path = MIGRATIONS_DIR,
    *,
    apply: bool,
    where: str = "the database",
    lock_timeout_s: float = 60.0,
) -> Joined:
    """Begin a node's work: bring the schema up if `apply`, check that this code works with it, and announce the node.

    The connection stands for the node until it is closed. No migrator works between the check and the announcement.

    Args:
        connection: the node's own, outside a transaction.
        folder: where the files are.
        apply: whether what is pending is applied first, as by `migrate`.
        where: the database, for messages.
        lock_timeout_s: as for `migrate`.

    Raises:
        MigrationError: as `migrate`; or the schema is one that this code does not work with.
    """
    migrations = read_migrations(folder)
    async with _alone(connection, lock_timeout_s):
        done = await _apply_pending(connection, migrations, lock_timeout_s) if apply else []
        found = _status(await _read_applied(connection), migrations)
        if complaint := found.complaint(where):
            raise MigrationError(complaint)
        await nodes.announce(connection, migrations[-1].number if migrations else 0)
    return Joined(tuple(done), found.pending)


def _status(applied: tuple[Applied, ...], migrations: Sequence[Migration]) -> Status:
    have = {row.number for row in applied}
    pending = [migration for migration in migrations if migration.number not in have]
    needed = _oldest_schema(migrations)
    return Status(
        applied=applied,
        pending=tuple(migration.name for migration in pending),
        missing=tuple(migration.name for migration in pending if migration.number <= needed),
        problem=check(applied, migrations),
    )


def _oldest_schema(migrations: Sequence[Migration]) -> int:
    return phases.oldest_schema((migration.number, migration.phase) for migration in migrations)


async def _apply_pending(
    connection: Connection, migrations: Sequence[Migration], patience_s: float
) -> list[str]:
    await connection.execute(_CREATE_LEDGER)
    applied = await _read_applied(connection)
    if problem := check(applied, migrations):
        raise MigrationError(problem)
    pending = migrations[len(applied) :]
    if not pending:
        return []
    # None can come while we work: it is announced under the lock that we hold.
    working = await nodes.nodes(connection)
    ready = list(takewhile(lambda m: all(node.code >= m.code_from for node in working), pending))
    waiting = pending[len(ready) :]
    if waiting and waiting[0].number <= _oldest_schema(migrations):
        older = next(node for node in working if node.code < waiting[0].code_from)
        raise MigrationError(
            f"{waiting[0].name} does not go with {older}, which works on this database: end every node with code older than "
            f"{waiting[0].code_from:04} first; nothing was applied"
        )
    await connection.execute(_EXTEND_LEDGER)
    deadline = asyncio.get_running_loop().time() + patience_s
    for migration in ready:
        while True:
            last = asyncio.get_running_loop().time() > deadline
            if await _apply(connection, migration, last=last):
                break
            await asyncio.sleep(_PAUSE_S)
    return [migration.name for migration in ready]


async def _apply(connection: Connection, migration: Migration, *, last: bool) -> bool:
    """Apply one migration; False when a table could not be had in time, and it is not the last try."""
    try:
        async with connection.transaction():
            await connection.execute(_WAIT_FOR_TABLES, f"{_TABLE_WAIT_MS}ms")
            await connection.execute(migration.sql)
            await connection.execute(
                _RECORD, migration.number, migration.name, migration.sha256, migration.code_from
            )
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        if not last:
            return False
        raise MigrationError(
            f"{migration.name}.sql: somebody keeps a table that it changes (a backup, a transaction that is left open): {error}; "
            "nothing of it was applied"
        ) from error
    except asyncpg.PostgresError as error:
        # Postgres counts characters from 1; a line is what an editor can go to.
        position = getattr(error, "position", None)
        line = migration.sql.count("\n", 0, int(position) - 1) + 1 if position else None
        where = f"{migration.name}.sql" + (f", line {line}" if line else "")
        said = str(error).rstrip(";")  # a hint may end in SQL
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            said += "; docs/operations.md (A Postgres of your own) has all that an administrator grants"
        raise MigrationError(f"{where}: {said}; nothing of it was applied") from error
    return True


async def _read_applied(connection: Connection) -> tuple[Applied, ...]:
    if not await connection.fetchval(_LEDGER_EXISTS):
        return ()
    return tuple(Applied(**dict(row)) for row in await connection.fetch(_APPLIED))


@asynccontextmanager
async def _alone(connection: Connection, timeout_s: float) -> AsyncGenerator[None]:
    """Hold the migrators' lock."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await connection.fetchval(_TRY_LOCK):
        if asyncio.get_running_loop().time() > deadline:
            holder = await connection.fetchrow(_LOCK_HOLDER)
            who = f"session {holder['pid']} ({holder['application_name']})" if holder else "another session"
            raise MigratorBusy(
                f"{who} has been migrating this database for more than {timeout_s:g} s; wait or end it"
            )
        await asyncio.sleep(_LOCK_POLL_S)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(_UNLOCK)
