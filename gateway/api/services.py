"""What the handlers of one API process share, and its life.

Owns opening and closing. Must not know a resource or a route.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import msgspec
from prometheus_client import CollectorRegistry

from gateway.api.auth import Authenticator
from gateway.api.senders import Senders
from gateway.clock import Clock, SystemClock
from gateway.config import Config
from gateway.mta.keys import load_or_create_master_key
from gateway.store.intake import Intake, Numbers
from gateway.store.lane_map import LaneMap
from gateway.store.pool import open_pool
from gateway.store.waker import Waker
from gateway.telemetry import Metrics
from gateway.throttle.shaping import Shaping

ROLE = "gateway_api"


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
    pool = await open_pool(
        dsn, role=ROLE, min_size=1, max_size=config.database.api_pool_size, application_name="gateway api"
    )
    try:
        async with Waker(dsn, role=ROLE, clock=clock) as waker:
            timeout_s = config.database.acquire_timeout_s
            lanes = LaneMap(pool, shaping.for_domain, clock, acquire_timeout_s=timeout_s)
            intake = Intake(pool, lanes, waker, clock, acquire_timeout_s=timeout_s)
            yield Services(
                config=config,
                clock=clock,
                pool=pool,
                auth=Authenticator(pool, clock),
                senders=Senders(pool, clock),
                intake=intake,
                numbers=intake.numbers,
                waker=waker,
                metrics=metrics or Metrics(CollectorRegistry()),
                master_key=master_key,
                lanes=lanes,
            )
    finally:
        pool.terminate()
