"""The data directory of the embedded Postgres: made whole, or not at all, and used by one server at a time.

Owns what is true of the folder while no server of ours runs on it: whether it is ours, how it comes about, who is in it. Must
not know settings or connections.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

from gateway.store.postgres_binaries import ENVIRONMENT, EmbeddedPostgresError, Launcher

SUPERUSER = "gateway"
DATABASE = "gateway"
MAJOR_VERSION = "18"

_POLL_S = 0.01
_LEAVE_TIMEOUT_S = 30.0  # for the sessions of a killed server to notice


def is_initialised(data_dir: Path) -> bool:
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


def initialise(data_dir: Path, bin_dir: Path, launcher: Launcher) -> None:
    """Make `data_dir`, with the role and the database `gateway`, whole or not at all.

    Raises:
        EmbeddedPostgresError: a program of Postgres failed, with what it said.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{data_dir.name[:40]}.new-"
    for left in data_dir.parent.glob(f"{prefix}[0-9]*"):  # by a process that was killed here
        if not _exists(int(left.name.removeprefix(prefix))):
            shutil.rmtree(left, ignore_errors=True)
    draft = data_dir.with_name(f"{prefix}{os.getpid()}")
    try:
        make_private(draft, launcher)
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


def make_private(folder: Path, launcher: Launcher) -> None:
    """Make `folder` with mode 0700, or check that it is ours alone: /tmp is open to everybody.

    Raises:
        EmbeddedPostgresError: others may enter it, or it is somebody else's.
    """
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


def refuse_if_in_use(data_dir: Path, socket_lock: Path) -> None:
    """Refuse a data directory with a living server; clear away the locks that a dead one left.

    Postgres checks this too, but only by whether *some* process has the id in its lock files: after a kill or a reboot that
    may be a stranger, or a dead child that nobody waited for. Where there is no /proc, its own check has to do.

    Raises:
        EmbeddedPostgresError: a server works there, or the sessions of a killed one do not end.
    """
    lines = read_pid_file(data_dir)
    if not Path("/proc/self/cwd").exists():
        return
    deadline = time.monotonic() + _LEAVE_TIMEOUT_S
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


def read_pid_file(data_dir: Path) -> list[str]:
    """The lines of `postmaster.pid`, stripped; none where there is no such file."""
    try:
        return [line.strip() for line in (data_dir / "postmaster.pid").read_text().splitlines()]
    except OSError:
        return []
