"""The data directory of a running gateway: who has it, and where its Postgres is.

Owns `run.lock` (held as long as the supervisor lives, however it ends) and `run.json` (what the command line needs to find
a running gateway). The file may outlive the process; only the lock says whether it does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.errors import GatewayError


class InUse(GatewayError):
    """Another gateway works on this data directory."""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` says.

    Attributes:
        pid: of the supervisor.
        dsn: of the gateway's own Postgres; empty when it uses another, whose DSN only the configuration tells.
        api: where the control API answers; empty without that role.
    """

    pid: int
    dsn: str = ""
    api: str = ""
    started_at: datetime = datetime.fromtimestamp(0, UTC)


@contextlib.contextmanager
def claimed(data_dir: Path) -> Generator[None]:
    """Hold the data directory (made when missing) for this process.

    Raises:
        InUse: another process holds it; the message names it.
        GatewayError: the directory cannot be made or written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        fd = os.open(data_dir / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise GatewayError(
            f"{data_dir}: cannot be used as data directory: {error.strerror}; set database.data_dir"
        ) from error
    try:
        if not _lock(fd):
            state = _read(data_dir)
            who = f"the gateway with pid {state.pid}" if state else "another gateway"
            raise InUse(f"{data_dir} is in use by {who}: stop it, or set another database.data_dir")
        yield
    finally:
        os.close(fd)


def write_state(data_dir: Path, state: RunState) -> None:
    """Put `run.json` in place, whole."""
    draft = data_dir / f"run.json.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(state) + b"\n")
    draft.replace(data_dir / "run.json")


def remove_state(data_dir: Path) -> None:
    """Take `run.json` away."""
    (data_dir / "run.json").unlink(missing_ok=True)


def read_running(data_dir: Path) -> RunState | None:
    """The state of the gateway that works on this directory, or None when none does."""
    try:
        fd = os.open(data_dir / "run.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(data_dir)
    finally:
        os.close(fd)
    return None


def _lock(fd: int) -> bool:
    """Lock for ourselves; a second try, for `read_running` takes the lock for a moment to see whether it is free."""
    for patience_s in (0.1, 0.0):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(patience_s)
        else:
            return True
    return False


def _read(data_dir: Path) -> RunState | None:
    try:
        return msgspec.json.decode((data_dir / "run.json").read_bytes(), type=RunState)
    except (OSError, msgspec.DecodeError):
        return None
