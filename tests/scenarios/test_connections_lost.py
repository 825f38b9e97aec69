"""F10: connections to Postgres are cut again and again. Nobody listens for what is new: dispatchers poll, wakes are told again."""

from __future__ import annotations

from pathlib import Path

from gateway.model.ids import Prefix, decode
from gateway.store import sites
from gateway.store.tenancy import OPERATOR, as_site
from tests.support.api import Client, World, open_world
from tests.support.fleet import SENDING_DOMAIN, Fleet

CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1"


async def test_what_is_accepted_while_connections_are_cut_is_sent_without_the_sweep(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path) as fleet, open_world(db, tmp_path) as world:
        await fleet.stop_upkeep()  # the sweep would find what nobody was woken for
        app = await _app(world, fleet)
        await fleet.submit([f"first@d{i}.test" for i in range(10)])
        await fleet.start("here")
        await fleet.taken(10)
        accepted = 0
        for turn in range(6):
            for number in range(10):
                body = {
                    "from": f"news@{SENDING_DOMAIN}", "to": f"u{turn}.{number}@d{number}.test", "subject": "On", "text": "On.",
                }  # fmt: skip
                key = f"{turn}.{number}"
                answer = await app.call("POST", "/v1/messages", body, key=key)
                while answer.status_code == 503:  # its connection was one of those that were cut
                    assert int(answer.headers["retry-after"]) >= 1
                    answer = await app.call("POST", "/v1/messages", body, key=key)
                assert answer.status_code == 202, answer.text
                fleet.submitted += [decode(Prefix.DELIVERY, d["id"]) for d in answer.json()["deliveries"]]
                accepted += 1
            for who in ("gateway waker", "gateway dispatch", "gateway api"):
                await fleet.pool.fetchval(CUT, who)
        await fleet.settled()
        assert accepted == 60
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == set(fleet.submitted)


async def _app(world: World, fleet: Fleet) -> Client:
    async with as_site(world.services.pool, OPERATOR) as connection:
        _, key = await sites.issue_key(connection, fleet.site_id, "scenario", ["send"])
    return Client(world.http, key)
