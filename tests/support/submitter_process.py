"""An app that submits without end, as a process of its own: to be killed in the middle.

After each commit it appends the first id and the number of the deliveries to a file: what the app was told is accepted.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import uvloop

from gateway.store.pool import connect
from tests.support.accept import accept

_PR_SET_PDEATHSIG = 1


def spawn(dsn: str, site_id: int, message_id: int, batch: int, told: Path) -> BaseProcess:
    """Start an app that submits `batch` deliveries at a time and notes in the file `told` what was acknowledged to it."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_run, args=(dsn, site_id, message_id, batch, told), daemon=True)
    process.start()
    return process


def acknowledged(told: Path) -> list[int]:
    """Ids of the deliveries that the app was told are accepted."""
    lines = told.read_text().splitlines(keepends=True) if told.exists() else []
    pairs = [line.split() for line in lines if line.endswith("\n")]
    return [int(first) + place for first, count in pairs for place in range(int(count))]


def _run(dsn: str, site_id: int, message_id: int, batch: int, told: Path) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_submit(dsn, site_id, message_id, batch, told))


async def _submit(dsn: str, site_id: int, message_id: int, batch: int, told: Path) -> None:
    file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    connection = await connect(dsn, application_name="submitter")
    number = 0
    while True:
        recipients = [f"u{number + i}@d{(number + i) % 10}.test" for i in range(batch)]
        ids, flows = await accept(connection, site_id, message_id, 1, recipients)
        os.write(file, b"%d %d\n" % (ids[0], len(ids)))
        await connection.execute("SELECT wake($1, $2)", list(flows), list(flows.values()))
        number += batch
