"""After a restore of an old backup: what is open, and what becomes of it.

Owns the decision's effect on the queue. A dispatcher notices the restore and holds the fleet (`store/fleet.hold_fleet`); here
the hold is read, and lifted together with what the operator decided, in one transaction. Must not know who asks.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("reconcile")
_FLEET_HOLD = _SQL.fleet_hold
_OPEN_ROWS = _SQL.open_rows
_PUT_IN_DOUBT = _SQL.put_in_doubt
_UNLEASE = _SQL.unlease
_RELEASE_FLEET = _SQL.release_fleet


class OpenRows(msgspec.Struct, frozen=True):
    """How many deliveries of a stream are in a state, and how many of them were accepted before the hold."""

    state: str
    stream: str
    n: int
    before: int


class Found(msgspec.Struct, frozen=True):
    """Whether the fleet is held, why and since when, and what is open (only when it is held)."""

    held: bool
    why: str = ""
    since: datetime | None = None
    rows: tuple[OpenRows, ...] = ()


async def look(connection: Connection) -> Found:
    """Say what there is to decide; changes nothing."""
    with outages_named("looking for a restore"):
        hold = await connection.fetchrow(_FLEET_HOLD)
        if hold is None:
            return Found(held=False)
        rows = await connection.fetch(_OPEN_ROWS, hold["created_at"])
    return Found(True, hold["why"], hold["created_at"], tuple(OpenRows(**dict(row)) for row in rows))


async def put_in_doubt(connection: Connection, transactional_wait_s: float, bulk_wait_s: float) -> int:
    """Put what is open from before the hold in doubt, lift the hold, and return how many; 0 when there is no hold."""
    with outages_named("reconciling"):
        async with connection.transaction():
            hold = await connection.fetchrow(_FLEET_HOLD)
            if hold is None:
                return 0
            moved = await connection.fetchval(
                _PUT_IN_DOUBT, hold["created_at"], transactional_wait_s, bulk_wait_s
            )
            await connection.execute(_RELEASE_FLEET)
    return moved or 0


async def resend(connection: Connection) -> int:
    """Queue again what is leased, lift the hold, and return how many were leased; 0 when there is no hold."""
    with outages_named("reconciling"):
        async with connection.transaction():
            if await connection.fetchrow(_FLEET_HOLD) is None:
                return 0
            moved = await connection.fetchval(_UNLEASE)
            await connection.execute(_RELEASE_FLEET)
    return moved or 0
