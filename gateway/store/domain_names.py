"""Sending domains by their name: who has one, whichever site that is.

Owns that look; everything else about domains is in `store/domains`. For an operator's transaction, since a name has one owner over all sites.
"""

from __future__ import annotations

from gateway.errors import NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("domain_names")


async def domain_named(connection: Connection, name: str) -> int:
    """The id of the domain with this name (lower case, A-labels).

    Raises:
        NotFound: nobody has it.
    """
    found: int | None = await connection.fetchval(_SQL.domain_named, name)
    if found is None:
        raise NotFound(f"{name} is no sending domain of any site")
    return found
