"""`gateway run` as a process: it starts, keeps its children alive, and leaves nothing behind, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from demo.processes import Program, ProgramError
from gateway.app.brief import Brief, Role, Tuning
from gateway.app.exits import Exit
from gateway.app.supervisor import Member, Supervisor
from gateway.clock import SystemClock
from gateway.config import Config, DispatchConfig
from tests.support.postgres import Cluster

pytestmark = pytest.mark.slow


def eventually(is_so: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Processes have no event to wait for."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ground:
    """Where one gateway is run: its data folder, its port, its environment."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.port = free_port()
        self.log = folder / "gateway.log"
        self.env = {
            "GATEWAY_DATA_DIR": str(self.data),
            "GATEWAY__LISTEN__PORT": str(self.port),
            "GATEWAY_DSN": "",
        }

    def run(self, *options: str, roles: str = "listen") -> Program:
        arguments = ("run", "--roles", roles, "--json", *options)
        return Program("gateway.cli", *arguments, log_path=self.log, env={**os.environ, **self.env})

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def family(pid: int) -> list[psutil.Process]:
    """A process and everything it started."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[str]:
    names: list[str] = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end between two looks
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                names.append(process.name())
    return names


def test_runs_until_sigterm_and_leaves_nothing(ground: Ground) -> None:
    with ground.run() as gateway:
        assert gateway.said["event"] == "ready"
        assert list(gateway.said["pids"]) == ["listen"]
        everything = family(gateway.pid)
        assert any("postgres" in p.name() for p in everything)
        state = json.loads((ground.data / "run.json").read_text())
        assert state["pid"] == gateway.pid
        assert state["dsn"] == gateway.said["dsn"]
        assert (ground.data / "master.key").stat().st_mode & 0o777 == 0o600
        # The running gateway's own Postgres is found by other commands.
        books = ground.command("books", "--deep", "--json")
        assert (books.returncode, json.loads(books.stdout)["balanced"]) == (0, True)
        second = ground.command("run", "--roles", "listen")
        assert second.returncode == Exit.FAILED
        assert f"in use by the gateway with pid {gateway.pid}" in second.stderr
        assert gateway.stop() == Exit.OK
    assert not (ground.data / "run.json").exists()
    eventually(lambda: not alive(everything))
    # A command that needs the database while nothing runs starts it for its own time.
    assert ground.command("books", "--deep").returncode == Exit.OK
    assert not any(
        str(ground.data) in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])
    )


def test_all_ends_with_it_when_it_is_killed(ground: Ground) -> None:
    with ground.run() as gateway:
        everything = family(gateway.pid)
        assert len(everything) > 3
        gateway.kill()
        eventually(lambda: not alive(everything))
    with ground.run() as again:  # and the next one starts on what it left
        assert again.said["event"] == "ready"


def test_a_child_that_dies_is_started_again(ground: Ground) -> None:
    with ground.run() as gateway:
        os.kill(gateway.said["pids"]["listen"], signal.SIGKILL)
        eventually(lambda: '"restart_s":0.25' in ground.log.read_text())

        def listens() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", ground.port)) == 0

        eventually(listens)


def test_its_postgres_is_started_again(ground: Ground) -> None:
    with ground.run() as gateway:
        [postmaster] = [p for p in psutil.Process(gateway.pid).children() if "postgres" in p.name()]
        postmaster.kill()
        eventually(lambda: ground.command("books").returncode == 0)


def test_a_busy_port_is_named_with_the_key_to_change(ground: Ground) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", ground.port))
        busy.listen()
        done = ground.command("run", "--roles", "listen")
    assert done.returncode == Exit.FAILED
    assert done.stderr.startswith(
        f"gateway: cannot listen on 127.0.0.1:{ground.port}: Address already in use"
    )
    assert "[listen] port" in done.stderr
    assert done.stderr.count("\n") == 1


async def test_a_configured_database_is_migrated_only_when_asked(cluster: Cluster, tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    dsn = await cluster.create_database(empty=True)
    ground.env["GATEWAY_DSN"] = dsn
    try:
        with pytest.raises(ProgramError, match="run `gateway migrate`, or start with --migrate"):
            await asyncio.to_thread(ground.run)
        gateway = await asyncio.to_thread(ground.run, "--migrate")
        assert gateway.said["dsn"] == ""
        assert gateway.stop() == Exit.OK
        assert not (ground.data / "postgres").exists()
    finally:
        await cluster.drop_database(dsn)


async def test_a_restored_database_is_noticed_and_reconciled(ground: Ground) -> None:
    with ground.run(roles="dispatch"):
        remembers = ground.data / "dispatch/fleet.json"
        eventually(lambda: remembers.exists() and json.loads(remembers.read_text())["tick"] > 1)
    with ground.run() as gateway:  # as from a backup that was made before any dispatcher had lived
        connection = await asyncpg.connect(gateway.said["dsn"])
        await connection.execute("SELECT setval('fleet_tick', 1, false)")
        await connection.close()
        assert json.loads(ground.command("reconcile", "--json").stdout)["held"] is False
    with ground.run():  # no dispatcher: the host remembers, before anything takes part again
        assert json.loads(ground.command("reconcile", "--json").stdout)["held"]
    with ground.run(roles="dispatch"):
        done = ground.command("reconcile", "--in-doubt")
        assert done.returncode == Exit.OK
        assert "dispatchers claim again" in done.stdout
    with ground.run(roles="dispatch"):  # and is not held a second time
        eventually(lambda: ground.log.read_text().count("dispatcher.started") == 3)
        assert json.loads(ground.command("reconcile", "--json").stdout)["held"] is False


def test_files_are_tuned_broken_and_mended_while_it_runs(ground: Ground, tmp_path: Path) -> None:
    config, throttles, bounces = (
        tmp_path / name for name in ("gateway.toml", "throttles.toml", "bounces.toml")
    )
    ground.env["GATEWAY__API__PORT"] = str(free_port())
    config.write_text("[dispatch]\nworkers = 2\n")
    throttles.write_text("[default]\nrate_per_s = 10\n")

    def said(event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in ground.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def nice(name: str) -> int:
        return os.getpriority(os.PRIO_PROCESS, gateway.said["pids"][name])

    with ground.run("--config", str(config), roles="api,dispatch,schedule,listen") as gateway:
        eventually(lambda: nice("dispatch-1") - nice("api") == DispatchConfig().niceness)
        throttles.write_text("[default]\nrate_per_s = 20\n")
        eventually(lambda: len(said("config.loaded")) == 1)
        eventually(lambda: len(said("limits.applied")) == 1)
        assert said("config.loaded")[0]["changes"] == ["default.rate_per_s: 10 → 20"]
        bounces.write_text("[[rule]]\npattern = 'x'\nclass = 'spma'\nwhy = 'y'\n")
        eventually(lambda: len(said("config.refused")) == 1)
        assert f'{bounces}:3: rule.1.class: no value "spma"; did you mean "spam"?' in str(
            said("config.refused")
        )
        bounces.write_text("[[rule]]\npattern = 'x'\nclass = 'spam'\nwhy = 'y'\n")
        eventually(lambda: len(said("config.loaded")) == 2)
        config.write_text('[dispatch]\nworkers = 3\ntls = "none"\n')
        eventually(lambda: len(said("config.needs_restart")) == 1)
        assert said("config.needs_restart")[0]["changes"] == ["dispatch.workers: 2 → 3"]
        assert said("config.loaded")[2]["changes"] == ["dispatch.tls: opportunistic → none"]
        os.kill(gateway.pid, signal.SIGHUP)
        eventually(lambda: len(said("config.loaded")) == 6)
        assert [line["changes"] for line in said("config.loaded")[3:]] == [[], [], []]
        # One line a change, whatever the number of processes; and all of them live.
        assert len(said("config.refused")) == 1
        assert len(said("process.started")) == 5
        os.kill(gateway.said["pids"]["dispatch-1"], signal.SIGKILL)
        eventually(lambda: len(said("process.started")) == 6)
        assert gateway.stop() == Exit.OK


async def test_children_are_told_what_changed_and_later_ones_begin_with_it(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    script = (
        f"import sys\nfor line in sys.stdin:\n    with open({str(heard)!r}, 'a') as file: file.write(line)"
    )
    children = Children(script)
    running = asyncio.create_task(children.supervisor.run())
    tuned = Tuning(Config(dispatch=DispatchConfig(workers=7)))
    async with asyncio.timeout(10):
        while not heard.exists():
            await asyncio.sleep(0.02)
        children.supervisor.retune(tuned)
        while '"workers":7' not in heard.read_text():
            await asyncio.sleep(0.02)
        [pid] = children.supervisor.pids().values()
        children.supervisor.mark_ready()
        os.kill(pid, signal.SIGKILL)
        while heard.read_text().count('"workers":7') < 2:
            await asyncio.sleep(0.02)
    children.supervisor.stop()
    assert await running == Exit.OK


class Children:
    """A supervisor over members that run a line of Python each."""

    def __init__(self, script: str, *, grace_s: float = 5.0) -> None:
        brief = Brief(Role.LISTEN, "", Tuning(Config()))
        self.supervisor = Supervisor(
            {Member(Role.LISTEN): brief},
            SystemClock(),
            grace_s=grace_s,
            command=(sys.executable, "-c", script),
        )


async def test_a_wrong_configuration_ends_it_at_once_before_it_was_ready() -> None:
    children = Children("raise SystemExit(78)")
    async with asyncio.timeout(10):
        assert await children.supervisor.run() == Exit.CONFIG
    assert children.supervisor.failure.startswith("listen ended with exit code 78 before")


async def test_three_deaths_end_it_before_it_was_ready() -> None:
    children = Children("raise SystemExit(3)")
    async with asyncio.timeout(10):
        assert await children.supervisor.run() == Exit.FAILED
    assert "exit code 3 3 times" in children.supervisor.failure


async def test_once_ready_it_goes_on_trying(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    children = Children(f"open({str(lives)!r}, 'a').write('x'); raise SystemExit(78)")
    children.supervisor.mark_ready()
    running = asyncio.create_task(children.supervisor.run())
    async with asyncio.timeout(10):
        while not lives.exists() or len(lives.read_text()) < 3:
            await asyncio.sleep(0.02)
    children.supervisor.stop()
    assert await running == Exit.OK


async def test_a_child_that_does_not_end_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"import signal,time; signal.signal(15, signal.SIG_IGN); open({str(told)!r}, 'w').close(); time.sleep(60)"
    children = Children(script, grace_s=0.2)
    running = asyncio.create_task(children.supervisor.run())
    async with asyncio.timeout(10):
        while not told.exists():
            await asyncio.sleep(0.02)
        children.supervisor.stop()
        assert await running == Exit.OK
