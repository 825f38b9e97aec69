"""A change of the throttles reaches all lanes without a restart, and rules by MX hosts hold once DNS has told them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from structlog.testing import capture_logs

from gateway.clock import SystemClock
from gateway.config import Config, MxConfig, RouteConfig
from gateway.dispatch import limits
from gateway.dispatch.limits import run_limits
from gateway.throttle.retune import Retune
from gateway.throttle.shaping import Limits, Provider, Rule, Shaping
from tests.support.dns import scripted_dns

BEFORE = Shaping()
BY_HOSTS = Shaping(
    provider={"big": Provider(mx_suffixes=("big.example",), rate_per_s=7.0)},
    mx_suffix={"eu.big.example": Rule(burst=3)},
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NEW_EVERY_S", 0.02)


@asynccontextmanager
async def kept(db: str, shaping: Shaping, config: Config | None = None) -> AsyncIterator[Retune]:
    """Lanes are kept to the throttles; gives what changes those."""
    stop, followers = asyncio.Event(), list[Retune]()
    started = asyncio.create_task(
        run_limits(
            config or Config(), db, shaping=shaping, clock=SystemClock(), stop=stop, follow=followers.append
        )
    )
    while not followers:
        await asyncio.sleep(0)
    yield followers[0]
    stop.set()
    await started


async def make_lanes(pool: asyncpg.Pool, *domains: str) -> None:
    n = len(domains)
    await pool.execute("SELECT ensure_lanes($1, $2, $3, $4)", domains, [100.0] * n, [20.0] * n, [10] * n)


async def rates(pool: asyncpg.Pool) -> dict[str, float]:
    rows = await pool.fetch("SELECT name, rate_per_s FROM lane JOIN lane_state ON lane_id = id")
    return {row["name"]: row["rate_per_s"] for row in rows}


async def becomes(found: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Wait until it does; the lanes are another task's."""
    async with asyncio.timeout(10):
        while await found() != wanted:
            await asyncio.sleep(0.01)


async def test_a_change_reaches_the_lanes_and_says_how_many(db: str, pool: asyncpg.Pool) -> None:
    await make_lanes(pool, "a.test", "b.test")
    with capture_logs() as logs:
        async with kept(db, Shaping(Limits(rate_per_s=50.0))) as retune:
            await becomes(lambda: rates(pool), {"a.test": 50.0, "b.test": 50.0})
            retune(Config(), BEFORE)
            await becomes(lambda: rates(pool), {"a.test": 100.0, "b.test": 100.0})
            retune(Config(), Shaping(domain={"a.test": Rule(rate_per_s=7.0)}))
            await becomes(lambda: rates(pool), {"a.test": 7.0, "b.test": 100.0})
            retune(Config(), BEFORE)
            await becomes(lambda: rates(pool), {"a.test": 100.0, "b.test": 100.0})
    assert [(log["event"], log["lanes"]) for log in logs] == [("limits.applied", n) for n in (2, 1, 1)]


async def test_lanes_have_the_limits_of_the_start_and_later_ones_get_them(
    db: str, pool: asyncpg.Pool
) -> None:
    await make_lanes(pool, "a.test")
    async with kept(db, Shaping(Limits(rate_per_s=50.0))):
        await becomes(lambda: rates(pool), {"a.test": 50.0})
        await make_lanes(pool, "c.test")  # by a process that does not know better
        await becomes(lambda: rates(pool), {"a.test": 50.0, "c.test": 50.0})


async def test_rules_by_mx_hosts_hold_once_dns_has_told_them(db: str, pool: asyncpg.Pool) -> None:
    await make_lanes(pool, "plain.example", "hosted.example", "nowhere.example")

    async def found() -> dict[str, tuple[float, float]]:
        rows = await pool.fetch("SELECT name, rate_per_s, burst FROM lane JOIN lane_state ON lane_id = id")
        return {row["name"]: (row["rate_per_s"], row["burst"]) for row in rows}

    async with scripted_dns() as dns:
        for domain, host in (("plain", "mx.plain.example"), ("hosted", "mx1.eu.big.example")):
            dns.put(f"{domain}.example", "MX", f"10 {host}.", ttl=60)
            dns.put(host, "A", "8.8.8.1", ttl=60)
        config = Config(mx=MxConfig(nameservers=(dns.nameserver,)))
        expected = {"plain.example": (100.0, 20), "hosted.example": (7.0, 3), "nowhere.example": (100.0, 20)}
        async with kept(db, BY_HOSTS, config) as retune:
            await becomes(found, expected)
            await dns.until_asked("nowhere.example", "MX")
            retune(config, BEFORE)
            await becomes(found, dict.fromkeys(expected, (100.0, 20)))
            retune(config, BY_HOSTS)
            await becomes(found, expected)
        assert dns.count("hosted.example", "MX") == 1


async def test_a_lane_keeps_its_limits_until_dns_has_told_its_hosts(db: str, pool: asyncpg.Pool) -> None:
    """As after a restart: limits by MX hosts must not be lifted only because they are not known yet."""
    await make_lanes(pool, "hosted.example", "routed.example")
    await pool.execute("UPDATE lane_state SET rate_per_s = 7")
    async with scripted_dns() as dns:
        config = Config(
            mx=MxConfig(nameservers=(dns.nameserver,)),
            route=RouteConfig(domains={"routed.example": "127.0.0.1:2525"}),
        )
        async with kept(db, BY_HOSTS, config):
            await becomes(lambda: rates(pool), {"hosted.example": 7.0, "routed.example": 100.0})
            await dns.until_asked("hosted.example", "MX")
            await becomes(lambda: rates(pool), {"hosted.example": 100.0, "routed.example": 100.0})  # NXDOMAIN
        assert dns.count("routed.example", "MX") == 0
