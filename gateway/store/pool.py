"""Connections to Postgres: one role to a pool, the same session everywhere.

Owns how a connection is opened, what its session is like, and the words when that fails. Must not know a query.

A session: the role asked for, UTC, no JIT, commits that wait for the disk, prepared statements kept for the connection's life. `jsonb`
is `str` both ways, as asyncpg has it: `msgspec.json.decode` takes it as it is, and a codec would cost every new connection a round trip.

Connections go back to the pool without asyncpg's reset query (UNLISTEN, RESET ALL, unlock all …), a round trip of its own at
every release: a small query through the pool took 0.16 ms of CPU instead of 0.27 (November 2026, 2 shared cores). An open
transaction is still rolled back and listeners are dropped, but session state stays: use `SET LOCAL` and
`pg_advisory_xact_lock`, and `connect` a connection of your own for LISTEN and for session locks.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from gateway.errors import StoreUnavailable

Connection = asyncpg.Connection | PoolConnectionProxy
"""What a function of the store takes: a connection of its own, or one that a pool has lent."""

OUTAGES = (
    OSError,  # refused, reset, a missing socket; TimeoutError too
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""What asyncpg raises while the server is away, going or full: temporary; what was not committed is not written."""

_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidParameterValueError,  # "role … does not exist", since the role is set while connecting
    asyncpg.InsufficientPrivilegeError,
)

# asyncpg has one class for its user's mistakes and for a connection that ended between two queries: only words tell. While
# the connection is ending, its state machine may also trip over itself (seen with 0.32).
_LOST_CONNECTION = ("connection is closed", "released back to the pool", "cannot switch to state")

_STATEMENTS_KEPT = 512  # more than the catalogue has: a statement is prepared once in a connection's life
_CONNECT_TIMEOUT_S = 10


async def open_pool(
    dsn: str,
    *,
    role: str | None = None,
    min_size: int = 1,
    max_size: int = 10,
    application_name: str = "gateway",
    settings: Mapping[str, str] | None = None,
) -> asyncpg.Pool:
    """A pool with `min_size` connections open, all of them working as `role`.

    Args:
        dsn: where Postgres is, as a URL.
        role: a role that the DSN's user may take on (`gateway_api`, `gateway_dispatch`, `gateway_maintain`), or None.
        min_size: connections kept open.
        max_size: connections at most; who wants one more waits.
        application_name: what the server's views and logs call these connections.
        settings: further Postgres settings of each session, such as `statement_timeout`.

    Raises:
        StoreUnavailable: nobody answers there, or the user, the role or the database does not exist.
    """
    with _named_failures(dsn, role):
        return await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            max_inactive_connection_lifetime=0,  # an idle hour must not make the next message wait for a connection
            reset=_keep_session,
            timeout=_CONNECT_TIMEOUT_S,
            statement_cache_size=_STATEMENTS_KEPT,
            max_cached_statement_lifetime=0,
            server_settings=_session(role, application_name, settings),
        )


async def connect(
    dsn: str,
    *,
    role: str | None = None,
    application_name: str = "gateway",
    settings: Mapping[str, str] | None = None,
) -> asyncpg.Connection:
    """One connection outside any pool, for LISTEN, session locks and migrations; the caller closes it.

    Raises:
        StoreUnavailable: as for `open_pool`.
    """
    with _named_failures(dsn, role):
        return await asyncpg.connect(
            dsn,
            timeout=_CONNECT_TIMEOUT_S,
            statement_cache_size=_STATEMENTS_KEPT,
            max_cached_statement_lifetime=0,
            server_settings=_session(role, application_name, settings),
        )


@contextmanager
def outages_named(doing: str) -> Generator[None]:
    """Turn an outage inside the block into `StoreUnavailable`; every other error passes.

    Args:
        doing: what was being done, for the message: "claiming deliveries".

    Raises:
        StoreUnavailable: Postgres went away, or no connection came free in time.
    """
    try:
        yield
    except OUTAGES as error:
        raise StoreUnavailable(f"{doing}: Postgres is not available ({_said(error)})") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if any(words in str(error) for words in _LOST_CONNECTION):
            raise StoreUnavailable(f"{doing}: the connection to Postgres was lost ({error})") from error
        raise


def describe(dsn: str) -> str:
    """Where a DSN points, without its password: `gateway@/tmp/x/gateway`."""
    try:
        parts = urlsplit(dsn)
        host = parse_qs(parts.query).get("host", [parts.hostname or "localhost"])[0]
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(unreadable DSN)"
    return f"{parts.username or 'default user'}@{host}{port}{parts.path}"


def _session(role: str | None, application_name: str, settings: Mapping[str, str] | None) -> dict[str, str]:
    session = {
        "application_name": application_name,
        "TimeZone": "UTC",
        "jit": "off",
        # A 250 or a 202 says that the message is on disk: that must not hang on how a server, a database, a user or a DSN is set.
        "synchronous_commit": "on",
        **(settings or {}),
    }
    # Set while connecting, the role is the session's default: it costs no round trip, and RESET ROLE returns to it.
    return session | {"role": role} if role is not None else session


async def _keep_session(connection: asyncpg.Connection) -> None:
    """Stand in for asyncpg's reset query: see the module's docstring."""


@contextmanager
def _named_failures(dsn: str, role: str | None) -> Generator[None]:
    try:
        yield
    except _REFUSALS as error:
        hint = f"; the role {role} is made by the migrations" if role and role in str(error) else ""
        raise StoreUnavailable(
            f"Postgres at {describe(dsn)} refuses the connection: {_said(error)}{hint}"
        ) from error
    except OUTAGES as error:
        raise StoreUnavailable(f"no Postgres answers at {describe(dsn)}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
