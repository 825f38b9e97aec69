"""What it costs to look messages up, beside 5,000,000 of them: `GET /v1/messages/{id}`, `…/why`, and pages of the list.

The messages are of one site and of ten days, put in by SQL: most have ended, 1 of 50 is open, most of these in one throttled lane
behind each other. Two clients ask one API process; each kind of question in turn, so that what slows the machine for a while stands
on all of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from bench import cpu
from bench.load.http import Client, Load, get
from bench.options import Options, Progress
from bench.report import Figure, Outcome, figure, quantile
from bench.stage import SITE, Child, Stage, child, free_port, listening, make_lanes, make_site, shaping, stage
from gateway.app.brief import Role
from gateway.model.ids import Prefix, encode
from gateway.store.pool import connect
from gateway.store.sites import issue_key
from gateway.throttle.shaping import Limits

MESSAGES: Final = 5_000_000
DAYS: Final = 10
OPEN_OF: Final = 50
"""One of so many messages is open: the last ones."""
CLIENTS: Final = 2
SECONDS: Final = 2.0
REACH_STATUS_MS: Final = 20.0
REACH_WHY_MS: Final = 30.0
REACH_LIST_MS: Final = 30.0
_QUESTIONS: Final = 2_000
_WARM_UP_S: Final = 0.5
_CHUNK: Final = 250_000
_LANES: Final = ("busy.test", "suspended.test", "calm.test")
_MANY: Final = 1_000

_MESSAGES: Final = """
insert into message (id, site_id, domain_id, stream, sender, subject, text, created_at)
select i, 1, 1, case when i % 10 = 0 then 'marketing' else 'transactional' end::stream, 'Shop <shop@mail.site.test>',
       'Your receipt no. ' || i, repeat('Thank you for your order. ', 8), $3::timestamptz + i * $4::interval
  from generate_series($1::bigint, $2::bigint) i
"""
_ACCEPTANCES: Final = """
insert into acceptance (id, site_id, message_id, deliveries, accepted_at)
select i, 1, i, 1, $3::timestamptz + i * $4::interval from generate_series($1::bigint, $2::bigint) i
"""
_ENDED: Final = """
insert into ended (id, site_id, message_id, broadcast_id, lane_id, priority, state, attempts, doubts, code, enhanced, reply, bounce_class,
                   accepted_at, ended_at, recipient)
select i * 1024, 1, i, 0, $5::integer, 0,
       case when i % 100 < 94 then 'delivered' when i % 100 < 97 then 'bounced' when i % 100 < 98 then 'suppressed' else 'expired' end::delivery_state,
       1 + (i % 20 = 0)::integer * 2, 0, 250, '2.0.0', 'ok: queued as 4bQ7x21z9Zz', 'ok', $3::timestamptz + i * $4::interval,
       $3::timestamptz + i * $4::interval + interval '9 seconds', 'user' || i || '@d' || i % 1000 || '.test'
  from generate_series($1::bigint, $2::bigint) i
"""
_EVENTS: Final = """
insert into event (delivery_id, site_id, broadcast_id, kind, at, attempt, code, enhanced, reply, bounce_class)
select i * 1024, 1, 0, 'deferred', $3::timestamptz + i * $4::interval + k * interval '3 seconds', k, 450, '4.2.0', 'greylisted, try later', 'greylist'
  from generate_series($1::bigint, $2::bigint) i, generate_series(1, 2) k where i % 20 = 0
"""
_OPEN: Final = """
insert into queue (id, seq, flow_id, lane_id, site_id, message_id, priority, state, attempts, owner_id, due_at, accepted_at, expires_at,
                   recipient, last_class, last_reply)
select i * 1024, i * 1024, f.flow, f.lane, 1, i, 0, s.state::delivery_state, (s.state = 'deferred')::integer, case when s.state = 'leased' then 1 end,
       now() + case when s.state in ('deferred', 'in_doubt') then interval '2 hours' else interval '0' end, $3::timestamptz + i * $4::interval,
       now() + interval '1 day', 'user' || i || '@' || f.domain,
       case when s.state = 'deferred' and i % 2 = 0 then 'greylist' end, case when s.state = 'deferred' and i % 2 = 0 then '450 4.2.0 greylisted' end
  from generate_series($1::bigint, $2::bigint) i,
       lateral (select case when i % 100 < 60 then 'queued' when i % 100 < 80 then 'deferred' when i % 100 < 82 then 'held' when i % 100 < 83 then 'leased'
                            else 'queued' end as state) s,
       lateral (select 1 + (i % 100 >= 83)::integer + (i % 100 >= 90)::integer as place) p
  join unnest($5::integer[], $6::bigint[], $7::text[]) with ordinality f(lane, flow, domain, place) on f.place = p.place
