"""The schema as one readable file: what the migrations add up to, in `sql/schema.sql`.

Owns the dump's form. It is for people, who read it, and for reviews, where a migration shows as a change of the whole; nothing
loads it. A test compares it with a freshly migrated database; `make schema` writes it.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from gateway.store.embedded import EmbeddedPostgres
from gateway.store.migrate import migrate
from gateway.store.pool import connect
from gateway.store.postgres_binaries import ENVIRONMENT, EmbeddedPostgresError, find_bin_dir

SCHEMA_FILE: Final = Path(__file__).parent / "sql" / "schema.sql"

_HEADER = (
    "-- What the migrations add up to. Written by `make schema`; change a migration, never this file.\n\n"
)
# pg_dump's session settings, its frame, its repeated headings, and \restrict with its random word.
_NOISE = re.compile(r"^(SET |SELECT pg_catalog\.set_config|\\(un)?restrict |--).*\n", re.MULTILINE)


def dump(dsn: str) -> str:
    """The schema of a database, without the ledger of migrations and without partitions (they come with time).

    Raises:
        EmbeddedPostgresError: there is no pg_dump, or it failed, with what it said.
    """
    # Not as root in a namespace: a client may run as anybody.
    done = subprocess.run(
        [
            str(find_bin_dir() / "pg_dump"), "--schema-only", "--no-owner", "--exclude-table=gateway_migration",
            "--exclude-table=*_20[0-9][0-9]*",  # partitions are named by their day
            "--dbname", dsn,
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise EmbeddedPostgresError(f"pg_dump failed: {done.stderr.strip()}")
    return _HEADER + re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", done.stdout)).strip() + "\n"


async def _migrate(dsn: str) -> None:
    connection = await connect(dsn, application_name="schema")
    try:
        await migrate(connection)
    finally:
        await connection.close()


def main() -> int:
    """Migrate a server of its own and write `sql/schema.sql`."""
    with (
        tempfile.TemporaryDirectory(prefix="gateway-schema-") as folder,
        EmbeddedPostgres(
            Path(folder) / "data", settings={"fsync": "off", "shared_buffers": "32MB"}
        ) as server,
    ):
        asyncio.run(_migrate(server.dsn))
        SCHEMA_FILE.write_text(dump(server.dsn), encoding="utf-8")
    sys.stdout.write(f"wrote {SCHEMA_FILE.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
