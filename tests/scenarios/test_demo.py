"""The demo tells the truth: it succeeds when sender and receiver agree, and notices a single message that does not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from demo.processes import ROOT
from gateway.store.embedded import EmbeddedPostgres

pytestmark = pytest.mark.slow

SMALL = ("--messages", "400", "--domains", "20")


def start(*options: str, tmp: Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "demo", *SMALL, *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it said, once it has ended."""
    return process.communicate(timeout=120)[0]


def alive_in(folder: Path) -> list[str]:
    """Processes with a file of this folder on their command line."""
    found: list[str] = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(folder) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(words)
    return found


def test_every_message_is_accounted_for_and_nothing_is_left_also_with_two_at_a_time(tmp_path: Path) -> None:
    both = [start(tmp=tmp_path) for _ in range(2)]
    for process in both:
        said = finish(process)
        assert process.returncode == 0, said
        assert "400 contacts imported, 6 rows refused" in said
        assert "books balance" in said
        assert "id by id: 400 accepted, each in exactly one state" in said
    assert not list(tmp_path.iterdir())
    assert not alive_in(tmp_path)


def test_one_message_that_the_receiver_hides_is_named(tmp_path: Path) -> None:
    process = start("--hide", tmp=tmp_path)
    said = finish(process)
    assert process.returncode == 1, said
    assert "1 lost: booked as delivered, never taken by the sink" in said
    assert re.search(r"\d+ is dlv_[0-9a-z]{13} to [a-z]+\.[a-z]+\d+@mail\d{3}\.example", said)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root can become another")
def test_works_as_a_plain_user(tmp_path: Path) -> None:
    prefix = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    process = start(tmp=tmp_path, prefix=prefix)
    said = finish(process)
    assert process.returncode == 0, said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_all_it_started_ends_with_it(tmp_path: Path, how: signal.Signals) -> None:
    prefix = (
        ("env", "--default-signal=INT") if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else ()
    )  # as in a shell's background
    process = start(tmp=tmp_path, prefix=prefix)
    assert process.stdout is not None
    for line in process.stdout:
        if "the gateway is ready" in line:
            break
    assert len(alive_in(tmp_path)) >= 3  # the sink, the supervisor, Postgres
    process.send_signal(how)
    finish(process)
    deadline = time.monotonic() + 30
    while left := alive_in(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    for folder in tmp_path.iterdir():  # after a SIGKILL nobody is left to tidy up
        shutil.rmtree(EmbeddedPostgres(folder / "data/postgres").socket_dir, ignore_errors=True)
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert not list(tmp_path.iterdir())
