"""One dispatcher process: wired, started, drained.

Owns the order of a life: is this the database we knew → a new incarnation and its journal → rescue of the dead of this host →
heartbeat, feeder and acknowledger until told to stop → drain → close. Ends with `Fenced` when peers called it dead, or the
database went back: then it must not acknowledge anything but what its journal keeps, and its successor takes over.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
from prometheus_client import CollectorRegistry

from gateway.clock import Clock
from gateway.config import Config, DoubtConfig
from gateway.dispatch.attempt import AttemptMaker
from gateway.dispatch.connections import ConnectionRules
from gateway.dispatch.content import Contents
from gateway.dispatch.feeder import Feeder
from gateway.dispatch.lease import Fenced, Lease, Watch
from gateway.dispatch.memory import Remembered, hold_if_restored, remember, state_dir_of
from gateway.dispatch.message import names_of
from gateway.dispatch.outcome import STORE_ERRORS, Acknowledger, Policies
from gateway.dispatch.rescue import Rescuer
from gateway.dispatch.signers import platform_signer
from gateway.dispatch.stall import Stalls
from gateway.dispatch.trace import Traces
from gateway.mta import journal as journals
from gateway.mta.journal import Journal
from gateway.mta.keys import load_or_create_master_key
from gateway.mta.mx import resolver_of
from gateway.mta.mx_plan import is_host_name
from gateway.mta.reply import Judge, classify
from gateway.store import fleet
from gateway.store.fleet import DoubtPolicy
from gateway.store.pool import open_pool
from gateway.store.queue import Queue, holds
from gateway.telemetry import Event, Metrics, get_logger
from gateway.throttle.retune import Follow, never
from gateway.throttle.shaping import Shaping

_HOST_FILE = "host.key"
_TRACE_PATIENCE_S = 2.0
_HOLDS_PATIENCE_S = 2.0
HOLDS_EVERY_S: Final = 0.5
"""How often a dispatcher looks for what it must not begin any more; claims look by themselves."""


async def run_dispatcher(
    config: Config,
    dsn: str,
    *,
    clock: Clock,
    stop: asyncio.Event,
    judge: Judge = classify,
    shaping: Shaping | None = None,
    follow: Follow = never,
) -> None:
    """Send until `stop`; then drain within the grace time.

    Args:
        config: the configuration at the start.
        dsn: where Postgres is.
        clock: for waits and ages.
        stop: asks for the end.
        judge: says what receivers' replies mean.
        shaping: the throttles, for how connections are used; without them the configuration alone decides.
        follow: tells of a changed configuration, of which live keys alone differ.

    Raises:
        Fenced: peers called us dead; begin a new life.
        JournalError: the journal cannot be written; nothing is sent without it.
        StoreUnavailable: Postgres does not answer at the start.
    """
    state_dir = state_dir_of(config)
    state_dir.mkdir(parents=True, exist_ok=True)
    pool = await open_pool(
        dsn,
        role="gateway_dispatch",
        min_size=2,
        max_size=max(4, config.database.dispatch_pool_size),
        application_name="gateway dispatch",
    )
    try:
        dispatcher = await Dispatcher.begin(config, pool, state_dir, clock, judge, shaping)
        follow(dispatcher.retune)
        # What stands now stays for good; a full collection over it stopped all lanes for 17 ms.
        gc.collect()
        gc.freeze()
        await dispatcher.live(stop)
    finally:
        pool.terminate()


class Dispatcher:
    """The parts of one incarnation, wired."""

    def __init__(
        self,
        config: Config,
        pool: asyncpg.Pool,
        state_dir: Path,
        clock: Clock,
        incarnation: int,
        host_key: str,
        judge: Judge,
        shaping: Shaping | None,
        own_name: str,
    ) -> None:
        self._config, self._pool, self._clock, self._state_dir = config, pool, clock, state_dir
        self._incarnation = incarnation
        self._journal_dir = state_dir / "journal"
        self._journal = Journal(self._journal_dir, incarnation)
        self._lease = Lease(clock, config.dispatch.lease_s)
        self._stalls = Stalls(clock)
        self._resolver = resolver_of(config.mx, clock)
        self._watch = Watch(incarnation, host_key, config.dispatch.lease_s)
        self._queue = Queue(incarnation, clock, config.dispatch.late_tolerance_ms / 1000)
        self._metrics = Metrics(CollectorRegistry())
        self._policies = policies = Policies(config.retry, config.doubt)
        self._rescuer = Rescuer(
            pool, self._queue, self._journal_dir, policies, _doubt_policy(config.doubt), judge
        )
        self._connections = ConnectionRules(config.dispatch, shaping, self._resolver.known)
        self._acknowledger = Acknowledger(pool, self._queue, self._journal, config.dispatch, clock)
        self._feeder = Feeder(
            pool=pool, queue=self._queue, journal=self._journal, watch=self._watch, acknowledger=self._acknowledger,
            config=config.dispatch, clock=clock, metrics=self._metrics, connections=self._connections,
        )  # fmt: skip
        self._traces = Traces(incarnation, clock)
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._attempts = AttemptMaker(
            config=config, clock=clock, lease=self._lease, stalls=self._stalls, journal=self._journal,
            contents=Contents(
                names_of(config), load_or_create_master_key(config.master_key_path),
                platform_signer(config.mail),
            ),
            acknowledger=self._acknowledger, policies=policies, judge=judge, resolver=self._resolver, queue=self._queue, pool=pool, metrics=self._metrics,
            traces=self._traces, hand_back=self._feeder.hand_back, failed=self._fail, own_name=own_name,
        )  # fmt: skip
        self._feeder.attempts = self._attempts
        self._tick = 0
        self._database_id = ""
        self._log = get_logger()

    def retune(self, config: Config, shaping: Shaping) -> None:
        """Take a changed configuration, of which live keys alone differ, and changed throttles."""
        self._config = config
        self._attempts.retune(config)
        self._policies.retry, self._policies.doubt = config.retry, config.doubt
        self._rescuer.retune(_doubt_policy(config.doubt))
        self._connections.retune(config.dispatch, shaping)
        self._feeder.retune(config.dispatch)

    @classmethod
    async def begin(
        cls,
        config: Config,
        pool: asyncpg.Pool,
        state_dir: Path,
        clock: Clock,
        judge: Judge,
        shaping: Shaping | None,
    ) -> Dispatcher:
        """Check the database against what we remember, and register a new incarnation."""
        host_key = _host_key(state_dir)
        async with pool.acquire() as connection:
            database_id = await hold_if_restored(connection, state_dir)
            incarnation = await fleet.register(connection, host_key, os.getpid())
        own_name = await asyncio.to_thread(_own_name)
        dispatcher = cls(config, pool, state_dir, clock, incarnation, host_key, judge, shaping, own_name)
        dispatcher._database_id = database_id
        return dispatcher

    async def live(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then drain; or end with what went wrong."""
        self._log.info(Event.DISPATCHER_STARTED, incarnation=self._incarnation, pid=os.getpid())
        await self._beat()
        await self._exchange_traces()
        await self._rescuer.bury_the_dead_here()
        feeding_ends = asyncio.Event()
        acknowledging = asyncio.create_task(self._acknowledger.run())
        feeding = asyncio.create_task(self._feeder.run(self._attempts, feeding_ends))
        beating = asyncio.create_task(self._beat_on())
        watching = asyncio.create_task(self._stalls.watch())
        tracing = asyncio.create_task(self._trace_on())
        heeding = asyncio.create_task(self._heed_holds_on())
        stopping = asyncio.create_task(stop.wait())
        tasks = {feeding, beating, acknowledging, watching, tracing, heeding}
        try:
            await asyncio.wait({*tasks, stopping, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            feeding_ends.set()
            failed = [
                t
                for t in (*tasks, self._failure)
                if t.done() and not t.cancelled() and t.exception() is not None
            ]
            if failed:
                raise failed[0].exception() or RuntimeError("unreachable")
            await feeding
            await self._feeder.drain(self._attempts, self._config.dispatch.grace_s)
            await self._exchange_traces()
            acknowledging.cancel()
            if await self._acknowledger.flush():
                await self._close()
            self._log.info(Event.DISPATCHER_STOPPED, incarnation=self._incarnation)
        except Fenced as error:
            self._log.error(Event.DISPATCHER_FENCED, incarnation=self._incarnation, error=str(error))
            raise
        finally:
            self._feeder.abort()
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.wait({*tasks, stopping})
            self._failure.cancel()
            self._journal.close()
            await self._resolver.close()

    async def _close(self) -> None:
        """Leave nothing behind: what the grace time cut off between its dot and the reply is in doubt at once."""
        async with self._pool.acquire() as connection:
            if not await fleet.close(connection, self._incarnation):
                await fleet.bury(connection, self._incarnation)
                await self._rescuer.take_over(self._incarnation, has_journal=True)
            closed = await fleet.status(connection, self._incarnation) == "closed"
        self._journal.close()
        if closed:
            journals.remove(self._journal_dir, self._incarnation)

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    async def _beat_on(self) -> None:
        while True:
            await self._clock.sleep(self._config.dispatch.heartbeat_s)
            try:
                await self._beat()
                await self._look_around()
            except STORE_ERRORS:
                self._watch.forget()
            self._feeder.tidy()
            self._metrics.ack_backlog.set(self._acknowledger.backlog)
            self._metrics.journal_bytes.set(self._journal.size_bytes)

    async def _beat(self) -> None:
        sent_at = self._clock.monotonic()
        async with self._pool.acquire() as connection:
            async with asyncio.timeout(self._config.dispatch.lease_s):
                moved = await fleet.beat(connection, self._incarnation)
        if moved is None:
            raise Fenced(
                f"incarnation {self._incarnation} was declared dead by a peer: it was silent for a lease"
            )
        if moved[1] < self._tick:
            raise Fenced(
                f"the database was restored: it is at tick {moved[1]}, we saw {self._tick}; a new life holds the fleet"
            )
        self._lease.renew(sent_at)
        self._tick = moved[1]
        remember(self._state_dir, Remembered(self._database_id, self._tick))

    async def _trace_on(self) -> None:
        """A task of its own: a transcript that Postgres does not take must not keep a heartbeat waiting."""
        while True:
            await self._clock.sleep(self._config.dispatch.heartbeat_s)
            await self._exchange_traces()

    async def _exchange_traces(self) -> None:
        try:
            async with asyncio.timeout(_TRACE_PATIENCE_S), self._pool.acquire() as connection:
                await self._traces.exchange(connection)
        except STORE_ERRORS:
            self._traces.expire()

    async def _heed_holds_on(self) -> None:
        """A task of its own: what is stopped has to be off the wire within a second, whatever the heartbeat is busy with."""
        while True:
            with suppress(*STORE_ERRORS):
                async with asyncio.timeout(_HOLDS_PATIENCE_S), self._pool.acquire() as connection:
                    held = frozenset(await holds(connection))
                if held != self._attempts.holds:
                    self._attempts.holds = held
                    self._feeder.drop_held()
            await self._clock.sleep(HOLDS_EVERY_S)

    async def _look_around(self) -> None:
        async with self._pool.acquire() as connection:
            peers = await fleet.others(connection)
        silent, rescues = self._watch.observe(peers, self._clock.monotonic())
        for peer in silent:
            async with self._pool.acquire() as connection:
                if await fleet.declare_dead(connection, peer.id, peer.counter):
                    self._log.warning(Event.PEER_DEAD, incarnation=peer.id)
        for peer, here in rescues:
            if here and journals.exists(self._journal_dir, peer.id):
                await self._rescuer.take_over(peer.id, has_journal=True)
            elif not here or self._watch.given_up(peer.id, self._clock.monotonic()):
                await self._rescuer.take_over(peer.id, has_journal=False)


def _doubt_policy(config: DoubtConfig) -> DoubtPolicy:
    return DoubtPolicy(config.transactional_wait_s, config.bulk_wait_s)


def _own_name() -> str:
    """What this machine calls itself, for EHLO where no name is configured; asks the system's resolver."""
    name = socket.getfqdn()
    return name if is_host_name(name.lower()) else "localhost"


def _host_key(state_dir: Path) -> str:
    """The name of this host's journal folder: whoever shares the folder can read its journals."""
    path = state_dir / _HOST_FILE
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(uuid4().hex)
    except FileExistsError:
        pass
    return path.read_text("ascii")
