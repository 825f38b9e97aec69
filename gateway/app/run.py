"""`gateway run`: from a configuration to a working gateway, and down again.

Flow: claim the data directory → envelope key → ports → Postgres → schema → children → ready → until SIGTERM or SIGINT:
children end (dispatchers drain), then Postgres. A second signal kills the children. Meanwhile the files are watched; SIGHUP has
them read at once, and ends the gateway where its terminal is gone. Call from the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.app.brief import Brief, Role, Tuning
from gateway.app.database import EVERY_SITE, own_postgres
from gateway.app.exits import Exit
from gateway.app.observe import Node, socket_path
from gateway.app.ports import answers, base_url, require_free
from gateway.app.presence import Presence
from gateway.app.probe import serve_probe
from gateway.app.state import RunState, claimed, remove_state, write_state
from gateway.app.supervisor import Supervisor, members
from gateway.app.watch import Files, Watch, watch
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.dispatch.memory import hold_if_restored, state_dir_of
from gateway.errors import GatewayError
from gateway.mta.keys import load_or_create_master_key
from gateway.store.embedded import EmbeddedPostgres
from gateway.store.migrate import Joined
from gateway.store.pool import connect
from gateway.store.postgres_binaries import EmbeddedPostgresError
from gateway.telemetry import Event, log

READY_TIMEOUT_S = 60.0
_POLL_S = 0.05
_POSTGRES_CHECK_S = 1.0
_KILL_MARGIN_S = 5.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to run.

    Attributes:
        tuning: what the files said at the start.
        files: where they are, to be watched for changes.
        workers: dispatchers.
        migrate: bring a configured database to this code's schema; the gateway's own always is.
        hangup_ends: whether SIGHUP says that our terminal is gone; else it asks for a look at the files.
    """

    tuning: Tuning
    files: Files = Files()
    roles: Sequence[Role]
    workers: int
    migrate: bool = False
    hangup_ends: bool = False
    log_level: str = "info"
    log_json: bool = True


class Ready(msgspec.Struct, frozen=True):
    """What works now: where the API answers (empty without it), the gateway's own Postgres (empty with a configured one)."""

    api: str
    dsn: str
    pids: dict[str, int]


class StartFailed(GatewayError):
    """The gateway did not become ready."""


async def run_gateway(plan: Plan, on_ready: Callable[[Ready], None]) -> Exit:
    """Run until a signal; call `on_ready` once, when the API answers (or the children are started, without that role).

    Raises:
        GatewayError: it could not start; nothing that it had started is left.
    """
    config = plan.tuning.config
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    supervisor: Supervisor | None = None
    asked = asyncio.Event()

    def end() -> None:
        if supervisor is None:
            task.cancel()
        else:
            supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, end if plan.hangup_ends else asked.set)
    try:
        with claimed(config.data_dir), contextlib.ExitStack() as cleanup:
            load_or_create_master_key(config.master_key_path)
            for role, host, port, key in _addresses(config):
                if role in plan.roles:
                    require_free(host, port, key)
            reports = _prepare_reports(config, cleanup)
            server = None if config.database.dsn else cleanup.enter_context(own_postgres(config))
            dsn = server.dsn if server else config.database.dsn
            presence = await Presence.take(dsn, migrate=server is not None or plan.migrate)
            cleanup.callback(presence.leave)
            _say_schema(presence.joined)
            await _look_back(config, dsn)
            await asyncio.sleep(0)  # a signal that came meanwhile ends it here
            supervisor = _supervisor(plan, dsn, reports)
            api = base_url(config.api.host, config.api.port) if Role.API in plan.roles else ""
            own_dsn = dsn if server else ""
            cleanup.callback(remove_state, config.data_dir)
            write_state(
                config.data_dir,
                RunState(pid=os.getpid(), dsn=own_dsn, api=api, started_at=datetime.now(UTC)),
            )
            if reports:
                metrics = config.metrics
                node = Node(supervisor, presence, reports)
                probe = await serve_probe(metrics.host, metrics.port, node)
                cleanup.callback(probe.close)
            async with asyncio.TaskGroup() as group:
                watchers = [
                    group.create_task(
                        _announce(
                            supervisor,
                            config,
                            lambda pids: on_ready(Ready(api, own_dsn, pids)),
                            api=bool(api),
                        )
                    )
                ]
                watchers.append(group.create_task(presence.keep(_unfit(supervisor), SystemClock())))
                watching = Watch(plan.files, plan.tuning)
                watchers.append(group.create_task(watch(watching, supervisor.retune, asked)))
                if server is not None:
                    watchers.append(group.create_task(_keep_postgres(server, supervisor)))
                code = await supervisor.run()
                for watcher in watchers:
                    watcher.cancel()
            if supervisor.failure:
                raise StartFailed(supervisor.failure)
            return code
    except asyncio.CancelledError:  # asked to end before it had begun
        return Exit.OK