"""
_ONE_WITH_MANY: Final = """
with given as (insert into message (id, site_id, domain_id, stream, sender, subject, created_at)
               values ($1::bigint, 1, 1, 'transactional', 'Shop <shop@mail.site.test>', 'To many', $3) returning id),
accepted as (insert into acceptance (id, site_id, message_id, deliveries, accepted_at) values ($1, 1, $1, $2::integer, $3))
insert into ended (id, site_id, message_id, broadcast_id, lane_id, priority, state, attempts, doubts, code, reply, accepted_at, ended_at, recipient)
select $1 * 1024 + i, 1, $1, 0, 1, 0, 'delivered', 1, 0, 250, 'ok', $3, $3, 'u' || i || '@d.test' from generate_series(0, $2::integer - 1) i
"""


class Kind(msgspec.Struct, frozen=True):
    """One kind of question, and how long its 99th percentile may take."""

    name: str
    question: Callable[[random.Random, World], str]
    reach_ms: float | None


class Measured(msgspec.Struct, frozen=True):
    """One kind of question in one run."""

    p50_ms: float
    p99_ms: float
    api_ms: float
    postgres_ms: float


class World(msgspec.Struct, frozen=True):
    """What there is to be asked for: messages 1 to `count`, one each `step` from `since` on; the ones from `first_open` on are open."""

    count: int
    first_open: int
    since: datetime
    step: timedelta


def _message(number: int) -> str:
    return encode(Prefix.MESSAGE, number)


def _any(chance: random.Random, world: World) -> str:
    return _message(chance.randint(1, world.count))


def _hour(chance: random.Random, world: World) -> str:
    begin = world.since + world.step * chance.randint(1, world.count)
    return (
        f"created_from={begin:%Y-%m-%dT%H:%M:%SZ}&created_to={begin + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    )


def _address(chance: random.Random, world: World) -> str:
    number = chance.randint(1_000, world.first_open - 1)
    return f"recipient=user{number}@d{number % 1000}.test&after={_message(number - chance.randint(1, 999))}"


KINDS: Final = (
    Kind("status", lambda c, w: f"/{_any(c, w)}", REACH_STATUS_MS),
    Kind("status of 1,000 recipients", lambda c, w: f"/{_message(w.count + 1)}", None),
    Kind("why, open", lambda c, w: f"/{_message(c.randint(w.first_open, w.count))}/why", REACH_WHY_MS),
    Kind("why, any", lambda c, w: f"/{_any(c, w)}/why", REACH_WHY_MS),
    Kind("list", lambda c, w: f"?after={_any(c, w)}", REACH_LIST_MS),
    Kind("list by state", lambda c, w: f"?state=in_doubt&after={_any(c, w)}", REACH_LIST_MS),
    Kind("list by recipient", lambda c, w: f"?{_address(c, w)}", REACH_LIST_MS),
    Kind("list by stream and hour", lambda c, w: f"?stream=marketing&{_hour(c, w)}", REACH_LIST_MS),
)


async def run(options: Options, tell: Progress) -> Outcome:
    """Ask each kind of question for some seconds, `options.runs` times in turn."""
    count = 200_000 if options.quick else MESSAGES
    found: dict[str, list[Measured]] = {kind.name: [] for kind in KINDS}
    async with stage() as own:
        dsn = await own.database("status")
        connection = await connect(dsn, application_name="bench")
        try:
            config = own.config(api={"port": free_port()}, database={"data_dir": str(own.folder / "gateway")})
            config.data_dir.mkdir()
            await make_site(connection, config)
            _, key = await issue_key(connection, SITE, "bench", ["read"])
            world = await _fill(dsn, connection, count, tell)
            chance = random.Random(1)
            async with child(Role.API, config, dsn, shaping(Limits())) as api:
                await listening(config.api.port, [api])
                for number in range(options.runs):
                    for kind in KINDS:
                        asked = [
                            get(f"/v1/messages{kind.question(chance, world)}", key) for _ in range(_QUESTIONS)
                        ]
                        found[kind.name].append(await _ask(own, api, config.api.port, asked))
                    api.require()
                    tell(
                        f"run {number + 1} of {options.runs}: p99 "
                        + ", ".join(f"{name} {runs[-1].p99_ms:.1f}" for name, runs in found.items())
                        + " ms"
                    )
        finally:
            await connection.close()
    figures: dict[str, Figure] = {}
    for kind in KINDS:
        runs = found[kind.name]
        figures[f"{kind.name}: p50"] = figure([one.p50_ms for one in runs], "ms")
        figures[f"{kind.name}: p99"] = figure([one.p99_ms for one in runs], "ms", at_most=kind.reach_ms)
        figures[f"{kind.name}: CPU of the API"] = figure([one.api_ms for one in runs], "ms a question")
        figures[f"{kind.name}: CPU of Postgres"] = figure([one.postgres_ms for one in runs], "ms a question")
    settings = {
        "messages": count, "open": count - world.first_open + 1, "days": DAYS, "clients": CLIENTS, "seconds": SECONDS,
        "api_processes": 1, "recipients_of_many": _MANY,
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def _fill(dsn: str, connection: asyncpg.Connection, count: int, tell: Progress) -> World:
    """Put the messages in, over three connections."""
    now = datetime.now(UTC)
    since = (now - timedelta(days=DAYS)).replace(microsecond=0)
    step = timedelta(microseconds=int((now - since) / timedelta(microseconds=1)) // (count + 1))
    for day in range(DAYS, 0, -1):
        begin = now.date() - timedelta(days=day)
        for table in ("ended", "event"):
            await connection.execute(
                f"create table {table}_{begin:%Y%m%d} partition of {table} "
                f"for values from ('{begin} 00:00Z') to ('{begin + timedelta(days=1)} 00:00Z')"
            )
    lanes = await make_lanes(connection, _LANES, Limits(rate_per_s=10.0, burst=10), priority=0, broadcast=0)
    await connection.execute("insert into incarnation (host_key, pid) values ('bench', 1)")
    await connection.execute(
        "update lane_state set suspended_until = now() + interval '1 hour', suspended_why = 'rate 421 4.7.0: too many' where lane_id = $1",
        lanes[1].lane_id,
    )
    first_open = count - count // OPEN_OF + 1
    flows = ([one.lane_id for one in lanes], [one.flow_id for one in lanes], [one.domain for one in lanes])

    async def put(*statements: tuple[str, int, int, tuple[object, ...]]) -> None:
        own = await connect(dsn, application_name="bench", settings={"synchronous_commit": "off"})
        try:
            for statement, first, last, more in statements:
                for start in range(first, last + 1, _CHUNK):
                    end = min(last, start + _CHUNK - 1)
                    await own.execute(statement, start, end, since, step, *more, timeout=600)
        finally:
            await own.close()

    started = time.monotonic()
    ended = first_open - 1
    await asyncio.gather(
        put((_MESSAGES, 1, count, ())),
        put(
            (_ENDED, 1, ended, (lanes[2].lane_id,)),
            (_EVENTS, 1, ended, ()),
            (_OPEN, first_open, count, flows),
        ),
        put((_ACCEPTANCES, 1, count, ())),
    )
    await connection.execute(_ONE_WITH_MANY, count + 1, _MANY, now)
    await connection.execute("select wake($1, $2)", flows[1], [first_open * 1024] * len(lanes))
    filled_s = time.monotonic() - started
    await connection.execute("analyze", timeout=600)
    await connection.execute("checkpoint", timeout=600)
    tell(
        f"{count:,} messages put in within {filled_s:.0f} s, analysed {time.monotonic() - started - filled_s:.0f} s"
    )
    return World(count, first_open, since, step)


async def _ask(own: Stage, api: Child, port: int, requests: Sequence[bytes]) -> Measured:
    """Ask for some seconds, one question after another on each connection.

    Raises:
        RuntimeError: an answer was not 200.
    """
    load = Load(requests, status=b"200")
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(load), "127.0.0.1", port))[1] for _ in range(CLIENTS)
    ]
    await asyncio.sleep(_WARM_UP_S)
    warmed = len(load.latencies_s)
    before = (api.cpu_s, cpu.tree_cpu_s(own.postgres_pid))
    await asyncio.sleep(SECONDS)
    latencies = load.latencies_s[warmed:]
    used = (api.cpu_s - before[0], cpu.tree_cpu_s(own.postgres_pid) - before[1])
    load.stopping = True
    await asyncio.gather(*(client.closed for client in clients))
    if load.first_errors or not latencies:
        raise RuntimeError(f"the API did not answer 200: {load.first_errors[:1]}")
    count = len(latencies)
    return Measured(
        quantile(latencies, 0.5) * 1000,
        quantile(latencies, 0.99) * 1000,
        used[0] * 1000 / count,
        used[1] * 1000 / count,
    )
