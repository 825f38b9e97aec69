"""Postfix, with or without OpenDKIM, as a relay of a benchmark's own: started, asked, ended.

Owns their processes; what they are told is in `postfix_config`. Postfix runs as an instance of its own: queue, data,
configuration and log in a temporary folder, one listener on loopback, everything relayed to one receiver, no local delivery,
no chroot, no DNS. What the machine's own Postfix does is not touched. Must not know what is measured.

Master and OpenDKIM are children of this process in groups of their own, and end with it, however it ends.
Postfix starts as root alone (master(8)); OpenDKIM runs as its package's user.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from bench import cpu
from bench.load.postfix_config import Signing, main_cf, master_cf, opendkim_conf
from bench.options import CannotMeasure

PACKAGES: Final = {
    "postfix": "postfix",
    "postconf": "postfix",
    "opendkim": "opendkim",
    "setpriv": "util-linux",
}
"""Which Debian package brings which program."""
POSTFIX_USER: Final = "postfix"
OPENDKIM_USER: Final = "opendkim"

# Ends a process group when our end of its pipe is closed, by us or by a kill. A death signal (PR_SET_PDEATHSIG) does not
# serve: the kernel forgets it when a process changes its user, as master does for a moment.
_GUARD: Final = 'read -r _; kill -s KILL -- "-$1"'

_START_S: Final = 30.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.05


class Programs(msgspec.Struct, frozen=True):
    """Where the programs are."""

    postfix: str
    postconf: str
    opendkim: str
    setpriv: str


def find_programs(path: str | None = None) -> Programs:
    """Find Postfix and OpenDKIM on `path` (default: PATH and the folders of root).

    Raises:
        CannotMeasure: one is missing, or this user may not start Postfix.
    """
    if path is None:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=path) for name in PACKAGES}
    missing = [name for name, where in found.items() if not where]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[name] for name in missing))
        raise CannotMeasure(
            f"{', '.join(missing)} not found; on Debian: apt-get install --no-install-recommends {packages}"
        )
    if os.geteuid() != 0:
        raise CannotMeasure("Postfix's master starts as root alone; run this as root")
    for user in (POSTFIX_USER, OPENDKIM_USER):
        try:
            pwd.getpwnam(user)
        except KeyError:
            raise CannotMeasure(f"there is no user {user}; on Debian the package {user} makes it") from None
    return Programs(**{name: where or "" for name, where in found.items()})


class Relay:
    """A running relay: where it listens, what it used, and whether it has mail left."""

    def __init__(self, folder: Path, port: int, master: asyncio.subprocess.Process,
                 milter: asyncio.subprocess.Process | None) -> None:  # fmt: skip
        self.port = port
        self._folder = folder
        self._processes = (master, milter) if milter else (master,)

    @property
    def groups(self) -> tuple[int, ...]:
        """Its process groups: the pid of Postfix's master, and of OpenDKIM where it runs."""
        return tuple(process.pid for process in self._processes)

    def usage(self) -> cpu.TreeUsage:
        """What all of its processes used so far, the ended ones included."""
        groups = [cpu.tree_usage(pid) for pid in self.groups]
        by_program = {name: used for group in groups for name, used in group.by_program_s.items()}
        return cpu.TreeUsage(sum(g.total_s for g in groups), sum(g.kernel_s for g in groups), by_program)

    async def is_empty(self) -> bool:
        """Whether no mail is left in its queue. Raises RuntimeError when it put one off, or does not run any more."""
        for process in self._processes:
            if process.returncode is not None:
                raise RuntimeError(f"a relay's process ended with {process.returncode}: {self.log_end()}")
        queue = self._folder / "queue"
        if any(_has_entries(queue / name) for name in ("incoming", "active")):  # in the order of their way
            return False
        if any(files for _, _, files in os.walk(queue / "deferred")):
            raise RuntimeError(f"Postfix put mail off: {self.log_end()}")
        return True

    def log_end(self) -> str:
        """The end of what the programs logged."""
        files = (self._folder / "mail.log", self._folder / "master.out", self._folder / "opendkim.out")
        return "".join(f.read_text("utf-8", "replace")[-2000:] for f in files if f.exists())


