"""A gateway on real processes, for scenarios: dispatchers, upkeep, a receiving sink, and the books beside its ledger.

    async with Fleet(db, tmp_path) as fleet:
        ids = await fleet.submit(500)
        first = await fleet.start("here")
        await fleet.until("200 were taken", lambda: fleet.sink.ledger().accepts >= 200)
        await first.kill()
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()

A dispatcher is started on a *host*, a name for a state folder: dispatchers on one host share journals, others do not.
Everything ends with the test. `check` compares three independent witnesses: the books' two sides, proven id by id; the
terminal records and events; the ledger that the sink wrote before each of its replies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import msgspec

from bench.load.ledger import Books, Findings, Ledger, compare
from gateway.clock import SystemClock
from gateway.config import Config, load
from gateway.dispatch.upkeep import run_upkeep
from gateway.errors import StoreUnavailable
from gateway.model.ids import Prefix, encode
from gateway.mta import journal
from gateway.mta.keys import generate_rsa_key, load_or_create_master_key, seal
from gateway.store import sites
from gateway.store.books import read_books
from gateway.store.pool import open_pool
from gateway.store.tenancy import OPERATOR, as_site
from gateway.throttle.shaping import Limits
from tests.support.accept import DAY_S, UNLIMITED, accept
from tests.support.api import Client, open_world
from tests.support.dispatcher_process import spawn
from tests.support.sink import SinkServer

TRANSACTIONAL, BULK = 0, 1
SENDING_DOMAIN = "mail.sender.test"
_POLL_S = 0.02
_LONG_S = 30.0


@cache
def _rsa_key() -> bytes:
    return generate_rsa_key()


class DispatcherProcess:
    """One life of one dispatcher, as its supervisor sees it."""

    def __init__(self, host: str, process: BaseProcess, log: Path) -> None:
        assert process.pid is not None
        self.host, self.pid = host, process.pid
        self.must_live = True  # its end is a fault of the scenario
        self._process, self._log = process, log

    @property
    def status(self) -> int | None:
        """Its exit status (negative: the signal that ended it), or None while it lives."""
        return self._process.exitcode

    @property
    def said(self) -> str:
        """The end of its log."""
        return self.log[-3000:]

    @property
    def log(self) -> str:
        """All of its log; under a limit for files it has an end, too."""
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; of SIGTERM and SIGKILL it may end."""
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.must_live = False
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def terminate(self) -> int:
        """Ask it to end; its exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self, timeout_s: float = _LONG_S) -> int:
        """Its exit status, once it has ended by itself or by a signal."""
        self.must_live = False
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (status := self.status) is None:
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"dispatcher {self.pid} lives after {timeout_s} s:\n{self.said}")
            await asyncio.sleep(_POLL_S)
        return status


class Fleet:
    """An async context manager: a sink, a site with a verified domain, upkeep, and the dispatchers that are started.

    `settings` are tables of the configuration, laid over settings that make a scenario short.
    """

    def __init__(
        self,
        dsn: str,
        directory: Path,
        *,
        world: str = "accept",
        sink_options: tuple[str, ...] = (),
        settings: Mapping[str, Mapping[str, object]] | None = None,
        limits: Limits = UNLIMITED,
    ) -> None:
        self.dsn, self.directory = dsn, directory
        self.sink = SinkServer(directory, world=world, options=sink_options)
        self.limits = limits
        self.submitted: list[int] = []
        self._settings: dict[str, Mapping[str, object]] = dict(settings or {})
        self._elsewhere: dict[str, str] = {}
        self._dispatchers: list[DispatcherProcess] = []
        self._stop_upkeep = asyncio.Event()
        self._upkeep: asyncio.Task[None] | None = None
        self.site_id = 0
        self.messages: dict[int, int] = {}  # by priority

    async def __aenter__(self) -> Self:
        await self.sink.start()
        self.pool = await self._open()
        await self._make_site()
        self.start_upkeep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for dispatcher in self._dispatchers:
            with contextlib.suppress(ProcessLookupError):
                if dispatcher.status is None:
                    dispatcher.signal(signal.SIGKILL)
                    await dispatcher.ended()
        with contextlib.suppress(Exception):  # its Postgres may be gone; the scenario has said what it had to
            await self.stop_upkeep()
        self.pool.terminate()
        await self.sink.stop()

    # -- processes ---------------------------------------------------------------------------------------------------

    def state_dir(self, host: str) -> Path:
        """The folder that a host's dispatchers share."""
        return self.directory / "hosts" / host

    def journal_dir(self, host: str) -> Path:
        """Where a host's journals lie."""
        return self.state_dir(host) / "dispatch" / "journal"

    def config(self, host: str) -> Config:
        """A host's configuration, as its dispatchers read it."""
        return load(self._config_file(host), {})

    def configure(self, section: str, **keys: object) -> None:
        """Set keys that are known only when the sink listens; for dispatchers started later."""
        self._settings[section] = {**self._settings.get(section, {}), **keys}

    def route(self, domain: str, port: int) -> None:
        """Have mail for a domain go to another receiver of loopback than the sink; for dispatchers started later."""
        self._elsewhere[domain] = f"127.0.0.1:{port}"

    async def start(self, host: str, *options: str) -> DispatcherProcess:
        """Start a dispatcher on a host and return at once; options as in `dispatcher_process`."""
        config = self._config_file(host)
        log = self.directory / f"dispatcher-{len(self._dispatchers)}-{host}.log"
        process = await asyncio.to_thread(spawn, ["--config", str(config), *options], log)
        dispatcher = DispatcherProcess(host, process, log)
        dispatcher.must_live = not {"--die-at", "--poison", "--file-bytes"} & set(options)
        self._dispatchers.append(dispatcher)
        return dispatcher

    def start_upkeep(self) -> None:
        """Promotion, expiry and the other chores, in this process."""
        self._stop_upkeep = asyncio.Event()
        self._upkeep = asyncio.create_task(run_upkeep(self.dsn, clock=SystemClock(), stop=self._stop_upkeep))

    async def stop_upkeep(self) -> None:
        """End the chores."""
        if self._upkeep is not None:
            self._stop_upkeep.set()
            upkeep, self._upkeep = self._upkeep, None
            await upkeep

    async def reconnect(self) -> None:
        """Open the scenario's own connections anew, after Postgres was restarted."""
        self.pool.terminate()
        self.pool = await self._open()

    async def _open(self) -> asyncpg.Pool:
        return await open_pool(self.dsn, max_size=4, application_name="scenario")

    def lose_host(self, host: str) -> None:
        """The machine is gone, with its journals."""
        shutil.rmtree(self.state_dir(host))

    def dead_journals(self, host: str) -> dict[int, journal.Replay]:
        """What the journals of a host's dead dispatchers say, by incarnation."""
        folder = self.journal_dir(host)
        return {dead: journal.replay(folder, dead) for dead in journal.find_dead(folder)}

    # -- what is to be sent ------------------------------------------------------------------------------------------

    async def message(
        self, *, priority: int = BULK, html: str, text: str = "", template: bool = False
    ) -> int:
        """Store a message of other words; its id, for `submit`."""
        (row,) = await self.rows(
            "INSERT INTO message (id, site_id, domain_id, stream, sender, subject, html, text, template) "
            "SELECT nextval('acceptance_id'), site_id, domain_id, stream, sender, subject, $1, $2, $3 FROM message WHERE id = $4 RETURNING id",
            html, text, "inline" if template else "", self.messages[priority],
        )  # fmt: skip
        return row["id"]

    async def submit(
        self,
        recipients: int | Iterable[str],
        *,
        domains: int = 20,
        priority: int = BULK,
        message_id: int | None = None,
        expires_s: float = DAY_S,
        wake: bool = True,
    ) -> list[int]:
        """Accept deliveries, in one transaction for each 1,000, and wake them; their ids.

        A number stands for so many recipients, spread over `domains` domains. Without `message_id` it is the short message that
        each priority has.
        """
        if isinstance(recipients, int):
            start = len(self.submitted)
            recipients = [f"u{start + i}@d{i % domains}.test" for i in range(recipients)]
        addresses = list(recipients)
        ids: list[int] = []
        async with self.pool.acquire() as connection:
            for start in range(0, len(addresses), 1_000):
                accepted, flows = await accept(
                    connection, self.site_id, message_id or self.messages[priority], priority, addresses[start : start + 1_000],
                    expires_s=expires_s, limits=self.limits,
                )  # fmt: skip
                ids += accepted
                if wake:
                    await connection.execute("SELECT wake($1, $2)", list(flows), list(flows.values()))
        self.submitted += ids
        return ids

    # -- watching ----------------------------------------------------------------------------------------------------

    async def until(
        self, what: str, condition: Callable[[], Awaitable[object] | object], *, timeout_s: float = _LONG_S
    ) -> None:
        """Wait until `condition` holds.

        Raises:
            AssertionError: it does not in time, or a dispatcher that should live has ended; says where things stand.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            holds = condition()
            if isinstance(holds, Awaitable):
                holds = await holds
            if holds:
                return
            for dispatcher in self._dispatchers:
                if dispatcher.must_live and dispatcher.status is not None:
                    raise AssertionError(
                        f"while waiting until {what}, the dispatcher on {dispatcher.host} ended with "
                        f"{dispatcher.status}:\n{dispatcher.said}"
                    )
            if self._upkeep is not None and self._upkeep.done():
                self._upkeep.result()
            if loop.time() > deadline:
                states: object = "unknown"
                with contextlib.suppress(OSError, StoreUnavailable, asyncpg.PostgresError):
                    states = await self.states()
                raise AssertionError(
                    f"after {timeout_s} s still not so: {what}; states {states}; sink "
                    f"{self.sink.ledger().accepts} accepts; logs:\n"
                    + "\n---\n".join(d.said[-1500:] for d in self._dispatchers)
                )
            await asyncio.sleep(_POLL_S)

    async def settled(self, *, timeout_s: float = _LONG_S) -> None:
        """Wait until no delivery is open."""

        async def nothing_open() -> bool:
            return await self._value("SELECT NOT EXISTS (SELECT FROM queue)")

        await self.until("no delivery is open", nothing_open, timeout_s=timeout_s)

    async def taken(self, count: int) -> None:
        """Wait until the sink has taken so many."""
        await self.until(f"the sink took {count}", lambda: self.sink.ledger().accepts >= count)

    async def heartbeats(self, count: int) -> None:
        """Wait until the living dispatchers together have looked around so often since now."""
        start = await self._value("SELECT last_value FROM fleet_tick")

        async def passed() -> bool:
            return await self._value("SELECT last_value FROM fleet_tick") - start >= count

        await self.until(f"{count} heartbeats have passed", passed)

    async def states(self) -> Counter[str]:
        """How many deliveries are in each state, from the rows themselves."""
        rows = await self.rows(
            "SELECT state::text AS state, count(*) AS n FROM "
            "(SELECT state FROM queue UNION ALL SELECT state FROM ended) s GROUP BY 1"
        )
        return Counter({row["state"]: row["n"] for row in rows})

    async def ids_in(self, *states: str) -> set[int]:
        """Ids of the deliveries in these states."""
        rows = await self.rows(
            "SELECT id FROM (SELECT id, state FROM queue UNION ALL SELECT id, state FROM ended) s WHERE state::text = ANY ($1)",
            states,
        )
        return {row["id"] for row in rows}

    async def ever_in_doubt(self) -> set[int]:
        """Ids of the deliveries that are or were reported in doubt."""
        rows = await self.rows("SELECT delivery_id AS id FROM event WHERE kind = 'in_doubt'")
        return {row["id"] for row in rows} | await self.ids_in("in_doubt")

    async def rows(self, query: str, *args: object) -> list[Mapping[str, Any]]:
        """Rows of a query as the server's administrator."""
        return await self.pool.fetch(query, *args)

    async def _value(self, query: str, *args: object) -> Any:
        return await self.pool.fetchval(query, *args)

    async def lane_says(self, domain: str) -> str:
        """Why a lane waits, or waited last, in the words that were said or are our own; class and codes stand before them."""
        why = await self._value(
            "SELECT coalesce(s.suspended_why, '') FROM lane_state s JOIN lane l ON l.id = s.lane_id WHERE l.name = $1", domain
        )  # fmt: skip
        return why.partition(": ")[2]

    async def shown(self, *message_ids: int) -> dict[str, dict[str, Any]]:
        """Deliveries of messages, by recipient, as the control API shows them to the site."""
        async with open_world(self.dsn, self.directory) as world:
            async with as_site(world.services.pool, OPERATOR) as connection:
                _, key = await sites.issue_key(connection, self.site_id, "scenario", ["read"])
            site = Client(world.http, key)
            found = [await site.get(f"/v1/messages/{encode(Prefix.MESSAGE, id_)}") for id_ in message_ids]
        return {delivery["to"]: delivery for message in found for delivery in message["deliveries"]}

    def ledger(self) -> Ledger:
        """What the sink saw, by delivery."""
        return self.sink.ledger("delivery")

    async def check(self, *, settled: bool = True) -> Findings:
        """Assert conservation: the books balance id by id, agree with the sink's ledger, and no row is held by nobody.

        `settled` False: while deliveries are still open or under way only the books are checked.
        """
        async with self.pool.acquire() as connection:
            books = await read_books(connection, deep=True)
        assert not books.faults(), "\n".join(books.faults())
        assert books.overall.accepted == len(self.submitted)
        orphans = await self.rows(
            "SELECT q.id, i.status FROM queue q LEFT JOIN incarnation i ON i.id = q.owner_id "
            "WHERE q.state = 'leased' AND i.status IS DISTINCT FROM 'live' AND i.status IS DISTINCT FROM 'dead'"
        )
        assert not orphans, f"{len(orphans)} leased by a dispatcher that nobody will rescue: {orphans[:5]}"
        findings = compare(
            Books(
                delivered={str(i) for i in await self.ids_in("delivered")},
                in_doubt={str(i) for i in await self.ever_in_doubt()},
                ended={str(i) for i in await self.ids_in("bounced", "expired", "suppressed", "cancelled", "quarantined")},
            ),
            self.ledger(),
        )  # fmt: skip
        if settled:
            assert findings.balanced, "\n".join(findings.lines())
        return findings

    # -- making ------------------------------------------------------------------------------------------------------

    async def _make_site(self) -> None:
        key_file = self.directory / "master.key"
        sealed = seal(_rsa_key(), load_or_create_master_key(key_file), SENDING_DOMAIN)
        async with self.pool.acquire() as connection:
            self.site_id = await connection.fetchval(
                "INSERT INTO site (name) VALUES ('scenario') RETURNING id"
            )
            domain_id = await connection.fetchval(
                "INSERT INTO domain (site_id, name, status, selector, private_key_sealed, public_key) "
                "VALUES ($1, $2, 'verified', 's1', $3, '') RETURNING id",
                self.site_id, SENDING_DOMAIN, sealed,
            )  # fmt: skip
            for priority, stream in ((TRANSACTIONAL, "transactional"), (BULK, "marketing")):
                self.messages[priority] = await connection.fetchval(
                    "INSERT INTO message (id, site_id, domain_id, stream, sender, subject, html, text) "
                    "VALUES (nextval('acceptance_id'), $1, $2, $3, $4, 'A scenario', '<p>Hello.</p>', 'Hello.') RETURNING id",
                    self.site_id, domain_id, stream, f"Sender <news@{SENDING_DOMAIN}>",
                )  # fmt: skip

    def _config_file(self, host: str) -> Path:
        folder = self.state_dir(host)
        folder.mkdir(parents=True, exist_ok=True)
        tables: dict[str, dict[str, object]] = {
            "database": {"dsn": self.dsn, "data_dir": str(folder)},
            "keys": {"master_key_file": str(self.directory / "master.key")},
            "route": {"default": f"127.0.0.1:{self.sink.port}"},
            "route.domains": self._elsewhere,
            "dispatch": {"ack_interval_ms": 20, "grace_s": 10.0},
            "retry": {
                **{
                    key: [0.2]
                    for key in ("greylist_s", "connection_s", "rate_s", "mailbox_full_s", "other_s")
                },
                "jitter_ratio": 0.0,
            },
            "doubt": {"transactional_wait_s": 0.2, "bulk_wait_s": 0.4},
        }
        for name, table in self._settings.items():
            tables[name] = tables.get(name, {}) | dict(table)
        file = folder.with_suffix(".toml")
        file.write_text(_toml(tables), encoding="utf-8")
        return file


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """Tables of text, numbers and lists of numbers as TOML: JSON's notation of those is TOML too."""
    lines: list[str] = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        for key, value in table.items():
            lines.append(f"{_quoted(key) if '.' in key else key} = {_quoted(value)}")
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    return msgspec.json.encode(value).decode()
