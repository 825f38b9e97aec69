"""What is forgotten, when, and what of it never: the books balance before and after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from gateway.config import RetentionConfig
from gateway.dispatch.retention import drop_step, erase_step
from gateway.errors import Conflict, NotFound
from gateway.store.books import read_books
from gateway.store.pool import open_pool
from gateway.store.retention import Erased, drop_event_days, erase_due, erase_message
from gateway.store.tenancy import as_site
from gateway.telemetry import Metrics
from tests.support.accept import accept
from tests.support.clock import FakeClock

ADDRESS = "ada@one.example"
LATER = datetime.now(UTC) + timedelta(hours=1)


class Desk:
    """A site whose messages can be sent and ended by hand."""

    def __init__(self, connection: asyncpg.Connection, site_id: int) -> None:
        self.connection, self.site_id = connection, site_id

    async def message(self, *recipients: str, stream: str = "transactional", ended: bool = True) -> int:
        message_id = await self.connection.fetchval(
            "INSERT INTO message (id, site_id, domain_id, stream, sender, subject, html, text, headers, attachments) "
            "VALUES (nextval('acceptance_id'), $1, 1, $2, 'a@sender.example', 'Secret', '<p>Secret</p>', 'Secret', "
            "'{\"X-Case\": \"Secret\"}', 'Secret') RETURNING id",
            self.site_id,
            stream,
        )
        ids, _ = await accept(self.connection, self.site_id, message_id, 0, list(recipients or (ADDRESS,)))
        if ended:
            await self.end(ids)
        return message_id

    async def end(self, ids: list[int]) -> None:
        for delivery in ids:
            await self.connection.execute(
                "INSERT INTO event (delivery_id, site_id, broadcast_id, kind, at, reply) "
                "SELECT id, site_id, broadcast_id, 'deferred', now(), 'not now, ' || recipient FROM queue WHERE id = $1",
                delivery,
            )
        await self.connection.execute(
            "UPDATE queue SET last_reply = '550 unknown: ' || recipient WHERE id = ANY ($1)", ids
        )
        await self.connection.execute(
            "SELECT end_deliveries($1, 'bounced', 0, '{queued}', 'ended by hand')", ids
        )

    async def has_content(self, message_id: int) -> bool:
        row = await self.connection.fetchrow("SELECT * FROM message WHERE id = $1", message_id)
        found = "Secret" in repr(dict(row)) or "<p>" in row["html"]
        assert found == (row["erased_at"] is None)
        return found

    async def mentions(self, address: str) -> int:
        """How many rows of records and events name an address."""
        return await self.connection.fetchval(
            "SELECT (SELECT count(*) FROM ended e WHERE e::text LIKE $1) + (SELECT count(*) FROM event e WHERE e::text LIKE $1)",
            f"%{address}%",
        )

    async def balanced(self) -> None:
        assert not (await read_books(self.connection, deep=True)).faults()


@pytest.fixture
async def desk(pool: asyncpg.Pool) -> AsyncIterator[Desk]:
    async with pool.acquire() as connection:
        site_id = await connection.fetchval("INSERT INTO site (name) VALUES ('Acme') RETURNING id")
        yield Desk(connection, site_id)
        await Desk(connection, site_id).balanced()


async def test_contents_go_when_they_are_old_enough_and_records_stay(desk: Desk) -> None:
    message = await desk.message()
    marketing = await desk.message(stream="marketing")
    assert await erase_due(
        desk.connection, "transactional", datetime.now(UTC) - timedelta(days=1), 10
    ) == Erased(0, 0)
    assert await desk.has_content(message)
    assert await erase_due(desk.connection, "transactional", LATER, 10) == Erased(2, 1)
    assert not await desk.has_content(message)
    assert await desk.has_content(marketing)
    row = await desk.connection.fetchrow(
        "SELECT recipient, state::text FROM ended WHERE message_id = $1", message
    )
    assert tuple(row) == (ADDRESS, "bounced")
    assert await erase_due(desk.connection, "transactional", LATER, 10) == Erased(0, 0)


async def test_the_look_goes_on_where_it_ended(desk: Desk) -> None:
    messages = [await desk.message() for _ in range(5)]
    done = [await erase_due(desk.connection, "transactional", LATER, 2) for _ in range(4)]
    assert [(step.looked, step.erased) for step in done] == [(2, 2), (2, 2), (1, 1), (0, 0)]
    assert not any([await desk.has_content(message) for message in messages])


async def test_what_is_open_keeps_its_content_until_it_ends(desk: Desk) -> None:
    message = await desk.message(ended=False)
    later = await desk.message()
    assert await erase_due(desk.connection, "transactional", LATER, 10) == Erased(2, 1)
    assert await desk.has_content(message)
    assert not await desk.has_content(later)
    await desk.end([row["id"] for row in await desk.connection.fetch("SELECT id FROM queue")])
    assert await erase_due(desk.connection, "transactional", LATER, 10) == Erased(0, 1)
    assert not await desk.has_content(message)
    assert await desk.connection.fetchval("SELECT count(*) FROM retention_waiting") == 0


async def test_the_dispatchers_role_may_do_it(db: str, desk: Desk) -> None:
    message = await desk.message()
    worker = await open_pool(db, role="gateway_dispatch", max_size=1)
    metrics = Metrics(CollectorRegistry())
    kept = RetentionConfig(transactional_content_days=30, marketing_content_days=0)
    clock = FakeClock(datetime.now(UTC))
    async with worker.acquire() as connection:
        await erase_step(connection, kept, clock, metrics)
        assert await desk.has_content(message)
        clock.step_wall(31 * 86_400)
        assert not await erase_step(connection, kept, clock, metrics)
    worker.terminate()
    assert not await desk.has_content(message)
    assert (
        metrics.registry.get_sample_value("gateway_contents_erased_total", {"stream": "transactional"}) == 1
    )


async def test_a_site_has_a_message_erased_at_once(db: str, desk: Desk) -> None:
    message = await desk.message(ADDRESS, "bob@two.example")
    other = await desk.message("eve@three.example")
    api = await open_pool(db, role="gateway_api", max_size=1)
    async with as_site(api, desk.site_id) as connection:
        await erase_message(connection, desk.site_id, message)
        await erase_message(connection, desk.site_id, message)
    with pytest.raises(NotFound):
        async with as_site(api, desk.site_id + 1) as connection:
            await erase_message(connection, desk.site_id + 1, other)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with as_site(api, desk.site_id + 1) as connection:
            await erase_message(connection, desk.site_id, other)
    api.terminate()
    assert not await desk.has_content(message)
    assert await desk.mentions(ADDRESS) == await desk.mentions("bob@two.example") == 0
    assert await desk.has_content(other)
    assert await desk.mentions("eve@three.example") == 2


async def test_a_message_that_is_being_sent_is_not_erased(desk: Desk) -> None:
    message = await desk.message(ended=False)
    with pytest.raises(Conflict, match="cancel them first, or wait for their end"):
        await erase_message(desk.connection, desk.site_id, message)
    assert await desk.has_content(message)


async def test_a_broadcast_s_message_is_not_erased_by_hand(desk: Desk) -> None:
    message = await desk.message()
    await desk.connection.execute("UPDATE acceptance SET broadcast_id = 1 WHERE message_id = $1", message)
    with pytest.raises(Conflict, match="message of a broadcast"):
        await erase_message(desk.connection, desk.site_id, message)
    await desk.connection.execute("UPDATE acceptance SET broadcast_id = 0 WHERE message_id = $1", message)


async def test_days_of_events_are_dropped_whole(db: str, desk: Desk) -> None:
    await desk.message()
    await desk.connection.execute(
        "INSERT INTO event (delivery_id, site_id, broadcast_id, kind, at) VALUES (1, $1, 0, 'deferred', '2020-01-01 12:00Z')",
        desk.site_id,
    )
    maintain = await open_pool(db, role="gateway_maintain", max_size=1)
    clock = FakeClock(datetime.now(UTC))
    async with maintain.acquire() as connection:
        days = await connection.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'event'::regclass"
        )
        assert await drop_step(connection, RetentionConfig(events_days=0), clock) == 0
        assert await drop_step(connection, RetentionConfig(events_days=30), clock) == 0
        # What lay in no day of its own is gone, today is there.
        assert await desk.connection.fetchval("SELECT count(*) FROM event") == 1
        clock.step_wall(400 * 86_400)
        assert await drop_step(connection, RetentionConfig(events_days=90), clock) == days - 1
    maintain.terminate()
    assert await desk.connection.fetchval("SELECT count(*) FROM event") == 0


async def test_days_that_somebody_is_writing_are_left_for_the_next_time(db: str, desk: Desk) -> None:
    maintain = await open_pool(db, role="gateway_maintain", max_size=1)
    async with maintain.acquire() as connection, desk.connection.transaction():
        await desk.connection.execute(
            "INSERT INTO event (delivery_id, site_id, broadcast_id, kind, at) VALUES (1, $1, 0, 'deferred', now())",
            desk.site_id,
        )
        assert await drop_event_days(connection, LATER + timedelta(days=100)) == 0
    assert await desk.connection.fetchval("SELECT count(*) FROM event") == 1
    maintain.terminate()