def _say_schema(joined: Joined) -> None:
    if joined.applied:
        log.info(Event.SCHEMA_MIGRATED, migrations=list(joined.applied))
    if joined.waiting:
        log.warning(Event.SCHEMA_WAITS, migrations=list(joined.waiting))


def _unfit(supervisor: Supervisor) -> Callable[[str], None]:
    """End a node that the schema has left behind while it was cut off."""
    return lambda why: supervisor.fail(why, Exit.FAILED)


def _addresses(config: Config) -> list[tuple[Role, str, int, str]]:
    """What each role listens on, and the key that says so."""
    api, listen, submission = config.api, config.listen, config.submission
    found = [
        (Role.API, api.host, api.port, "api.port"),
        (Role.LISTEN, listen.host, listen.port, "listen.port"),
    ]
    if submission.is_on:
        found.append((Role.LISTEN, submission.host, submission.port, "submission.port"))
        if submission.tls_port:
            found.append((Role.LISTEN, submission.host, submission.tls_port, "submission.tls_port"))
    return found


async def _look_back(config: Config, dsn: str) -> None:
    """Hold the fleet before any child works on a database that was restored, if this host can tell."""
    connection = await connect(dsn, role=EVERY_SITE, application_name="gateway run")
    try:
        await hold_if_restored(connection, state_dir_of(config))
    finally:
        await connection.close()


def _prepare_reports(config: Config, cleanup: contextlib.ExitStack) -> Path | None:
    """Make the folder where the children of this node report, if anybody is to know: its path is short, as those of sockets must be."""
    if not config.metrics.port:
        return None
    require_free(config.metrics.host, config.metrics.port, "metrics.port")
    return Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gateway-run-")))


def _supervisor(plan: Plan, dsn: str, reports: Path | None) -> Supervisor:
    briefs = {
        member: Brief(
            member.role,
            dsn,
            plan.tuning,
            plan.log_level,
            plan.log_json,
            str(socket_path(reports, member.name)) if reports else "",
        )
        for member in members(plan.roles, plan.workers)
    }
    grace_s = plan.tuning.config.dispatch.grace_s
    return Supervisor(briefs, SystemClock(), grace_s=grace_s + _KILL_MARGIN_S)


async def _announce(
    supervisor: Supervisor, config: Config, say: Callable[[dict[str, int]], None], *, api: bool
) -> None:
    """Wait until the gateway works and say so, or end it."""
    deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
    while not supervisor.stopping:
        if supervisor.complete and (not api or await answers(config.api.host, config.api.port, "/readyz")):
            supervisor.mark_ready()
            say(supervisor.pids())
            return
        if asyncio.get_running_loop().time() > deadline:
            supervisor.fail(
                f"the API did not answer within {READY_TIMEOUT_S:g} s; the log says why", Exit.FAILED
            )
            return
        await asyncio.sleep(_POLL_S)


async def _keep_postgres(server: EmbeddedPostgres, supervisor: Supervisor) -> None:
    """Start our own Postgres again when it dies: the children try again until it is back."""
    while not supervisor.stopping:
        await asyncio.sleep(_POSTGRES_CHECK_S)
        if server.pid is None and not supervisor.stopping:
            log.error(Event.PROCESS_ENDED, role="postgres", restart_s=0)
            try:
                server.start()  # blocks: the kernel ties its life to this very thread
            except EmbeddedPostgresError as error:
                log.error(
                    Event.PROCESS_ENDED, role="postgres", problem=str(error), restart_s=_POSTGRES_CHECK_S
                )
