"""The fleet: incarnations, their counters, and the rescue of what a dead one held.

Owns the calls on `incarnation`. Whether a peer is dead is decided by its observers (`dispatch/lease`), on their own
monotonic clocks; here is only the compare-and-set that makes it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("fleet")
_NOTHING: Final[Mapping[int, int]] = MappingProxyType({})

NUMBERS_LEFT_OUT: Final = 1 << 30
"""Acceptances that are taken to have been made since the backup: at 10,000 a second, more than a day's worth of them."""


class Incarnation(msgspec.Struct, frozen=True):
    """One life of a dispatcher as its peers see it. `host_key` names the journal folder it writes to."""

    id: int
    host_key: str
    counter: int
    status: str


class DoubtPolicy(msgspec.Struct, frozen=True):
    """How long rows in doubt wait, in seconds, by stream; and after how many deaths a suspect is quarantined."""

    transactional_wait_s: float
    bulk_wait_s: float
    quarantine_after: int = 3


async def register(connection: Connection, host_key: str, pid: int) -> int:
    """Begin a new incarnation; return its id."""
    with outages_named("registering the dispatcher"):
        return int(await connection.fetchval(_SQL.register, host_key, pid) or 0)


async def beat(connection: Connection, incarnation: int) -> tuple[int, int] | None:
    """Move our counter; return (counter, fleet tick), or None when we were declared dead."""
    with outages_named("sending a heartbeat"):
        row = await connection.fetchrow(_SQL.beat, incarnation)
    return (row["counter"], row["tick"]) if row else None


async def others(connection: Connection) -> list[Incarnation]:
    """Every incarnation that is not closed, ourselves included."""
    with outages_named("watching the fleet"):
        return [Incarnation(*row) for row in await connection.fetch(_SQL.others)]


async def declare_dead(connection: Connection, incarnation: int, counter: int) -> bool:
    """Declare a peer dead if its counter still stands at `counter`; return whether it was us who did."""
    with outages_named("declaring a peer dead"):
        return await connection.fetchval(_SQL.declare_dead, incarnation, counter) is not None


async def bury(connection: Connection, incarnation: int) -> None:
    """Declare dead an incarnation whose process is known to be gone (its journal's lock is free)."""
    with outages_named("burying an incarnation"):
        await connection.execute(_SQL.bury, incarnation)


async def lock_dead(connection: Connection, incarnation: int) -> bool:
    """Inside a transaction: take a dead incarnation for rescue; False when it is not dead or another has it."""
    with outages_named("taking over an incarnation"):
        return await connection.fetchval(_SQL.lock_dead, incarnation) is not None


async def rescue(
    connection: Connection,
    incarnation: int,
    policy: DoubtPolicy,
    *,
    journal: bool,
    in_doubt: Mapping[int, int] = _NOTHING,
    started: Mapping[int, int] = _NOTHING,
) -> dict[str, int]:
    """Take over what a dead incarnation still holds, and close it; return rows by the state they came to.

    `journal` False: its journal is lost, so everything it held is in doubt. `in_doubt` and `started` (its suspects): deliveries and the
    epochs of which its journal says so; a later lease of the same delivery is another matter.
    """
    with outages_named("rescuing deliveries"):
        rows = await connection.fetch(
            _SQL.rescue,
            incarnation,
            journal,
            list(in_doubt),
            list(in_doubt.values()),
            list(started),
            list(started.values()),
            policy.transactional_wait_s,
            policy.bulk_wait_s,
            policy.quarantine_after,
        )
    return {row["state"]: row["n"] for row in rows}


async def close(connection: Connection, incarnation: int) -> bool:
    """End an incarnation that left nothing behind; False when it holds something still, or peers called it dead."""
    with outages_named("closing the incarnation"):
        return await connection.fetchval(_SQL.close, incarnation) is not None


async def status(connection: Connection, incarnation: int) -> str | None:
    """Where an incarnation stands: live, dead, closed; None when this database does not know it."""
    with outages_named("looking an incarnation up"):
        return await connection.fetchval(_SQL.status, incarnation)


async def identity(connection: Connection) -> tuple[str, int]:
    """Return which database this is and where its tick stands."""
    with outages_named("reading the database's identity"):
        row = await connection.fetchrow(_SQL.identity)
    if row is None:
        raise RuntimeError("database_identity has no row: the migrations were not applied whole")
    return row["database_id"], row["tick"]


async def hold_fleet(connection: Connection, why: str, seen_tick: int) -> None:
    """Stop all claiming, in the whole fleet, until an operator has reconciled; ids given out since the backup are left out."""
    with outages_named("holding the fleet"):
        await connection.execute(_SQL.hold_fleet, why, NUMBERS_LEFT_OUT, seen_tick)
