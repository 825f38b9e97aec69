"""The limits of all lanes, kept to the throttles: when those change, and when it is found out where a lane's mail goes.

Owns the look at the lanes and the memory of their MX hosts. Part of role `schedule`; any number of processes may do it. A new lane
starts with the limits of its domain's name; rules that go by MX hosts or site name hold from when DNS has told them, which is asked
here once a lane and hour, and never where `[route]` sends the mail. A lane of which that is not known yet is left as it is: after a
restart it has the right limits already. Where DNS does not tell, the name's limits hold. What an operator gave a
lane for a time (`store/lanes`) goes before all rules, and ends here.
"""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg
import msgspec

from gateway.clock import Clock
from gateway.config import Config, RouteConfig
from gateway.errors import StoreUnavailable
from gateway.mta.mx import MxResolver, resolver_of
from gateway.mta.mx_plan import Hosts
from gateway.store import lanes, queue
from gateway.store.pool import open_pool, outages_named
from gateway.telemetry import Event, log
from gateway.throttle.retune import Follow, never
from gateway.throttle.shaping import Shaping

NEW_EVERY_S: Final = 2.0
"""How often lanes are looked for that are new, or of which DNS has told."""
WHOLE_EVERY_S: Final = 600.0
"""How often all lanes are."""
WHOLE_AFTER_CHANGE_S: Final = 10.0
"""All lanes once more so soon after a change: meanwhile others may have made some with the limits of before."""
RETRY_S: Final = 1.0
BATCH: Final = 2_000
OVERLAP: Final = 200
"""Lanes below the highest that are looked at again: numbers are not committed in their order."""
LOOK_UPS: Final = 20
"""Domains that are looked up at a time."""
KEPT_S: Final = 3_600.0
KEPT_FAILURE_S: Final = 300.0
KEPT_DOMAINS: Final = 200_000


class Place(msgspec.Struct, frozen=True):
    """Where a domain's mail goes, as far as rules go by it."""

    site_name: str = ""
    mx_hosts: tuple[str, ...] = ()


async def run_limits(
    config: Config, dsn: str, *, shaping: Shaping, clock: Clock, stop: asyncio.Event, follow: Follow = never
) -> None:
    """Hold all lanes to the throttles until `stop`; outages of Postgres are waited out. `follow` tells of changes.

    Raises:
        StoreUnavailable: Postgres does not answer at the start.
    """
    pool = await open_pool(
        dsn, role="gateway_dispatch", min_size=0, max_size=1, application_name="gateway limits"
    )
    resolver = resolver_of(config.mx, clock)
    keeper = LimitKeeper(pool, resolver, clock, config.route, shaping)
    follow(lambda new, throttles: keeper.retune(new.route, throttles))
    try:
        async with asyncio.TaskGroup() as group:
            looking_up = [group.create_task(keeper.look_up()) for _ in range(LOOK_UPS)]
            await keeper.keep(stop)
            for task in looking_up:
                task.cancel()
    finally:
        await resolver.close()
        pool.terminate()


