"""`gateway migrate`."""

from __future__ import annotations

from gateway.app.database import bring_up, database
from gateway.cli.common import DEFAULTS, Common, print_json, say
from gateway.store.pool import describe


async def migrate(*, common: Common = DEFAULTS) -> None:
    """Bring the database to the schema of this version.

    Safe to call again, and from many machines at once.

    Example: GATEWAY_DSN=postgresql://gateway@db/gateway gateway migrate
    """
    async with database(common.load(), create=True) as dsn:
        applied = await bring_up(dsn, allowed=True)
    if common.json:
        print_json({"applied": applied})
    elif applied:
        say(f"{describe(dsn)}: applied {', '.join(applied)}")
    else:
        say(f"{describe(dsn)}: nothing to do")
