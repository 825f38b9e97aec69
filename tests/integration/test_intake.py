"""The door in: accepted once whatever happens, woken after the commit, remembered for as long as promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest

from gateway.clock import SystemClock
from gateway.errors import IdempotencyMismatch, StoreUnavailable
from gateway.model.stream import Stream
from gateway.store.books import read_books
from gateway.store.intake import Accepted, Deliveries, Intake, Once, Submission
from gateway.store.lane_map import MAX_AGE_S, FlowKey, LaneMap
from gateway.store.pool import open_pool
from gateway.store.waker import Waker
from gateway.throttle.shaping import Limits, Shaping
from tests.support.clock import FakeClock

NOW = datetime.now(UTC)
SITE = 1


@pytest.fixture
async def site(pool: asyncpg.Pool) -> int:
    return await pool.fetchval("INSERT INTO site (name) VALUES ('Acme') RETURNING id")


@asynccontextmanager
async def open_intake(dsn: str) -> AsyncIterator[Intake]:
    """What one API process has."""
    clock = SystemClock()
    api = await open_pool(dsn, role="gateway_api", max_size=4)
    async with Waker(dsn, role="gateway_api") as waker:
        yield Intake(api, LaneMap(api, Shaping().for_domain, clock), waker, clock)
    api.terminate()


def message(*recipients: str, stream: Stream = Stream.TRANSACTIONAL, due_at: datetime = NOW) -> Submission:
    to = recipients or ("ada@one.example",)
    return Submission(
        domain_id=1,
        stream=stream,
        sender="a@acme.example",
        subject="s",
        deliveries=Deliveries(
            to, [one.partition("@")[2] for one in to], [None] * len(to), due_at, due_at + timedelta(days=1)
        ),
    )


def answer(numbers: Sequence[int]) -> bytes:
    return msgspec.json.encode(numbers)


def once(key: str = "k", body: bytes = b"body") -> Once:
    return Once(key, body.ljust(32), 202)


async def submit(intake: Intake, site: int, *messages: Submission, key: Once | None = None) -> Accepted:
    return await intake.submit(site, messages or [message()], NOW, answer, key)


async def test_100_times_the_same_key_in_two_processes_is_one_message(
    db: str, pool: asyncpg.Pool, site: int
) -> None:
    async with open_intake(db) as one, open_intake(db) as other:
        results = await asyncio.gather(
            *(submit(intake, site, key=once()) for _ in range(50) for intake in (one, other))
        )
    assert len({result.answer for result in results}) == 1
    assert sum(not result.replayed for result in results) == 1
    assert await pool.fetchval("SELECT count(*) FROM message") == 1
    assert await pool.fetchval("SELECT count(*) FROM queue") == 1
    async with pool.acquire() as connection:
        assert (await read_books(connection, deep=True)).balanced


async def test_another_body_under_the_same_key_is_refused(db: str, site: int) -> None:
    async with open_intake(db) as one, open_intake(db) as other:
        await submit(one, site, key=once())
        for intake in (one, other):
            with pytest.raises(IdempotencyMismatch):
                await submit(intake, site, key=once(body=b"another"))
        results = await asyncio.gather(
            submit(one, site, key=once("n")),
            submit(one, site, key=once("n", b"another")),
            return_exceptions=True,
        )
        assert sum(isinstance(result, IdempotencyMismatch) for result in results) == 1


async def test_sites_do_not_share_keys(db: str, pool: asyncpg.Pool, site: int) -> None:
    second = await pool.fetchval("INSERT INTO site (name) VALUES ('Beta') RETURNING id")
    async with open_intake(db) as intake:
        first, other = await asyncio.gather(
            submit(intake, site, key=once()), submit(intake, second, key=once())
        )
    assert first.answer != other.answer


async def test_a_repeated_key_among_new_ones_costs_the_others_nothing(
    db: str, pool: asyncpg.Pool, site: int
) -> None:
    async with open_intake(db) as one, open_intake(db) as other:
        before = await submit(one, site, key=once("k5"))
        results = await asyncio.gather(*(submit(other, site, key=once(f"k{i}")) for i in range(20)))
    assert results[5].replayed
    assert results[5].answer == before.answer
    assert await pool.fetchval("SELECT count(*) FROM queue") == 20
    assert await pool.fetchval("SELECT count(*) FROM idempotency WHERE status = 202") == 20


async def test_the_suppressed_are_accepted_ended_and_told_each_time(
    db: str, pool: asyncpg.Pool, site: int
) -> None:
    await pool.execute(
        "INSERT INTO suppression (site_id, email_key, scope, reason) VALUES ($1, 'dead@one.example', 'all', 'bounce'), "
        "($1, 'gone@one.example', 'marketing', 'unsubscribed')",
        site,
    )
    async with open_intake(db) as intake:
        mail = message("Dead@one.example", "gone@one.example", "ok@one.example")
        news = message("gone@one.example", "ok@one.example", stream=Stream.MARKETING)
        first = await submit(intake, site, news, mail, key=once())
        again = await submit(intake, site, news, mail, key=once())
    numbers: list[int] = msgspec.json.decode(first.answer)
    assert first.suppressed == {numbers[0] * 1024, numbers[1] * 1024}
    assert (again.replayed, again.suppressed) == (True, first.suppressed)
    assert await pool.fetchval("SELECT count(*) FROM ended WHERE state = 'suppressed'") == 2
    assert dict(await pool.fetch("SELECT priority, count(*) FROM queue GROUP BY 1")) == {0: 2, 1: 1}
    async with pool.acquire() as connection:
        assert (await read_books(connection, deep=True)).balanced


async def test_what_is_due_later_waits_apart(db: str, pool: asyncpg.Pool, site: int) -> None:
    async with open_intake(db) as intake:
        await submit(intake, site, message(due_at=NOW + timedelta(hours=1)))
    assert await pool.fetchval("SELECT state::text FROM queue") == "deferred"


async def test_a_bad_row_takes_nothing_of_its_group_with_it(db: str, pool: asyncpg.Pool, site: int) -> None:
    bad = msgspec.structs.replace(message(), headers="{")
    async with open_intake(db) as intake:
        results = await asyncio.gather(
            submit(intake, site), submit(intake, site, message(), bad, key=once()), submit(intake, site),
            return_exceptions=True,
        )  # fmt: skip
    assert [isinstance(result, Accepted) for result in results] == [True, False, True]
    assert await pool.fetchval("SELECT count(*) FROM queue") == 2
    assert await pool.fetchval("SELECT count(*) FROM idempotency") == 0, "its key is free again"


async def test_lanes_get_their_rules_limits_and_are_woken_after_the_commit(
    db: str, pool: asyncpg.Pool, site: int
) -> None:
    clock = SystemClock()
    api = await open_pool(db, role="gateway_api")
    async with Waker(db, role="gateway_api") as waker:
        rules = {"one.example": Limits(rate_per_s=7.0, burst=3, max_connections=2)}
        lanes = LaneMap(api, lambda domain: rules.get(domain, Limits()), clock)
        intake = Intake(api, lanes, waker, clock)
        await submit(intake, site, message(*(f"p{i}@d{i % 3}.example" for i in range(30)), "ada@one.example"))
        await waker.flush()
        assert waker.waiting == 0
    api.terminate()
    lane = await pool.fetchrow(
        "SELECT s.rate_per_s, s.burst, s.max_connections, s.urgent FROM lane l JOIN lane_state s ON s.lane_id = l.id "
        "WHERE l.name = 'one.example'"
    )
    assert tuple(lane or ()) == (7.0, 3.0, 2, True)
    assert await pool.fetchval("SELECT count(*) FROM flow WHERE active") == 4
    assert await pool.fetchval("SELECT count(*) FROM lane_state WHERE next_due <= now()") == 4


async def test_the_memory_of_lanes_ends_with_time_and_with_room(db: str) -> None:
    clock = FakeClock()
    api = await open_pool(db, role="gateway_api")
    lanes = LaneMap(api, Shaping().for_domain, clock, max_entries=5)
    key = FlowKey(SITE, 0)
    first = await lanes.resolve(key, ["a.example", "b.example"])
    assert (await lanes.resolve(key, ["a.example"]))["a.example"] is first["a.example"]
    await api.execute("SELECT 1")
    await clock.advance(MAX_AGE_S + 1)
    later = await lanes.resolve(key, ["a.example"])
    assert later["a.example"] is not first["a.example"], "looked up anew"
    assert later["a.example"] == first["a.example"], "and the same"
    assert lanes.entries == 1
    many = await lanes.resolve(key, [f"d{i}.example" for i in range(9)] + ["a.example"])
    assert set(many) >= {"a.example", "d0.example", "d8.example"}
    api.terminate()


async def test_wakes_are_kept_over_an_outage(db: str, pool: asyncpg.Pool, site: int) -> None:
    async with open_intake(db) as intake, Waker(db, role="gateway_api", clock=FakeClock()) as waker:
        await submit(intake, site)
        await asyncio.sleep(0)
        flow = await pool.fetchval("SELECT id FROM flow")
        waker.wake({flow: 9})
        waker.wake({flow: 5})
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway waker' "
            "AND datname = current_database()"
        )
        try:
            await waker.flush()
        except StoreUnavailable:
            assert waker.waiting == 1
            await waker.flush()
        assert waker.waiting == 0
    assert await pool.fetchval("SELECT active FROM flow")