class LimitKeeper:
    """The limits of all lanes, as one process keeps them."""

    # Mutable on purpose: the rules in force, and a bounded memory of where domains' mail goes.
    def __init__(
        self, pool: asyncpg.Pool, resolver: MxResolver, clock: Clock, route: RouteConfig, shaping: Shaping
    ) -> None:
        self._pool, self._resolver, self._clock = pool, resolver, clock
        self._route, self._shaping = route, shaping
        self._next = (route, shaping)
        self._known: dict[str, tuple[float, Place]] = {}  # until when (monotonic)
        self._asking: dict[str, queue.LaneLimits] = {}
        self._questions: asyncio.Queue[str] = asyncio.Queue()
        self._told: list[queue.LaneLimits] = []  # lanes of which DNS has told since the last look
        self._highest = 0
        self._news = asyncio.Event()

    def retune(self, route: RouteConfig, shaping: Shaping) -> None:
        """Take changed rules; they are given to all lanes at once."""
        self._next = (route, shaping)  # a look that is under way ends by the rules that it began with
        self._news.set()

    async def keep(self, stop: asyncio.Event) -> None:
        """Look at the lanes again and again, until `stop`."""
        whole_at, changed = self._clock.monotonic(), False
        while not stop.is_set():
            self._news.clear()
            now = self._clock.monotonic()
            changed = changed or self._next != (self._route, self._shaping)
            self._route, self._shaping = self._next
            whole = changed or now >= whole_at
            wait_s = NEW_EVERY_S
            try:
                with outages_named("giving lanes their limits"):
                    given = await self.look(whole=whole)
                if whole:
                    whole_at = now + (WHOLE_AFTER_CHANGE_S if changed else WHOLE_EVERY_S)
                if changed:
                    log.info(Event.LIMITS_APPLIED, lanes=given)
                changed = False
            except StoreUnavailable as error:
                wait_s = RETRY_S
                log.warning(Event.LIMITS_LATE, error=str(error), retry_s=wait_s)
            await _first_of(self._news, stop, wait_s)

    async def look(self, *, whole: bool) -> int:
        """Look once at all lanes, or at the new ones and those of which DNS has told; return how many got other limits."""
        told, self._told = self._told, []
        given = 0
        try:
            given += await self._give(told) + await self._heed_operators()
            after = 0 if whole else max(0, self._highest - OVERLAP)
            while True:
                async with self._pool.acquire() as connection:
                    some = await queue.lane_limits(connection, after, BATCH)
                if not some:
                    return given
                given += await self._give(some)
                after = some[-1].lane_id
                self._highest = max(self._highest, after)
        except BaseException:
            self._told += told
            raise

    async def _heed_operators(self) -> int:
        """Give lanes what an operator gave them for a time, and those for which it is over the limits of the throttles again."""
        async with self._pool.acquire() as connection:
            overrides = await lanes.list_overrides(connection)
        given = await self._give([one.limits for one in overrides])
        over = [
            one.limits.lane_id for one in overrides if one.is_over and self._wanted(one.limits) is not None
        ]
        if over:
            async with self._pool.acquire() as connection:
                await lanes.forget_overrides(connection, over)
        return given

    async def look_up(self) -> None:
        """Ask DNS for the domains of lanes, one after the other, until cancelled."""
        while True:
            domain = await self._questions.get()
            found = await self._resolver.resolve(domain)
            _, place = self._known.get(domain, (0.0, Place()))
            kept_s = KEPT_FAILURE_S
            if isinstance(found, Hosts):
                place = Place(found.site_name, tuple(sorted(host.name for host in found.mx)))
                kept_s = KEPT_S
            if len(self._known) >= KEPT_DOMAINS:
                self._known.clear()
            self._known[domain] = (self._clock.monotonic() + kept_s, place)
            asked = self._asking.pop(
                domain
            )  # what an operator gave it then may be over now: the database knows
            self._told.append(
                msgspec.structs.replace(asked, own_rate_per_s=None, own_burst=None, own_max_connections=None)
            )

    async def _give(self, some: list[queue.LaneLimits]) -> int:
        """Give lanes the limits that hold for them now, where those are known and others than they have."""
        new = [limits for lane in some if (limits := self._wanted(lane)) is not None and limits != lane]
        if new:
            async with self._pool.acquire() as connection:
                await queue.set_lane_limits(connection, new)
        return len(new)

    def _wanted(self, lane: queue.LaneLimits) -> queue.LaneLimits | None:
        place = self._place_of(lane)
        if place is None:
            return None
        wanted = self._shaping.for_domain(lane.name, site_name=place.site_name, mx_hosts=place.mx_hosts)
        return msgspec.structs.replace(
            lane,
            rate_per_s=lane.own_rate_per_s or wanted.rate_per_s,
            burst=lane.own_burst or float(wanted.burst),
            max_connections=lane.own_max_connections or wanted.max_connections,
        )

    def _place_of(self, lane: queue.LaneLimits) -> Place | None:
        """Where a lane's mail goes, if rules ask for it; None: that has yet to be found out."""
        domain = lane.name
        if not self._shaping.goes_by_hosts or self._route.host_port(domain) is not None:
            return Place()
        until, place = self._known.get(domain, (0.0, None))
        if until <= self._clock.monotonic() and domain not in self._asking:
            self._asking[domain] = lane
            self._questions.put_nowait(domain)
        return place


async def _first_of(news: asyncio.Event, stop: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of two events is set, or for some time."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (news, stop)]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
