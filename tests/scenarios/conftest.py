"""What scenarios share beside the fixtures of the whole run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.store.migrate import migrate
from gateway.store.pool import connect
from tests.support.server import Server


@pytest.fixture
async def own_server() -> AsyncIterator[Server]:
    """A migrated Postgres of the scenario's own, to be killed, stopped or set back."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-scenario-"))
    folder.chmod(0o711)  # Postgres may run as another user than the tests
    server = Server(folder)
    server.start()
    try:
        connection = await connect(server.dsn)
        await migrate(connection)
        await connection.close()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
