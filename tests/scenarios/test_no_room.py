"""F26, F11: a disk is full, the journal's or the database's; no connection is free. Sending stops and says so, apps are told to come
again, and nothing is lost or done by half."""

from __future__ import annotations

from pathlib import Path

from gateway.config import DatabaseConfig
from gateway.store.pool import connect
from tests.support.api import open_world
from tests.support.fleet import Fleet

NO_SPACE = "could not extend file: No space left on device"
_FULL = f"""
CREATE FUNCTION refuse_for_want_of_space() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING errcode = 'disk_full', message = '{NO_SPACE}'; END $$;
"""


async def test_a_dispatcher_whose_journal_cannot_grow_sends_nothing_more_and_its_successor_goes_on(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path) as fleet:
        ids = await fleet.submit(2_000, domains=20)
        first = await fleet.start("here", "--file-bytes", "32768")
        assert await first.ended() not in (0, None)
        assert "cannot append to" in first.log
        assert "sending stops" in first.log
        (replayed,) = fleet.dead_journals("here").values()
        sent = fleet.ledger().accepts
        assert sent < 2_000, "it should have stopped in the middle"

        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert set(findings.duplicates) <= {str(i) for i in replayed.in_doubt}
        assert await fleet.ids_in("delivered") == set(ids)


async def test_while_the_database_has_no_room_nothing_is_claimed_and_what_was_sent_is_told_later(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "20")) as fleet:
        ids = await fleet.submit(600, domains=10)
        dispatcher = await fleet.start("here")
        await fleet.taken(50)
        await fleet.stop_upkeep()
        await fleet.pool.execute(
            f"{_FULL} CREATE TRIGGER no_room BEFORE UPDATE OR DELETE ON queue EXECUTE FUNCTION refuse_for_want_of_space()"
        )
        await fleet.until("it says so", lambda: NO_SPACE in dispatcher.said)
        await fleet.pool.execute("DROP TRIGGER no_room ON queue")
        fleet.start_upkeep()
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == set(ids)


async def test_while_the_database_has_no_room_submissions_are_told_to_come_again(
    db: str, tmp_path: Path
) -> None:
    async with open_world(db, tmp_path) as world:
        app = await world.site(domain="acme.example")
        item = {"from": "a@acme.example", "to": "b@c.example", "subject": "s", "text": "t"}
        await app.call("POST", "/v1/messages", item, expect=202)
        admin = await connect(db)
        try:
            await admin.execute(
                f"{_FULL} CREATE TRIGGER no_room BEFORE INSERT ON acceptance EXECUTE FUNCTION refuse_for_want_of_space()"
            )
            for body in (item, [item] * 3):
                refused = await app.call("POST", "/v1/messages", body, key="again", expect=503)
                assert int(refused.headers["retry-after"]) >= 1
            counts = "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM queue), (SELECT count(*) FROM idempotency)"
            assert tuple(await admin.fetchrow(counts)) == (1, 1, 0)
            await admin.execute("DROP TRIGGER no_room ON acceptance")
            await app.call("POST", "/v1/messages", [item] * 3, key="again", expect=202)
            assert tuple(await admin.fetchrow(counts)) == (4, 4, 1)
        finally:
            await admin.close()


async def test_no_free_connection_refuses_a_batch_whole(db: str, tmp_path: Path) -> None:
    """F11."""
    config = DatabaseConfig(dsn=db, data_dir=str(tmp_path), api_pool_size=2, acquire_timeout_s=0.05)
    async with open_world(db, tmp_path, database=config) as world:
        app = await world.site(domain="acme.example")
        items = [
            {"from": "a@acme.example", "to": f"u{i}@d{i}.example", "subject": "s", "text": "t"}
            for i in range(50)
        ]
        await app.call(
            "POST", "/v1/messages", items[0], expect=202
        )  # who asks, and for which domain, is known from here on
        pool = world.services.pool
        async with pool.acquire(), pool.acquire():
            refused = await app.call("POST", "/v1/messages", items, key="batch", expect=503)
            assert int(refused.headers["retry-after"]) >= 1
        admin = await connect(db)
        counts = "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM queue)"
        try:
            assert tuple(await admin.fetchrow(counts)) == (1, 1)
            await app.call("POST", "/v1/messages", items, key="batch", expect=202)
            assert tuple(await admin.fetchrow(counts)) == (51, 51)
        finally:
            await admin.close()