@asynccontextmanager
async def relay(programs: Programs, receiver: int, signing: Signing | None) -> AsyncGenerator[Relay]:
    """Run Postfix as a relay to a port on loopback, behind OpenDKIM where there is something to sign with.

    Raises:
        RuntimeError: one of them did not start; with what it said.
    """
    async with AsyncExitStack() as stack:
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="postfix-bench-", ignore_cleanup_errors=True)
        )
        folder, port = Path(name), _free_port()
        folder.chmod(0o711)  # Postfix's processes and OpenDKIM have users of their own
        milter = socket_path = None
        if signing:
            socket_path = folder / "milter" / "socket"
            milter = await stack.enter_async_context(_opendkim(programs, folder, socket_path, signing))
        config = folder / "config"
        config.mkdir()
        (config / "main.cf").write_text(main_cf(folder, receiver, socket_path), encoding="utf-8")
        (config / "master.cf").write_text(master_cf(port), encoding="utf-8")
        for inner in ("queue", "data"):
            (folder / inner).mkdir()
        shutil.chown(folder / "data", POSTFIX_USER)
        # Makes what is missing in the queue's folder.
        await _said([programs.postfix, "-c", str(config), "check"])
        daemons = await _said([programs.postconf, "-c", str(config), "-h", "daemon_directory"])
        words = [f"{daemons.strip()}/master", "-c", str(config)]
        master = await stack.enter_async_context(_program(programs, words, folder / "master.out"))
        running = Relay(folder, port, master, milter)
        await _greets(running)
        yield running


@asynccontextmanager
async def _opendkim(programs: Programs, folder: Path, listen: Path, signing: Signing
                    ) -> AsyncGenerator[asyncio.subprocess.Process]:  # fmt: skip
    user, group = pwd.getpwnam(OPENDKIM_USER), pwd.getpwnam(POSTFIX_USER).pw_gid
    key, config = folder / "key.pem", folder / "opendkim.conf"
    key.touch(0o600)
    key.write_bytes(signing.private_key_pem)
    os.chown(key, user.pw_uid, user.pw_gid)
    listen.parent.mkdir(mode=0o750)
    os.chown(listen.parent, user.pw_uid, group)
    config.write_text(opendkim_conf(folder, listen, signing), encoding="utf-8")
    # Postfix's group, so that the socket is open to Postfix and to nobody else.
    who = (f"--reuid={user.pw_uid}", f"--regid={group}", "--clear-groups")
    log = folder / "opendkim.out"
    words = [programs.opendkim, "-f", "-x", str(config)]
    # libmilter looks every 5 s whether it should end; OpenDKIM holds nothing that a kill could lose.
    async with _program(programs, words, log, who, end_by=signal.SIGKILL) as process:
        deadline = time.monotonic() + _START_S
        while not listen.exists():
            if process.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"OpenDKIM did not start: {log.read_text('utf-8', 'replace')[-2000:]}")
            await asyncio.sleep(_POLL_S)
        yield process


@asynccontextmanager
async def _program(
    programs: Programs,
    words: Sequence[str],
    log: Path,
    who: Sequence[str] = (),
    end_by: signal.Signals = signal.SIGTERM,
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a program at the head of a process group of its own; all of the group ends with the context."""
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            programs.setpriv, *who, "--", *words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )  # fmt: skip
    guard = None
    try:
        guard = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _GUARD, "sh", str(process.pid), stdin=subprocess.PIPE, start_new_session=True
        )
        yield process
    finally:
        try:
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                process.send_signal(end_by)  # master passes SIGTERM on to its group
                await asyncio.wait_for(process.wait(), _STOP_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whoever of the group is still there
            if guard:
                guard.kill()
                await guard.wait()
            await process.wait()


async def _said(words: Sequence[str]) -> str:
    """Run a short command; what it wrote. Raises RuntimeError with that when it fails."""
    process = await asyncio.create_subprocess_exec(
        *words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = (await process.communicate())[0].decode("utf-8", "replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {text.strip()}")
    return text


async def _greets(running: Relay) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        await running.is_empty()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Postfix does not listen: {running.log_end()}") from None
            await asyncio.sleep(_POLL_S)
            continue
        try:
            line = await asyncio.wait_for(reader.readline(), _START_S)
        finally:
            writer.close()
        if not line.startswith(b"220 "):
            raise RuntimeError(f"Postfix greets with {line!r}: {running.log_end()}")
        return


def _has_entries(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
