"""The embedded Postgres on this machine's real binaries: made, used, killed, started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.store import embedded, postgres_binaries
from gateway.store.embedded import EmbeddedPostgres, EmbeddedPostgresError
from gateway.store.pool import connect

LINUX = sys.platform == "linux"
SETTINGS = {"shared_buffers": "16MB", "max_connections": "20", "min_wal_size": "32MB", "fsync": "off"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that `nobody` may pass through too (pytest's own are closed to others)."""
    made = Path(tempfile.mkdtemp(prefix="gateway-test-embedded-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


async def test_keeps_its_data_over_stop_and_start(folder: Path) -> None:
    path = folder / "a path with spaces, 'quotes' and ümlauts" / ("long" * 40) / "data"
    async with EmbeddedPostgres(path, settings=SETTINGS) as first:
        connection = await connect(first.dsn)
        await connection.execute("CREATE TABLE kept (word text); INSERT INTO kept VALUES ('äß')")
        assert (
            await connection.fetchval("SELECT current_user || ' ' || current_database()") == "gateway gateway"
        )
        assert await connection.fetchval("SELECT upper(word) FROM kept") == "Äß"
        assert await connection.fetchval("SHOW shared_buffers") == "16MB"
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE client_port > 0") == 0
        await connection.close()
    assert first.pid is None
    assert not first.socket_dir.exists()
    with EmbeddedPostgres(path, settings=SETTINGS) as second:
        assert second.dsn == first.dsn
        connection = await connect(second.dsn)
        assert await connection.fetchval("SELECT word FROM kept") == "äß"
        await connection.close()


async def test_comes_back_after_kill_9(folder: Path) -> None:
    killed = EmbeddedPostgres(folder / "data", settings=SETTINGS)
    connection = await connect(killed.start())
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    assert killed.pid
    os.kill(killed.pid, signal.SIGKILL)
    with EmbeddedPostgres(folder / "data", settings=SETTINGS) as again:
        connection = await connect(again.dsn)
        assert await connection.fetchval("SELECT number FROM kept") == 7
        await connection.close()
    killed.stop()


def test_refuses_a_directory_in_use_and_names_the_pid(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings=SETTINGS) as first:
        with pytest.raises(EmbeddedPostgresError, match=f"in use by the Postgres with pid {first.pid}"):
            EmbeddedPostgres(folder / "data", settings=SETTINGS).start()
        assert first.pid is not None


@pytest.mark.skipif(not LINUX, reason="needs /proc to know a stranger")
def test_a_stranger_with_the_old_pid_is_no_server(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings=SETTINGS):
        pass
    (folder / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{folder / 'data'}\n")
    with EmbeddedPostgres(folder / "data", settings=SETTINGS) as again:
        assert again.pid


@pytest.mark.skipif(not LINUX, reason="the kernel ends a child with its parent on Linux only")
def test_ends_with_its_parent_even_when_that_is_killed(folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from gateway.store.embedded import EmbeddedPostgres;"
        f"server = EmbeddedPostgres(Path(sys.argv[1]), settings={SETTINGS}); server.start();"
        "print(server.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "data")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_alive(pid)
    EmbeddedPostgres(folder / "data").socket_dir.rmdir()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_start_that_died_half_way_is_no_obstacle(folder: Path) -> None:
    left = folder / ".data.new-4999999"  # what a killed initdb leaves; no process has so high an id
    left.mkdir()
    (folder / "data").mkdir(mode=0o700)
    with EmbeddedPostgres(folder / "data", settings=SETTINGS) as server:
        assert server.pid
        assert not left.exists()


def test_refuses_a_folder_with_something_else_in_it(folder: Path) -> None:
    (folder / "letters.txt").write_text("mine")
    with pytest.raises(EmbeddedPostgresError, match="is not empty and not a Postgres data directory"):
        EmbeddedPostgres(folder).start()
    assert [path.name for path in folder.iterdir()] == ["letters.txt"]


def test_refuses_the_data_of_another_major_version(folder: Path) -> None:
    (folder / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedPostgresError, match="made by Postgres 15, this is 18"):
        EmbeddedPostgres(folder).start()


def test_a_wrong_setting_is_reported_in_the_servers_words(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match='invalid value for parameter "shared_buffers"'):
        EmbeddedPostgres(folder / "data", settings={"shared_buffers": "a lot"}).start()


def test_what_a_server_says_is_kept_though_it_is_gone_before_we_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = embedded.subprocess.Popen

    def start_and_lose_the_processor(*args: Any, **options: Any) -> Any:
        process = start(*args, **options)
        process.wait()
        return process

    server = EmbeddedPostgres(folder / "data", settings={"shared_buffers": "a lot"})
    with EmbeddedPostgres(folder / "data", settings=SETTINGS):
        pass
    monkeypatch.setattr(embedded.subprocess, "Popen", start_and_lose_the_processor)
    with pytest.raises(EmbeddedPostgresError, match='invalid value for parameter "shared_buffers"'):
        server.start()


def test_refuses_a_socket_folder_that_others_may_enter(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "data", settings=SETTINGS)
    server.socket_dir.mkdir(mode=0o755)
    try:
        with pytest.raises(EmbeddedPostgresError, match="not a private folder"):
            server.start()
    finally:
        server.socket_dir.rmdir()


@pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="only root needs another user")
async def test_root_without_user_namespaces_runs_it_as_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.which
    monkeypatch.setattr(
        postgres_binaries.shutil, "which", lambda name: None if name == "unshare" else found(name)
    )
    with EmbeddedPostgres(folder / "data", settings=SETTINGS) as server:
        connection = await connect(server.dsn)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        assert (folder / "data").owner() == "nobody"
    monkeypatch.undo()
    with EmbeddedPostgres(folder / "data", settings=SETTINGS):  # keeps to nobody where namespaces work again
        assert (folder / "data").owner() == "nobody"


@pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="only root needs another user")
def test_root_without_any_way_is_told_what_would_help(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_binaries.shutil, "which", lambda _name: None)
    with pytest.raises(EmbeddedPostgresError, match="Run the gateway as an ordinary user"):
        EmbeddedPostgres(folder / "data", settings=SETTINGS).start()


async def test_a_stopped_server_is_an_outage_in_our_words(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings=SETTINGS) as server:
        pass
    with pytest.raises(StoreUnavailable, match="no Postgres answers at gateway@/tmp/gateway-pg-"):
        await connect(server.dsn)
