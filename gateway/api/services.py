"""What the handlers of one API process share, and its life.

Owns opening and closing. Must not know a resource or a route.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import msgspec
from prometheus_client import CollectorRegistry

from gateway.api.followers import Followers
from gateway.api.rates import Rates
from gateway.clock import Clock, SystemClock
from gateway.config import Config
from gateway.mta.keys import load_or_create_master_key
from gateway.store.intake import Intake, Numbers
from gateway.store.lane_map import LaneMap
from gateway.store.waker import Waker
from gateway.submission.auth import Authenticator
from gateway.submission.backlogs import Backlogs
from gateway.submission.desk import ROLE, open_desk
from gateway.submission.senders import Senders
from gateway.telemetry import Metrics
from gateway.throttle.shaping import Shaping

__all__ = ["ROLE", "Services", "open_services"]


class Services(msgspec.Struct):
    """Everything a handler may use. Mutable on purpose: `config` is replaced when live keys of it change."""

    config: Config
    clock: Clock
    pool: asyncpg.Pool
    auth: Authenticator
    senders: Senders
    intake: Intake
    numbers: Numbers
    waker: Waker
    metrics: Metrics
    master_key: bytes
    lanes: LaneMap
    rates: Rates
    backlogs: Backlogs
    stopping: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Set when the process is to end: who follows something is let go."""
    followers: Followers = msgspec.field(default_factory=Followers)
    """Who follows a broadcast."""
    estimating: int = 0
    """How many broadcasts are just being estimated."""

    def retune(self, config: Config, shaping: Shaping) -> None:
        """Take a changed configuration, of which live keys alone differ, and changed throttles (for lanes yet to be made)."""
        self.config = config
        self.lanes.use(shaping.for_domain)


@asynccontextmanager
async def open_services(
    config: Config,
    dsn: str,
    *,
    shaping: Shaping,
    clock: Clock | None = None,
    metrics: Metrics | None = None,
) -> AsyncGenerator[Services]:
    """Open what one API process needs; flushes and closes it at the end.

    Raises:
        StoreUnavailable: Postgres does not answer.
        ConfigError: the envelope key cannot be read or made.
    """
    clock = clock or SystemClock()
    master_key = load_or_create_master_key(config.master_key_path)
    async with open_desk(config, dsn, shaping=shaping, clock=clock, application_name="gateway api") as desk:
        yield Services(
            config=config,
            clock=clock,
            pool=desk.pool,
            auth=desk.auth,
            senders=desk.senders,
            intake=desk.intake,
            numbers=desk.intake.numbers,
            waker=desk.waker,
            metrics=metrics or Metrics(CollectorRegistry()),
            master_key=master_key,
            lanes=desk.lanes,
            rates=Rates(clock),
            backlogs=desk.backlogs,
        )
