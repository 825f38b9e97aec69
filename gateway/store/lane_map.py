"""domain → lane and flow, remembered by one process for some minutes.

Owns the memory and the making of what is missing. Must not know messages. A lane is made with the limits that the rules
give its domain; flows are of one site, priority and broadcast in a lane.

Entries are forgotten with the whole group they stand in, 5 minutes after the group was begun: the reaper removes flows and
lanes that were idle for a day, and a domain may be moved to another lane. A row that still goes to a removed flow is mended
by the sweep.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

import asyncpg
import msgspec

from gateway.clock import Clock
from gateway.store.catalogue import load
from gateway.store.pool import outages_named

_SQL = load("intake")
_ENSURE_LANES = _SQL.ensure_lanes
_ENSURE_FLOWS = _SQL.ensure_flows

MAX_AGE_S: Final = 300.0
MAX_ENTRIES: Final = 200_000
_CHUNK: Final = 1_000


class LaneLimits(Protocol):
    """What a new lane starts with; `throttle.shaping.Limits` is one."""

    @property
    def rate_per_s(self) -> float:
        """Deliveries per second over the whole fleet."""
        ...

    @property
    def burst(self) -> int:
        """Deliveries that may leave at once after a pause."""
        ...

    @property
    def max_connections(self) -> int:
        """Open connections over the whole fleet."""
        ...


class FlowKey(msgspec.Struct, frozen=True):
    """Whose deliveries, and how urgent: what a flow is apart from its lane. `broadcast_id` 0: single messages."""

    site_id: int
    priority: int
    broadcast_id: int = 0


class Target(msgspec.Struct, frozen=True):
    """Where a delivery stands in the queue."""

    lane_id: int
    flow_id: int


class LaneMap:
    """The process's memory of lanes and flows."""

    # Mutable on purpose: a cache, bounded in entries and age.
    def __init__(
        self,
        pool: asyncpg.Pool,
        limits: Callable[[str], LaneLimits],
        clock: Clock,
        *,
        max_entries: int = MAX_ENTRIES,
        acquire_timeout_s: float = 5.0,
    ) -> None:
        """Take the rules as a function: domain (lower case, A-labels) → limits of its lane, should it have to be made."""
        self._pool, self._limits, self._clock, self._max_entries = pool, limits, clock, max_entries
        self._timeout_s = acquire_timeout_s
        self._groups: OrderedDict[FlowKey, tuple[float, dict[str, Target]]] = OrderedDict()
        self._lanes: dict[str, int] = {}
        self._lanes_began_at = clock.monotonic()
        self._entries = 0

    def use(self, limits: Callable[[str], LaneLimits]) -> None:
        """Replace the rules: lanes that are made from now on start with theirs."""
        self._limits = limits

    @property
    def entries(self) -> int:
        """How many targets are remembered."""
        return self._entries

    async def resolve(self, key: FlowKey, domains: Collection[str]) -> Mapping[str, Target]:
        """Return targets of at least these domains (lower case, A-labels), making lanes and flows where missing.

        Raises:
            StoreUnavailable: Postgres went away.
        """
        known = self._group(key)
        missing = sorted({domain for domain in domains if domain not in known})
        if not missing:
            return known
        found: dict[str, Target] = {}
        for start in range(0, len(missing), _CHUNK):
            found |= await self._ensure(key, missing[start : start + _CHUNK])
        if self._entries + len(found) > self._max_entries:
            self._groups.clear()
            self._entries = 0
        memory = self._group(key)  # not `known`: that may have been forgotten meanwhile
        before = len(memory)
        memory.update(found)
        self._entries += len(memory) - before
        return {domain: found.get(domain) or known[domain] for domain in domains}

    async def _ensure(self, key: FlowKey, domains: Sequence[str]) -> dict[str, Target]:
        lanes = await self._ensure_lanes(domains)
        with outages_named("making flows"):
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                rows = await connection.fetch(
                    _ENSURE_FLOWS, sorted(set(lanes.values())), key.priority, key.site_id, key.broadcast_id
                )
        flows: dict[int, int] = {row["lane_id"]: row["flow_id"] for row in rows}
        return {domain: Target(lane, flows[lane]) for domain, lane in lanes.items()}

    async def _ensure_lanes(self, domains: Sequence[str]) -> dict[str, int]:
        now = self._clock.monotonic()
        if now - self._lanes_began_at > MAX_AGE_S or len(self._lanes) > self._max_entries:
            self._lanes, self._lanes_began_at = {}, now
        memory = self._lanes
        missing = [domain for domain in domains if domain not in memory]
        if missing:
            limits = [self._limits(domain) for domain in missing]
            with outages_named("making lanes"):
                async with self._pool.acquire(timeout=self._timeout_s) as connection:
                    rows = await connection.fetch(
                        _ENSURE_LANES,
                        missing,
                        [limit.rate_per_s for limit in limits],
                        [float(limit.burst) for limit in limits],
                        [limit.max_connections for limit in limits],
                    )
            memory.update((row["domain"], row["lane_id"]) for row in rows)
        return {domain: memory[domain] for domain in domains}

    def _group(self, key: FlowKey) -> dict[str, Target]:
        now = self._clock.monotonic()
        group = self._groups.get(key)
        if group is not None and now - group[0] <= MAX_AGE_S:
            return group[1]
        # In the order in which they were begun: the old ones come first, `key`'s own among them.
        while self._groups and now - next(iter(self._groups.values()))[0] > MAX_AGE_S:
            _, (_, targets) = self._groups.popitem(last=False)
            self._entries -= len(targets)
        targets: dict[str, Target] = {}
        self._groups[key] = (now, targets)
        return targets
