"""What a process needs to accept messages: a pool, who holds which key, who may send from where, how much may wait, the intake.

Owns opening and closing, alike for the API and for the SMTP door. Must not know either.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from gateway.clock import Clock
from gateway.config import Config
from gateway.store.intake import Intake
from gateway.store.lane_map import LaneMap
from gateway.store.pool import open_pool
from gateway.store.waker import Waker
from gateway.submission.auth import Authenticator
from gateway.submission.backlogs import Backlogs
from gateway.submission.senders import Senders
from gateway.throttle.shaping import Shaping

ROLE = "gateway_api"
"""One site at a time, by row-level security."""


class Desk(msgspec.Struct):
    """Where messages are taken. Mutable on purpose: `config` is replaced when live keys of it change."""

    config: Config
    clock: Clock
    pool: asyncpg.Pool
    auth: Authenticator
    senders: Senders
    intake: Intake
    waker: Waker
    lanes: LaneMap
    backlogs: Backlogs

    def retune(self, config: Config, shaping: Shaping) -> None:
        """Take a changed configuration, of which live keys alone differ, and changed throttles (for lanes yet to be made)."""
        self.config = config
        self.lanes.use(shaping.for_domain)


@asynccontextmanager
async def open_desk(
    config: Config, dsn: str, *, shaping: Shaping, clock: Clock, application_name: str
) -> AsyncGenerator[Desk]:
    """Open a desk; wakes what was accepted and closes it at the end.

    Raises:
        StoreUnavailable: Postgres does not answer.
    """
    database = config.database
    pool = await open_pool(
        dsn, role=ROLE, min_size=1, max_size=database.api_pool_size, application_name=application_name
    )
    try:
        async with Waker(dsn, role=ROLE, clock=clock) as waker:
            timeout_s = database.acquire_timeout_s
            lanes = LaneMap(pool, shaping.for_domain, clock, acquire_timeout_s=timeout_s)
            yield Desk(
                config=config,
                clock=clock,
                pool=pool,
                auth=Authenticator(pool, clock),
                senders=Senders(pool, clock),
                intake=Intake(pool, lanes, waker, clock, acquire_timeout_s=timeout_s),
                waker=waker,
                lanes=lanes,
                backlogs=Backlogs(pool, clock, acquire_timeout_s=timeout_s),
            )
    finally:
        pool.terminate()
