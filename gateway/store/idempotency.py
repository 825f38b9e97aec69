"""Stored answers: a POST that comes again with the same Idempotency-Key gets the answer it got.

Owns the order of things inside the caller's transaction: reserve the key first, work, store the answer, commit. Who comes
second with the same key waits at the reservation for the first one's commit (the primary key sees to it) and then reads the
answer; when the first rolled back, the second works. Must not know what is answered. `store/intake` does the same in its one
call. Answers are kept for 48 h (`reap`).
"""

from __future__ import annotations

import msgspec

from gateway.errors import IdempotencyMismatch
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("idempotency")
_RESERVE_KEY = _SQL.reserve_key
_STORED_ANSWER = _SQL.stored_answer
_STORE_ANSWER = _SQL.store_answer


class StoredAnswer(msgspec.Struct, frozen=True):
    """What was answered before. `suppressed`: deliveries to which the answer's text does not do justice."""

    status: int
    answer: bytes
    suppressed: frozenset[int]


async def reserve(connection: Connection, site_id: int, key: str, digest: bytes) -> StoredAnswer | None:
    """Take a key in the caller's transaction, or return what is stored under it; operators have site 0.

    Raises:
        IdempotencyMismatch: the key was used with another request.
    """
    while await connection.fetchval(_RESERVE_KEY, site_id, key, digest) is None:
        if stored := await find(connection, site_id, key, digest):
            return stored
    return None


async def find(connection: Connection, site_id: int, key: str, digest: bytes) -> StoredAnswer | None:
    """Return what is stored under a key, or None.

    Raises:
        IdempotencyMismatch: the key was used with another request.
    """
    row = await connection.fetchrow(_STORED_ANSWER, site_id, key)
    if row is None:
        return None
    if row["body_hash"] != digest:
        raise IdempotencyMismatch("this Idempotency-Key was used with another request; expected a new key")
    return StoredAnswer(row["status"], row["answer"], frozenset(row["suppressed"] or ()))


async def store(connection: Connection, site_id: int, key: str, status: int, answer: bytes) -> None:
    """Store the answer under a key that this transaction has reserved."""
    await connection.execute(_STORE_ANSWER, site_id, key, status, answer)
