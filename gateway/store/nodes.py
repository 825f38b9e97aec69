"""Which code works on this database now: a node says so by a lock that it holds as long as it lives.

Owns that lock: shared, so that nobody waits for it; a session's, so that it ends with the node however that ends, with no row to grow
stale. Must not know what a migration is, nor when to look.
"""

from __future__ import annotations

import msgspec

from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("nodes")
_ANNOUNCE = _SQL.announce
_NODES = _SQL.nodes


class Node(msgspec.Struct, frozen=True):
    """A gateway that works on the database: `code` is the number of its newest migration, `name` its connection's."""

    code: int
    pid: int
    name: str

    def __str__(self) -> str:
        """Say which it is, so that a person finds it."""
        return f"{self.name or 'a node'} (session {self.pid}, code {self.code:04})"


async def announce(connection: Connection, code: int) -> None:
    """Have this connection, which must be the caller's own, stand for a node with that code until it ends."""
    await connection.execute(_ANNOUNCE, code)


async def nodes(connection: Connection) -> list[Node]:
    """Every node that works on this database, the one with the oldest code first."""
    return [Node(*row) for row in await connection.fetch(_NODES)]
