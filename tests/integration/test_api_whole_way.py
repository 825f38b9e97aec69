"""The thinnest whole way: site, key, domain, import, template, broadcast, stats; and single messages."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from gateway.campaigns.scheduler import Scheduler
from gateway.clock import SystemClock
from gateway.store.lane_map import LaneMap
from gateway.throttle.shaping import Shaping
from tests.support.api import Client, make_broadcast, open_world


async def test_from_a_new_site_to_deliveries_in_the_queue(
    db: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    async with open_world(db, tmp_path) as world:
        site = await world.operator.post("/v1/sites", {"name": "Acme"})
        key = await world.operator.post("/v1/keys", {"site": site["id"], "scopes": ["admin"]})
        app = Client(world.http, key["key"])
        domain = await app.post("/v1/domains", {"name": "Acme.Example"})
        assert domain["name"] == "acme.example"
        assert domain["records"][0]["value"].startswith("v=DKIM1; k=rsa; p=")
        refused = await app.call(
            "POST",
            "/v1/messages",
            {"from": "a@acme.example", "to": "b@c.example", "subject": "s", "text": "t"},
        )
        assert (refused.status_code, refused.json()["type"]) == (403, "domain_unverified")
        await world.operator.post(f"/v1/domains/{domain['id']}/actions/mark_verified")

        sent = await app.post(
            "/v1/messages", {"from": "a@acme.example", "to": "b@c.example", "subject": "s", "text": "t"}
        )
        assert [d["state"] for d in sent["deliveries"]] == ["queued"]
        shown = await app.get(f"/v1/messages/{sent['id']}")
        assert shown["deliveries"][0]["id"] == sent["deliveries"][0]["id"]

        draft = await make_broadcast(app, "acme.example")
        launched = await app.post(f"/v1/broadcasts/{draft['id']}/actions/send", {})
        assert launched["state"] == "preparing"
        clock = SystemClock()
        scheduler = Scheduler(pool, LaneMap(pool, Shaping().for_domain, clock), world.services.waker, clock)
        await scheduler.round()
        stats = await app.get(f"/v1/broadcasts/{draft['id']}/stats")
        assert stats == {
            "accepted": 2,
            "expanded": True,
            "state": "sending",
            "states": {"queued": 2, "leased": 0, "held": 0},
        }
        await world.services.waker.flush()
        assert await pool.fetchval("SELECT count(*) FROM flow WHERE active") == 3
        assert (
            await pool.fetchval(
                "SELECT variables::jsonb->>'company' FROM queue WHERE recipient = 'ada@one.example'"
            )
            == "Engines"
        )
