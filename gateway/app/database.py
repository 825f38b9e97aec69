"""Which Postgres a process of this machine uses: the configured one, or the gateway's own under the data directory.

Owns that decision and whether the schema is as the code needs it. Must not know who asks. The gateway's own database is
migrated whenever it is started, since nobody else can know of it; a configured one only when that was asked for, since
other gateways may work on it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.app.state import claimed, read_running
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.store.embedded import EmbeddedPostgres
from gateway.store.migrate import MigrationError, migrate, status
from gateway.store.pool import Connection, connect, describe

EVERY_SITE = "gateway_dispatch"
"""The role of commands that look over all sites."""


def own_postgres(config: Config) -> EmbeddedPostgres:
    """The gateway's own server on its data directory, not started."""
    return EmbeddedPostgres(_folder(config))


async def bring_up(dsn: str, *, allowed: bool) -> list[str]:
    """Bring the database to this code's schema, or only check that it is there; the migrations that were applied.

    Raises:
        MigrationError: it is newer than the code works with, or altered; a migration failed, or a node does not go with it; or some
            that the code needs are pending and not `allowed`.
        StoreUnavailable: nobody answers there.
    """
    connection = await connect(dsn, application_name="gateway migrate")
    try:
        if allowed:
            return await migrate(connection)
        found = await status(connection)
    finally:
        await connection.close()
    if complaint := found.complaint(f"the database at {describe(dsn)}"):
        raise MigrationError(complaint)
    return []


@asynccontextmanager
async def database(config: Config, *, create: bool = False) -> AsyncGenerator[str]:
    """The DSN for one command: the configured one, that of the running gateway, else our own server for the command's time.

    Args:
        config: says where to look.
        create: make our own data directory where there is none.

    Raises:
        GatewayError: there is none of the three.
    """
    if config.database.dsn:
        yield config.database.dsn
        return
    if running := read_running(config.data_dir):
        if not running.dsn:
            raise GatewayError(
                f"the gateway on {config.data_dir} uses a configured Postgres: name it with GATEWAY_DSN or --config"
            )
        yield running.dsn
        return
    if not create and not (_folder(config) / "PG_VERSION").exists():
        raise GatewayError(
            f"no database: none is configured, and {config.data_dir} holds none; start `gateway run` and "
            "wait until it says that it is ready, or name a Postgres with GATEWAY_DSN"
        )
    with claimed(config.data_dir):
        async with own_postgres(config) as server:
            await bring_up(server.dsn, allowed=True)
            yield server.dsn


@asynccontextmanager
async def connection(config: Config, *, role: str | None = EVERY_SITE) -> AsyncGenerator[Connection]:
    """A connection to that database, for one command.

    Raises:
        GatewayError: as `database`.
        StoreUnavailable: it does not answer, or has not been migrated.
    """
    async with database(config) as dsn:
        opened = await connect(dsn, role=role, application_name="gateway command")
        try:
            yield opened
        finally:
            await opened.close()


def _folder(config: Config) -> Path:
    return config.data_dir / "postgres"
