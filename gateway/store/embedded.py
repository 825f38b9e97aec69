"""A Postgres server of our own, for the default run and for tests, on a Unix socket only.

Owns the life of one server process: make the data directory, start, wait until it answers, stop. Must not know tables,
roles or migrations. A DSN in the configuration takes this module's place in production.

Flow: `start()` → initdb into a folder beside the data directory, renamed when complete (a crash in between leaves nothing
half made) → postgres with every setting on its command line → ready, by the word in `postmaster.pid` → the DSN.

Nothing listens on TCP. The socket stands in a folder that only we can enter, whose path is short, since a socket's path is
limited to 107 bytes (103 on macOS), and always the same for one data directory, so that the DSN is too.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.store.postgres_binaries import (
    ENVIRONMENT,
    EmbeddedPostgresError,
    Launcher,
    find_bin_dir,
    find_launcher,
)

SUPERUSER = "gateway"
DATABASE = "gateway"
MAJOR_VERSION = "18"

DEFAULT_SETTINGS: Mapping[str, str] = {
    "shared_buffers": "256MB",
    "max_connections": "200",
    "jit": "off",  # compiling a plan costs more than any query of the queue
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",  # no replicas and no archive: those are a production server's
    "max_wal_senders": "0",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # The queue's rows live for seconds: dead ones must go before the next claim has to step over them.
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_vacuum_cost_limit": "2000",
    "TimeZone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}
"""Settings of a server that keeps mail: durable, and tuned for a queue. `settings` are laid over them."""

_PORT = 5432  # names the socket file; nothing listens on TCP
_LOG_LIMIT_BYTES = 8 * 1024 * 1024
_POLL_S = 0.01
_STOP_TIMEOUT_S = 30.0


class EmbeddedPostgres:
    """One server process on one data directory.

    Use it as a context manager (`with` or `async with`), or call `start` and `stop`. A server that was killed is started
    again by a new object on the same directory; Postgres then recovers from its log.

    The server shuts down when the *thread* that started it ends (on Linux): start it from the main thread.
    """

    def __init__(
        self, data_dir: Path, *, settings: Mapping[str, str] | None = None, start_timeout_s: float = 120.0
    ) -> None:
        """Remember where and how; nothing is touched before `start`.

        Args:
            data_dir: made when missing; may be a long path, and may have spaces.
            settings: Postgres settings by name, over `DEFAULT_SETTINGS`.
            start_timeout_s: how long recovery after a crash may take.
        """
        self.data_dir = data_dir.resolve()
        self.log_path = self.data_dir / "gateway-postgres.log"
        # One folder per data directory and user; the digest keeps it short.
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
        self.socket_dir = Path(f"/tmp/gateway-pg-{os.getuid()}-{digest}")  # noqa: S108 (0700 and checked)
        self.dsn = f"postgresql://{SUPERUSER}@/{DATABASE}?host={self.socket_dir}&port={_PORT}"
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running server, or None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> str:
        """Start the server, making its data directory first where there is none, and return the DSN.

        Blocks for 0.1 to 2 s, longer when Postgres has to recover from a crash.

        Raises:
            EmbeddedPostgresError: no binaries, no way to run as root, a directory that is in use, not ours or of another
                Postgres version, or a server that does not come up; the message carries the end of its log.
        """
        if self.pid is not None:
            raise EmbeddedPostgresError(f"this Postgres is already running with pid {self.pid}")
        bin_dir = find_bin_dir()
        launcher = find_launcher(bin_dir / "postgres", self.data_dir)
        if not _is_initialised(self.data_dir):
            _initialise(self.data_dir, bin_dir, launcher)
        _refuse_if_in_use(self.data_dir, self.socket_dir / f".s.PGSQL.{_PORT}.lock")
        _make_private(self.socket_dir, launcher)
        settings = self._settings | {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
        }
        command = [*launcher.prefix, str(bin_dir / "postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal is for the gateway, which stops its server last.
            self._process = subprocess.Popen(
                command,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            log_start = log.tell()
        try:
            self._wait_until_ready(log_start)
        except BaseException:
            self.stop()
            raise
        return self.dsn

    def stop(self) -> None:
        """Shut the server down: sessions are ended, a checkpoint is written. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, last resort
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(how)
            try:
                process.wait(_STOP_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        with contextlib.suppress(OSError):
            self.socket_dir.rmdir()

    def _wait_until_ready(self, log_start: int) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise EmbeddedPostgresError(
                    f"Postgres on {self.data_dir} ended with {process.returncode}: {self._log_since(log_start)}"
                )
            # Line 8 of postmaster.pid is the server's state (src/include/utils/pidfile.h).
            lines = _pid_file(self.data_dir)
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7] == "ready":
                return
            time.sleep(_POLL_S)
        raise EmbeddedPostgresError(
            f"Postgres on {self.data_dir} was not ready after {self._start_timeout_s:g} s: {self._log_since(log_start)}"
        )

    def _log_since(self, start: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace").strip()[-2000:] or "it logged nothing"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        # Not in a worker thread, although it blocks: the kernel ties the server's life to the thread that started it.
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


def _is_initialised(data_dir: Path) -> bool:
    """Whether there is a data directory of our Postgres version.

    Raises:
        EmbeddedPostgresError: there is one of another version, or a folder with something else in it.
    """
    version_file = data_dir / "PG_VERSION"
    if version_file.exists():
        version = version_file.read_text().strip()
        if version != MAJOR_VERSION:
            raise EmbeddedPostgresError(
                f"{data_dir} was made by Postgres {version}, this is {MAJOR_VERSION}: "
                "dump it with the old version and load it into a new directory, or use pg_upgrade"
            )
        return True
    if data_dir.exists() and any(data_dir.iterdir()):
        raise EmbeddedPostgresError(
            f"{data_dir} is not empty and not a Postgres data directory: name another one"
        )
    return False


def _initialise(data_dir: Path, bin_dir: Path, launcher: Launcher) -> None:
    """Make `data_dir`, with the role and the database `gateway`, whole or not at all."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{data_dir.name[:40]}.new-"
    for left in data_dir.parent.glob(f"{prefix}[0-9]*"):  # by a process that was killed here
        if not _exists(int(left.name.removeprefix(prefix))):
            shutil.rmtree(left, ignore_errors=True)
    draft = data_dir.with_name(f"{prefix}{os.getpid()}")
    try:
        _make_private(draft, launcher)
        _run(
            [
                *launcher.prefix, str(bin_dir / "initdb"), "--pgdata", str(draft), "--username", SUPERUSER,
                "--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C",
                "--auth", "trust", "--no-instructions",
            ]
        )  # fmt: skip
        single = [*launcher.prefix, str(bin_dir / "postgres"), "--single", "-j", "-D", str(draft), "postgres"]
        _run(single, stdin=f"CREATE DATABASE {DATABASE};\n")
        draft.rename(data_dir)  # takes the place of an empty folder, refuses any other
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _run(command: list[str], *, stdin: str = "") -> None:
    done = subprocess.run(command, env=ENVIRONMENT, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise EmbeddedPostgresError(f"cannot make a Postgres data directory: {said}")


def _make_private(folder: Path, launcher: Launcher) -> None:
    """Make `folder` with mode 0700, or check that it is ours alone: /tmp is open to everybody."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if launcher.owner is not None:
            os.chown(folder, *launcher.owner)
    found = folder.lstat()
    wanted_owner = launcher.owner[0] if launcher.owner is not None else os.getuid()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != wanted_owner or stat.S_IMODE(found.st_mode) & 0o077:
        raise EmbeddedPostgresError(
            f"{folder} is not a private folder (0700) of user id {wanted_owner}: remove it and start again"
        )


def _refuse_if_in_use(data_dir: Path, socket_lock: Path) -> None:
    """Refuse a data directory with a living server; clear away the locks that a dead one left.

    Postgres checks this too, but only by whether *some* process has the id in its lock files: after a kill or a reboot that
    may be a stranger, or a dead child that nobody waited for. Where there is no /proc, its own check has to do.

    Raises:
        EmbeddedPostgresError: a server works there, or the sessions of a killed one do not end.
    """
    lines = _pid_file(data_dir)
    if not Path("/proc/self/cwd").exists():
        return
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    # Without their server the sessions end by themselves, but until then they may still write to the data.
    while working := _postgres_in(data_dir):
        if lines and lines[0] in map(str, working):
            raise EmbeddedPostgresError(
                f"{data_dir} is in use by the Postgres with pid {lines[0]}: "
                "stop the gateway that started it, or name another folder"
            )
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"{data_dir}: sessions of a killed Postgres are still at work (pids {working}): end them first"
            )
        time.sleep(_POLL_S)
    if lines and lines[0].isdigit() and _exists(int(lines[0])):
        (data_dir / "postmaster.pid").unlink(missing_ok=True)
    socket_lock.unlink(missing_ok=True)


def _postgres_in(data_dir: Path) -> list[int]:
    """Ids of the Postgres processes whose working directory is `data_dir`, as that of a server and its sessions is."""
    found: list[int] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if (process / "cwd").readlink() == data_dir and "postgres" in (process / "comm").read_text():
                    found.append(int(process.name))
    return found


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _pid_file(data_dir: Path) -> list[str]:
    try:
        return [line.strip() for line in (data_dir / "postmaster.pid").read_text().splitlines()]
    except OSError:
        return []
