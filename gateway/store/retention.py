"""What is forgotten: contents some time after their messages have ended, events by the day, and at once the message that a site names.

Owns these calls. Must not know for how long a thing is kept, nor who asks. People: `store/privacy`. The books are never touched: what was accepted and how it
ended is a number and a state, and both stay (`gateway books --deep` proves it before and after). Addresses that must not be written to
stay in `suppression`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.errors import Conflict, NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("retention")
_ERASE_DUE = _SQL.erase_due
_ERASE_MESSAGE = _SQL.erase_message
_DROP_EVENT_DAY = _SQL.drop_event_day
_ROWS: Final = 10_000


class Erased(msgspec.Struct, frozen=True):
    """How many messages were looked at, and of how many the content was erased."""

    looked: int
    erased: int


async def erase_due(connection: Connection, stream: str, before: datetime, limit: int) -> Erased:
    """Erase the contents of a stream's messages that were created before a moment and have ended; call again while `looked` is `limit`.

    What has not ended is looked at again by later calls. Two calls at once do not do the same.

    Raises:
        StoreUnavailable: Postgres went away.
    """
    with outages_named("erasing contents"):
        row = await connection.fetchrow(_ERASE_DUE, stream, before, limit)
    return Erased(*row) if row else Erased(0, 0)


async def erase_message(connection: Connection, site_id: int, message_id: int) -> None:
    """Erase a message of a site at once: its content, its recipients, and the replies about them. May be called again.

    Raises:
        NotFound: the site has no such message.
        Conflict: deliveries of it are open, or it is a broadcast's.
    """
    try:
        with outages_named("erasing a message"):
            found = await connection.fetchval(_ERASE_MESSAGE, site_id, message_id)
    except asyncpg.ObjectInUseError as error:
        raise Conflict(error.args[0]) from error
    if not found:
        raise NotFound("no such message")


async def drop_event_days(connection: Connection, before: datetime) -> int:
    """Drop the days of events that were over before a moment; return how many. Those that somebody is just writing are left for the next call.

    Raises:
        StoreUnavailable: Postgres went away.
    """
    dropped = 0
    with outages_named("dropping days of events"):
        try:
            while row := await connection.fetchrow(_DROP_EVENT_DAY, before, _ROWS):
                dropped += row["days"]
                if not row["days"] and row["rows"] < _ROWS:
                    break
        except asyncpg.LockNotAvailableError:
            pass
    return dropped
