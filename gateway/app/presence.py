"""This node's place in the fleet: one connection that says which code it runs, for as long as it runs.

Owns that connection. When it is lost (Postgres was restarted, or failed over) the node takes part anew, with a new look at the schema: a
migrator that worked meanwhile did not see us. Must not know what the node does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Self

import asyncpg

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.store.migrate import Joined, MigrationError, MigratorBusy, take_part
from gateway.store.pool import connect, describe, outages_named

_AGAIN_S: Final = 1.0
_NAME_LIMIT: Final = 63  # Postgres cuts application_name there


class Presence:
    """One node, as the others see it."""

    # Mutable on purpose: the connection that stands for the node now.
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None
        self._gone = asyncio.Event()
        self.joined = Joined((), ())

    @classmethod
    async def take(cls, dsn: str, *, migrate: bool) -> Self:
        """Take part: bring the schema up if `migrate`, check it, and say that we are here.

        Raises:
            MigrationError: this code does not work with the database as it stands, or a migration cannot be applied now.
            StoreUnavailable: nobody answers there.
        """
        presence = cls(dsn)
        await presence._join(migrate=migrate)
        return presence

    @property
    def connected(self) -> bool:
        """Whether Postgres holds our connection, as far as we know."""
        return self._connection is not None and not self._connection.is_closed()

    def leave(self) -> None:
        """Be gone. May be called again."""
        if self._connection is not None:
            self._connection.terminate()

    async def keep(self, unfit: Callable[[str], None], clock: Clock) -> None:
        """Take part again whenever the connection was lost, until cancelled; say why when the schema has left our code behind."""
        while True:
            await self._gone.wait()
            try:
                await self._join(migrate=False)
            except (StoreUnavailable, MigratorBusy):
                await clock.sleep(_AGAIN_S)
            except MigrationError as error:
                unfit(str(error))
                return

    async def _join(self, *, migrate: bool) -> None:
        connection = await connect(
            self._dsn, application_name=f"gateway node {socket.gethostname()}"[:_NAME_LIMIT]
        )
        try:
            with outages_named("taking part in the fleet"):
                self.joined = await take_part(
                    connection, apply=migrate, where=f"the database at {describe(self._dsn)}"
                )
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        self._gone.clear()
        connection.add_termination_listener(self._lost)
        if connection.is_closed():  # it ended before we listened
            self._gone.set()

    def _lost(self, _: object) -> None:
        self._gone.set()
