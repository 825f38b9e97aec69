"""A dispatcher keeps to changed files from the next connection on, without a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from gateway.clock import SystemClock
from gateway.config import RouteConfig
from gateway.dispatch.run import run_dispatcher
from gateway.store import traces
from gateway.store.traces import Kind
from gateway.throttle.retune import Retune
from gateway.throttle.shaping import Rule, Shaping
from tests.support.fleet import BULK, Fleet
from tests.support.sink import SinkServer

ONE_EACH = Shaping(domain={"a.test": Rule(messages_per_connection=1)})


async def test_routes_and_the_use_of_connections_change_under_a_dispatcher(db: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    settings = {"dispatch": {"heartbeat_s": 0.1, "idle_connection_s": 60.0, "connections_per_lane": 1}}
    async with Fleet(db, tmp_path, settings=settings) as fleet, SinkServer(elsewhere) as other:
        stop, followers = asyncio.Event(), list[Retune]()
        config = fleet.config("here")
        dispatching = asyncio.create_task(
            run_dispatcher(
                config, db, clock=SystemClock(), stop=stop, shaping=ONE_EACH, follow=followers.append
            )
        )

        async def sessions(count: int) -> int:
            """Submit some, and count the sessions that are opened for them."""
            async with fleet.pool.acquire() as connection:
                request_id, _ = await traces.ask(connection, Kind.MESSAGE, fleet.messages[BULK], 60.0)
                tick = (await traces.dispatchers(connection)).tick

            async def heard() -> bool:
                async with fleet.pool.acquire() as connection:
                    return (await traces.dispatchers(connection)).tick > tick + 2

            await fleet.until("the dispatcher has heard of it, with a heartbeat", heard)
            await fleet.submit([f"r{i}@a.test" for i in range(count)], priority=BULK)
            await fleet.settled()

            async def told() -> bool:
                async with fleet.pool.acquire() as connection:
                    lines[:] = [line.text for line in await traces.read(connection, request_id, {})]
                return sum("delivered (ok)" in line for line in lines) == count

            lines: list[str] = []
            await fleet.until("the transcript is whole", told)
            async with fleet.pool.acquire() as connection:
                await traces.end(connection, request_id)
            return sum(line.startswith("EHLO") for line in lines)

        assert await sessions(4) == 4
        followers[0](config, Shaping())
        assert await sessions(4) == 1
        assert (fleet.sink.ledger().accepts, other.ledger().accepts) == (8, 0)

        routed = RouteConfig(default=config.route.default, domains={"b.test": f"127.0.0.1:{other.port}"})
        followers[0](msgspec.structs.replace(config, route=routed), Shaping())
        await fleet.submit(["ann@b.test"], priority=BULK)
        await fleet.settled()
        assert (fleet.sink.ledger().accepts, other.ledger().accepts) == (8, 1)
        stop.set()
        await dispatching
