"""A world of a benchmark's own: Postgres, and the rows that a benchmark starts from.

Everything stands in one temporary folder and ends with this process however that ends. Postgres runs with the settings that the
gateway gives its own server. Must not know what is measured, nor the processes that work on it (`bench/processes`).
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import msgspec

from gateway.config import Config
from gateway.mta.keys import generate_rsa_key, load_or_create_master_key, seal
from gateway.store.embedded import EmbeddedPostgres
from gateway.store.migrate import migrate
from gateway.store.pool import connect
from gateway.throttle.shaping import Limits, Rule, Shaping

SITE: Final = 1
BROADCAST: Final = 7
MESSAGE: Final = 1
FROM_DOMAIN: Final = "mail.site.test"
_TEMPLATE: Final = "bench_template"

_FILL = """
insert into queue (id, seq, flow_id, lane_id, site_id, message_id, broadcast_id, priority, state, due_at, accepted_at, expires_at,
                   recipient, variables)
select i, i, p.flow_id, p.lane_id, $3, $4, $5, 1, 'queued', now(), now(), now() + interval '3 days',
       'user' || i || '@' || p.domain, '{"first_name":"Ann' || i || '","city":"Oslo","plan":"pro"}'
  from generate_series($1::bigint, $2::bigint - 1) i
  join unnest($6::integer[], $7::bigint[], $8::text[]) with ordinality p(lane_id, flow_id, domain, place)
    on p.place = 1 + (case when $9 then i % cardinality($6::integer[]) else (i - $1) * cardinality($6::integer[]) / ($2 - $1) end)
 order by i
"""
"""Rows $1 to $2 - 1 over the lanes $6: in turn ($9, as a list of people comes), or lane by lane."""

_ACCEPTANCES = """
insert into acceptance (id, site_id, message_id, broadcast_id, deliveries)
select a, $3, $4, $5, count(*) from generate_series($1::bigint, $2::bigint - 1) i, lateral (select i >> 10) x(a) group by a
"""


class Lane(msgspec.Struct, frozen=True):
    """A lane, and the flow in it that the rows go to."""

    domain: str
    lane_id: int
    flow_id: int


class Stage:
    """Postgres with a migrated template, and a folder for the rest."""

    def __init__(self, folder: Path, server: EmbeddedPostgres) -> None:
        self.folder = folder
        self._server = server

    @property
    def postgres_pid(self) -> int:
        """The postmaster: the root of all processes of Postgres."""
        pid = self._server.pid
        if pid is None:
            raise RuntimeError("Postgres does not run any more; see its log")
        return pid

    async def database(self, name: str) -> str:
        """A freshly migrated database; its DSN."""
        admin = await connect(self._server.dsn, application_name="bench")
        try:
            await admin.execute(f'create database "{name}" template "{_TEMPLATE}" strategy wal_log')
        finally:
            await admin.close()
        return _in_database(self._server.dsn, name)

    async def drop(self, name: str) -> None:
        """Drop such a database, with whatever still uses it."""
        admin = await connect(self._server.dsn, application_name="bench")
        try:
            await admin.execute(f'drop database if exists "{name}" with (force)')
        finally:
            await admin.close()

    def config(self, **sections: Mapping[str, object]) -> Config:
        """The configuration of the gateway's processes: its defaults, our folder, and these keys by section."""
        database = {"data_dir": str(self.folder / "data"), **sections.pop("database", {})}
        return msgspec.convert({"database": database, **sections}, type=Config, strict=False)


