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
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.store.postgres_binaries import ENVIRONMENT, EmbeddedPostgresError, find_bin_dir, find_launcher
from gateway.store.postgres_data import (
    DATABASE,
    SUPERUSER,
    initialise,
    is_initialised,
    make_private,
    read_pid_file,
    refuse_if_in_use,
)

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
    # While somebody holds an old snapshot, each pass looks at all that is dead and removes none of it: at 10 s that was 8 % of all.
    "autovacuum_naptime": "30s",
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
        if not is_initialised(self.data_dir):
            initialise(self.data_dir, bin_dir, launcher)
        refuse_if_in_use(self.data_dir, self.socket_dir / f".s.PGSQL.{_PORT}.lock")
        make_private(self.socket_dir, launcher)
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
            log_start = log.tell()  # asked before: it moves our place in the file
            # A session of its own: Ctrl-C in a terminal is for the gateway, which stops its server last.
            self._process = subprocess.Popen(
                command,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
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
            lines = read_pid_file(self.data_dir)
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
