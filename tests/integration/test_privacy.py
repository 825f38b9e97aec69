"""A person who asks to see what is kept, or to be forgotten: everywhere, while mail is open, and for one site alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.model.ids import Prefix, decode
from gateway.store.books import read_books
from gateway.store.pool import open_pool
from gateway.store.privacy import LOOK, erase_step, find_sent
from tests.support.api import Client, World, import_list, open_world

ADA, BOB = "Ada@one.example", "bob@two.example"
EVERYWHERE = (
    "contact", "list_member", "import_error", "queue", "ended", "event", "message", "acceptance", "erasure", "retention_waiting",
)  # fmt: skip


class Desk:
    """Two sites that write to the same people, and the hand of role schedule."""

    def __init__(
        self, world: World, pool: asyncpg.Pool, worker: asyncpg.Pool, site: Client, other: Client
    ) -> None:
        self.world, self.pool, self.worker, self.site, self.other = world, pool, worker, site, other

    async def send(self, *recipients: str, by: Client | None = None, **more: Any) -> list[int]:
        """Send one message; the ids of its deliveries."""
        client = by or self.site
        domain = "acme.example" if client is self.site else "other.example"
        body = {
            "from": f"a@{domain}", "to": list(recipients), "subject": "For Ada@one.example", "text": "Dear {{ name }}",
            "variables": {"name": "Lovelace"},
        }  # fmt: skip
        answer = await client.post("/v1/messages", body | more)
        return [decode(Prefix.DELIVERY, one["id"]) for one in answer["deliveries"]]

    async def bounce(self, ids: list[int]) -> None:
        """End deliveries with a reply that names their recipient, as receivers do."""
        await self.pool.execute(
            "INSERT INTO event (delivery_id, site_id, broadcast_id, kind, at, reply) "
            "SELECT id, site_id, broadcast_id, 'deferred', now(), 'not now, ' || recipient FROM queue WHERE id = ANY ($1)",
            ids,
        )
        await self.pool.execute(
            "UPDATE queue SET last_reply = '550 no ' || recipient WHERE id = ANY ($1)", ids
        )
        await self.pool.execute(
            "SELECT end_deliveries($1, 'bounced', 0, '{queued,leased}', 'ended by hand')", ids
        )

    async def lease(self, ids: list[int]) -> None:
        await self.pool.execute("UPDATE queue SET state = 'leased', owner_id = 1 WHERE id = ANY ($1)", ids)

    async def work(self, look: int = LOOK) -> int:
        """Do all parts that are due, the waiting of an erasure skipped; how many parts there were."""
        await self.pool.execute("UPDATE erasure SET due_at = now() WHERE ended_at IS NULL")
        parts = 0
        async with self.worker.acquire() as connection:
            while await erase_step(connection, look) is not None:
                parts += 1
                assert parts < 50
        return parts

    async def rows_with(self, text: str, site: Client | None = None) -> dict[str, int]:
        """How many rows of each table hold a text, in any case of letters."""
        found: dict[str, int] = {}
        for table in EVERYWHERE:
            guard = "" if table == "retention_waiting" else f" AND site_id = {(site or self.site).site_id}"
            count = await self.pool.fetchval(
                f"SELECT count(*) FROM {table} t WHERE t::text ILIKE $1{guard}", f"%{text}%"
            )
            if count:
                found[table] = count
        return found

    async def state_of(self, delivery: int) -> str:
        return await self.pool.fetchval(
            "SELECT state::text FROM queue WHERE id = $1 UNION ALL SELECT state::text FROM ended WHERE id = $1",
            delivery,
        )


@pytest.fixture
async def desk(db: str, pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Desk]:
    worker = await open_pool(db, role="gateway_dispatch", max_size=1)
    async with open_world(db, tmp_path) as world:
        site = await world.site("Acme", domain="acme.example")
        other = await world.site("Other", domain="other.example")
        yield Desk(world, pool, worker, site, other)
    async with pool.acquire() as connection:
        assert not (await read_books(connection, deep=True)).faults()
    worker.terminate()


async def contact_of(client: Client, email: str) -> str:
    (found,) = (await client.get("/v1/contacts", params={"email": email}))["data"]
    return found["id"]


async def test_a_contact_is_forgotten_in_every_table_of_its_site_alone(desk: Desk) -> None:
    for client in (desk.site, desk.other):
        await import_list(client, f"email,first_name\n{ADA},Ada\n{BOB},Bob\n".encode())
    await desk.pool.execute(
        "INSERT INTO import_error (import_id, site_id, line, reason, value) SELECT id, site_id, 9, 'refused', $1 FROM import",
        ADA,
    )
    await desk.bounce(await desk.send(ADA) + await desk.send(ADA, BOB) + await desk.send(ADA.lower()))
    await desk.bounce(await desk.send(ADA, by=desk.other))
    theirs = await desk.rows_with(ADA, desk.other)
    contact = await contact_of(desk.site, ADA)
    asked = await desk.site.call("POST", f"/v1/contacts/{contact}/actions/erase", expect=202)
    assert asked.json()["state"] == "running"
    await desk.site.call("GET", f"/v1/contacts/{contact}", expect=404)
    assert await desk.work() > 0
    done = await desk.site.get(f"/v1/erasures/{asked.json()['id']}")
    assert (done["state"], done["deliveries"]) == ("completed", 3)
    # Bob's copy of the message to both keeps what it said.
    assert await desk.rows_with(ADA) == {"message": 1}
    assert await desk.rows_with("Lovelace") == {}
    assert (await desk.rows_with(BOB)).keys() == {"contact", "ended", "event"}
    assert await desk.rows_with(ADA, desk.other) == theirs
    assert ADA.lower() not in (await desk.site.call("GET", f"/v1/erasures/{done['id']}")).text


async def test_what_was_forgotten_is_still_shown_by_its_number(desk: Desk) -> None:
    answer = await desk.site.post(
        "/v1/messages", {"from": "a@acme.example", "to": ADA, "subject": "s", "text": "t"}
    )
    await desk.bounce([decode(Prefix.DELIVERY, answer["deliveries"][0]["id"])])
    await desk.site.post("/v1/erasures", {"email": ADA})
    await desk.work()
    shown = await desk.site.get(f"/v1/messages/{answer['id']}")
    assert (shown["state"], shown["subject"]) == ("bounced", "")
    (why,) = (await desk.site.get(f"/v1/messages/{answer['id']}/why"))["data"]
    assert (why["state"], why["to"]) == ("bounced", "")


async def test_what_has_not_been_begun_is_cancelled(desk: Desk) -> None:
    waiting, (later,) = await desk.send(ADA, BOB), await desk.send(ADA)
    await desk.pool.execute("UPDATE queue SET state = 'deferred' WHERE id = $1", later)
    erasure = await desk.site.post("/v1/erasures", {"email": ADA})
    await desk.work()
    assert [await desk.state_of(id_) for id_ in (*waiting, later)] == ["cancelled", "queued", "cancelled"]
    assert (await desk.site.get(f"/v1/erasures/{erasure['id']}"))["deliveries"] == 2
    assert (await desk.rows_with(ADA)).keys() == {"message"}


async def test_what_a_dispatcher_has_is_forgotten_when_it_has_ended(desk: Desk) -> None:
    ids = await desk.send(ADA)
    await desk.lease(ids)
    erasure = await desk.site.post("/v1/erasures", {"email": ADA})
    await desk.work()
    await desk.work()
    assert (await desk.site.get(f"/v1/erasures/{erasure['id']}"))["state"] == "running"
    assert await desk.state_of(ids[0]) == "leased"
    await desk.bounce(ids)
    await desk.work()
    done = await desk.site.get(f"/v1/erasures/{erasure['id']}")
    assert (done["state"], done["deliveries"]) == ("completed", 1)
    assert await desk.rows_with(ADA) == {}


async def test_what_is_sent_after_the_request_is_sent_and_forgotten_then(desk: Desk) -> None:
    """An app tells the person that the request was taken: its number may be one that was kept since before."""
    erasure = await desk.site.post("/v1/erasures", {"email": ADA})
    ids = await desk.send(ADA)
    await desk.pool.execute("UPDATE erasure SET until_id = $1", max(ids))
    await desk.work()
    assert await desk.state_of(ids[0]) == "queued"
    await desk.bounce(ids)
    await desk.work()
    assert (await desk.site.get(f"/v1/erasures/{erasure['id']}"))["state"] == "completed"
    assert await desk.rows_with(ADA) == {}


async def test_a_long_walk_is_done_in_parts(desk: Desk) -> None:
    for _ in range(6):
        await desk.bounce(await desk.send(ADA) + await desk.send(BOB))
    erasure = await desk.site.post("/v1/erasures", {"email": ADA})
    assert await desk.work(look=2) >= 6
    assert (await desk.site.get(f"/v1/erasures/{erasure['id']}"))["deliveries"] == 6
    assert await desk.rows_with(ADA) == {"message": 6}, "the subjects of Bob's"
    assert (await desk.rows_with(BOB))["ended"] == 6


async def test_nobody_waits_behind_one_that_waits(desk: Desk) -> None:
    await desk.lease(await desk.send(ADA))
    await desk.bounce(await desk.send(BOB))
    first = await desk.site.post("/v1/erasures", {"email": ADA})
    second = await desk.site.post("/v1/erasures", {"email": BOB})
    await desk.work()
    states = [(await desk.site.get(f"/v1/erasures/{one['id']}"))["state"] for one in (first, second)]
    assert states == ["running", "completed"]


async def test_a_suppression_outlives_the_contact(desk: Desk) -> None:
    await desk.site.post("/v1/suppressions", {"email": ADA})
    await desk.site.post("/v1/erasures", {"email": ADA})
    await desk.work()
    (left,) = (await desk.site.get("/v1/suppressions"))["data"]
    assert left["email"] == ADA.lower()


async def test_the_same_key_asks_once(desk: Desk) -> None:
    asked = [await desk.site.post("/v1/erasures", {"email": ADA}, key="k") for _ in range(2)]
    assert asked[0] == asked[1]
    assert len((await desk.site.get("/v1/erasures"))["data"]) == 1
    await desk.site.call("POST", "/v1/erasures", {"email": "nobody"}, expect=422)


async def test_a_contact_is_exported_with_all_that_was_sent_to_it(desk: Desk) -> None:
    await import_list(desk.site, f"email,first_name\n{ADA},Ada\n{BOB},Bob\n".encode())
    await desk.site.post("/v1/suppressions", {"email": ADA, "scope": "marketing"})
    ended, (open_,) = await desk.send(ADA, BOB), await desk.send(ADA)
    await desk.bounce(ended)
    await desk.send(BOB)
    await desk.send(ADA, by=desk.other)
    contact = await contact_of(desk.site, ADA)
    export = await desk.site.get(f"/v1/contacts/{contact}/export")
    assert export["contact"]["email"] == ADA
    assert [one["name"] for one in export["lists"]] == ["people"]
    assert [one["scope"] for one in export["suppressions"]] == ["marketing"]
    sent = await desk.site.get(f"/v1/contacts/{contact}/sent")
    assert [(decode(Prefix.DELIVERY, one["id"]), one["state"]) for one in sent["data"]] == [
        (ended[0], "bounced"),
        (open_, "queued"),
    ]
    first = await desk.site.get(f"/v1/contacts/{contact}/sent", params={"limit": 1})
    assert (len(first["data"]), first["has_more"]) == (1, True)
    rest = await desk.site.get(f"/v1/contacts/{contact}/sent", params={"limit": 1, "after": first["next"]})
    assert first["data"] + rest["data"] == sent["data"]
    assert not rest["has_more"]


async def test_looks_go_on_where_they_ended(desk: Desk) -> None:
    ids = [id_ for _ in range(3) for who in (ADA, BOB) for id_ in await desk.send(who)]
    seen: list[int] = []
    after, more = 0, True
    async with desk.pool.acquire() as connection:
        while more:
            found = await find_sent(connection, desk.site.site_id, ADA, after, 100, look=2)
            seen += [one.id for one in found.sent]
            after, more = found.until, found.more
    assert seen == ids[::2]
