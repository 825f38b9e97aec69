"""The SQL files against a migrated database: every query can be prepared, and the committed schema is the real one."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from gateway.store import catalogue
from gateway.store.schema import SCHEMA_FILE, dump

SQL_DIR = SCHEMA_FILE.parent
CATALOGUES = sorted(path.stem for path in SQL_DIR.glob("*.sql") if path != SCHEMA_FILE)


async def test_every_query_prepares_on_the_migrated_database(pool: asyncpg.Pool) -> None:
    wrong: list[str] = []
    async with pool.acquire() as connection:
        for name in CATALOGUES:
            for query in catalogue.load(name):
                try:
                    await connection.prepare(query.sql)
                except asyncpg.PostgresError as error:
                    wrong.append(f"sql/{name}.sql, {query.name}: {error}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.skipif(not CATALOGUES, reason="no queries")
def test_every_query_is_used_by_the_store() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in Path(catalogue.__file__).parent.glob("*.py")
    )
    unused = [
        f"sql/{name}.sql: {query.name}"
        for name in CATALOGUES
        for query in catalogue.load(name)
        if f".{query.name}" not in source
    ]
    assert not unused, "queries that no module of the store names:\n" + "\n".join(unused)


def test_the_committed_schema_is_what_the_migrations_make(db: str) -> None:
    committed = SCHEMA_FILE.read_text(encoding="utf-8") if SCHEMA_FILE.exists() else ""
    assert dump(db) == committed, (
        "sql/schema.sql is not what the migrations make: run `make schema` and commit it"
    )