@asynccontextmanager
async def stage(settings: Mapping[str, str] | None = None) -> AsyncGenerator[Stage]:
    """Start Postgres in a folder of its own; end and remove both."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with EmbeddedPostgres(folder / "postgres", settings=settings) as server:
            admin = await connect(server.dsn, application_name="bench")
            try:
                await admin.execute(f'create database "{_TEMPLATE}"')
            finally:
                await admin.close()
            connection = await connect(_in_database(server.dsn, _TEMPLATE), application_name="bench")
            try:
                await migrate(connection)
            finally:
                await connection.close()
            yield Stage(folder, server)


async def make_site(connection: asyncpg.Connection, config: Config) -> None:
    """Make site 1, with a verified sending domain and its key."""
    master_key = load_or_create_master_key(config.master_key_path)
    sealed = seal(generate_rsa_key(), master_key, FROM_DOMAIN)
    await connection.execute("insert into site (name) values ('bench')")
    await connection.execute(
        "insert into domain (site_id, name, status, selector, private_key_sealed, public_key) values ($1, $2, 'verified', 's1', $3, '')",
        SITE,
        FROM_DOMAIN,
        sealed,
    )


async def make_message(connection: asyncpg.Connection, *, subject: str, html: str, text: str, number: int = MESSAGE,
                       stream: str = "marketing", template: bool = True) -> None:  # fmt: skip
    """Make one message of site 1; with `template`, its content is rendered for each recipient."""
    await connection.execute(
        "insert into message (id, site_id, domain_id, stream, sender, subject, html, text, template) "
        "values ($1, $2, 1, $3, $4, $5, $6, $7, $8)",
        number, SITE, stream, f"News <news@{FROM_DOMAIN}>", subject, html, text, "1" if template else "",
    )  # fmt: skip


async def make_lanes(
    connection: asyncpg.Connection,
    domains: Sequence[str],
    limits: Limits,
    *,
    priority: int = 1,
    site: int = SITE,
    broadcast: int = BROADCAST,
) -> list[Lane]:
    """Make lanes with a flow each, as a submission would; in the order of `domains`."""
    n = len(domains)
    rows = await connection.fetch(
        "select * from ensure_lanes($1, $2, $3, $4)",
        list(domains), [limits.rate_per_s] * n, [float(limits.burst)] * n, [limits.max_connections] * n,
    )  # fmt: skip
    lanes: dict[str, int] = {row[0]: row[1] for row in rows}
    flows: dict[int, int] = {
        row[0]: row[1]
        for row in await connection.fetch(
            "select * from ensure_flows($1, $2, $3, $4)", list(lanes.values()), priority, site, broadcast
        )
    }
    return [Lane(domain, lanes[domain], flows[lanes[domain]]) for domain in domains]


async def fill(
    connection: asyncpg.Connection,
    lanes: Sequence[Lane],
    first: int,
    count: int,
    *,
    in_turn: bool = True,
    accepted: bool = False,
    site: int = SITE,
    message: int = MESSAGE,
    broadcast: int = BROADCAST,
) -> int:
    """Put `count` ready rows from id `first` over the lanes; return the next free id.

    Args:
        connection: of the server's administrator.
        lanes: where they go, evenly.
        first: id and place of the first.
        count: how many.
        in_turn: row after row to the next lane; else lane by lane.
        accepted: also write what was accepted, so that the books balance.
        site: whose they are.
        message: what they carry.
        broadcast: of which broadcast.
    """
    until = first + count
    await connection.execute(
        _FILL, first, until, site, message, broadcast,
        [lane.lane_id for lane in lanes], [lane.flow_id for lane in lanes], [lane.domain for lane in lanes], in_turn, timeout=600,
    )  # fmt: skip
    if accepted:
        await connection.execute(_ACCEPTANCES, first, until, site, message, broadcast, timeout=600)
    return until


async def wake(connection: asyncpg.Connection, lanes: Sequence[Lane], seq: int) -> None:
    """Wake the lanes' flows from this place on, as a submitter does after its commit."""
    await connection.execute(
        "select wake($1, $2)", [lane.flow_id for lane in lanes], [seq] * len(lanes), timeout=600
    )


def shaping(default: Limits, domains: Mapping[str, Limits] | None = None) -> Shaping:
    """Throttles: these limits everywhere, and these for some domains."""
    rules = {name: Rule(**msgspec.structs.asdict(limits)) for name, limits in (domains or {}).items()}
    return Shaping(default=default, domain=rules)


async def ended(connection: asyncpg.Connection) -> int:
    """How many deliveries have ended."""
    return int(await connection.fetchval("select coalesce(sum(n), 0)::bigint from tally"))


def _in_database(dsn: str, name: str) -> str:
    parts = urlsplit(dsn)
    return f"{parts.scheme}://{parts.netloc}/{name}?{parts.query}"
