"""What this host remembers of the database it worked with, and whether the one that answers now is older: restored.

Owns the file `fleet.json`, written with each heartbeat, and the one check at a start. Asked before anything of this host takes part
again: the API, too, would give out numbers that may have been given out since the backup. Must not know what is sent.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from gateway.config import Config
from gateway.store import fleet
from gateway.store.pool import Connection

_FILE: Final = "fleet.json"


class Remembered(msgspec.Struct, frozen=True):
    """Which database it was, and the latest tick that was seen there."""

    database_id: str
    tick: int


def state_dir_of(config: Config) -> Path:
    """Where this host's dispatchers keep their journals and what they remember."""
    return config.data_dir / "dispatch"


def remember(state_dir: Path, what: Remembered) -> None:
    """Keep `what`, whole or not at all."""
    draft = state_dir / f"{_FILE}.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(what))
    draft.replace(state_dir / _FILE)


def remembered(state_dir: Path) -> Remembered | None:
    """What was kept last; None on a new host."""
    try:
        return msgspec.json.decode((state_dir / _FILE).read_bytes(), type=Remembered)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


async def hold_if_restored(connection: Connection, state_dir: Path) -> str:
    """Hold the fleet if the database is behind what this host saw; return the database's id. May be called again.

    Raises:
        StoreUnavailable: Postgres went away.
    """
    database_id, tick = await fleet.identity(connection)
    known = remembered(state_dir)
    if known is not None and known.database_id == database_id and known.tick > tick:
        await fleet.hold_fleet(
            connection,
            f"restored: the database is at tick {tick}, this host saw {known.tick}; run `gateway reconcile`",
            known.tick,
        )
    return database_id
