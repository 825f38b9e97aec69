"""The Postgres of a test run: one server, one migrated template, and a fresh database for each test that asks.

Owns the server's life, the template and the clones. The fixtures are in `tests/conftest.py`.

With xdist the controlling process starts the server and tells the workers where it is; without, the first test that needs
it does. On Linux the kernel ends it with that process, however that ends; what a killed run left in /tmp is swept by the
next one. `GATEWAY_TEST_DSN` names a server to use instead: its user must be allowed to create databases and roles.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from gateway.store.embedded import EmbeddedPostgres
from gateway.store.migrate import migrate
from gateway.store.pool import connect

_FOLDER_PREFIX = "gateway-test-pg-"

# A test run loses nothing in a crash, and needs no log to replay.
TEST_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "min_wal_size": "512MB",
    "checkpoint_timeout": "1h",
    "log_min_messages": "warning",
}


class Cluster(msgspec.Struct, frozen=True):
    """A server with a migrated template; what the workers of a run are told.

    Attributes:
        dsn: the server's administrator, in a database of its own.
        template: name of the migrated database that clones are made from.
    """

    dsn: str
    template: str

    async def create_database(self, *, empty: bool = False) -> str:
        """Clone the template (or an empty database) under a new name and return the clone's DSN; about 50 ms."""
        template = "template0" if empty else self.template
        name = f"test_{uuid4().hex}"
        admin = await connect(self.dsn, application_name="tests")
        try:
            await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
        finally:
            await admin.close()
        return in_database(self.dsn, name)

    async def drop_database(self, dsn: str) -> None:
        """Drop a clone, ending whatever still uses it."""
        admin = await connect(self.dsn, application_name="tests")
        try:
            await admin.execute(f'DROP DATABASE IF EXISTS "{database_of(dsn)}" WITH (FORCE)')
        finally:
            await admin.close()


def start_cluster(existing_dsn: str | None, cleanup: ExitStack) -> Cluster:
    """Start a server (or take the existing one), migrate a template, and register with `cleanup` what undoes both."""
    if existing_dsn:
        dsn = existing_dsn
    else:
        _sweep()
        folder = Path(f"/tmp/{_FOLDER_PREFIX}{os.getpid()}")
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        dsn = cleanup.enter_context(EmbeddedPostgres(folder / "data", settings=TEST_SETTINGS)).dsn
    cluster = Cluster(dsn=dsn, template=f"template_{uuid4().hex}")
    if existing_dsn:
        cleanup.callback(lambda: asyncio.run(cluster.drop_database(in_database(dsn, cluster.template))))
    asyncio.run(_make_template(cluster))
    return cluster


def in_database(dsn: str, name: str) -> str:
    """The same server and user, another database."""
    parts = urlsplit(dsn)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{name}{query}"


def database_of(dsn: str) -> str:
    """Name of the database that a DSN names."""
    return urlsplit(dsn).path.removeprefix("/")


async def _make_template(cluster: Cluster) -> None:
    admin = await connect(cluster.dsn, application_name="tests")
    try:
        await admin.execute(f'CREATE DATABASE "{cluster.template}"')
    finally:
        await admin.close()
    connection = await connect(in_database(cluster.dsn, cluster.template), application_name="tests")
    try:
        await migrate(connection)
    finally:
        await connection.close()


def _sweep() -> None:
    """Remove the folders of runs whose process is gone."""
    for folder in Path("/tmp").glob(f"{_FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(_FOLDER_PREFIX)
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(EmbeddedPostgres(folder / "data").socket_dir, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
