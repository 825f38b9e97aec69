"""A Postgres of a scenario's own, which can be killed, copied and set back. The fixture is `own_server` in scenarios/conftest."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from gateway.store.embedded import EmbeddedPostgres
from tests.support.postgres import TEST_SETTINGS


class Server:
    """A server on `folder / "data"`. It blocks while it starts and stops, as the embedded server does."""

    def __init__(self, folder: Path) -> None:
        self._data, self._backup = folder / "data", folder / "backup"
        self._running = EmbeddedPostgres(self._data, settings=TEST_SETTINGS)
        self.dsn = self._running.dsn

    def start(self) -> None:
        """Start it, making its data where there are none."""
        self._running.start()

    def stop(self) -> None:
        """Stop it as a maintenance does: sessions are ended, nothing is lost."""
        self._running.stop()

    def crash(self) -> None:
        """Kill it with SIGKILL, as the kernel does when memory runs out, and start it again."""
        assert self._running.pid is not None
        os.kill(self._running.pid, signal.SIGKILL)
        self._running.stop()
        self.start()

    def back_up(self) -> None:
        """Stop it, take a copy of its data, start it again."""
        self.stop()
        subprocess.run(["cp", "-a", self._data, self._backup], check=True)
        self.start()

    def restore(self) -> None:
        """Put the copy in place of the data."""
        self.stop()
        shutil.rmtree(self._data)
        self._backup.rename(self._data)
        self.start()
