"""How this node is: what its supervisor knows, and what each of its processes says of itself.

Owns the three answers that `probe` gives. One address a node, however many processes it has: a list of targets does not change with the
number of dispatchers. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from gateway import __version__
from gateway.app.exposition import join_pages
from gateway.app.presence import Presence
from gateway.app.report import ask
from gateway.app.supervisor import Supervisor
from gateway.store.migrate import read_migrations
from gateway.telemetry import NodeMetrics


def socket_path(folder: Path, name: str) -> Path:
    """Where the member of that name reports."""
    return folder / f"{name}.sock"


class Node:
    """The supervisor's view of the node."""

    def __init__(self, supervisor: Supervisor, presence: Presence, folder: Path) -> None:
        """Take what is looked at; `folder` holds the sockets of the members."""
        self._supervisor, self._presence, self._folder = supervisor, presence, folder
        self._metrics = NodeMetrics(CollectorRegistry())
        self._metrics.build.info({"version": __version__, "code": f"{read_migrations()[-1].number:04}"})

    async def metrics(self) -> str:
        """All metrics of the node, each with the label `process`."""
        reports = await self._reports()
        for name, report in reports.items():
            self._metrics.up.labels(name).set(report is not None)
            self._metrics.restarts.labels(name).set(self._supervisor.deaths[name])
        self._metrics.database_up.set(self._presence.connected)
        own = generate_latest(self._metrics.registry).decode()
        return join_pages([("", own), *((name, report) for name, report in reports.items() if report)])

    async def problems(self) -> list[str]:
        """Why it is not ready, in words; empty when it is."""
        if self._supervisor.stopping:
            return ["it is being stopped"]
        found = [] if self._presence.connected else ["Postgres is away"]
        pids = self._supervisor.pids()
        for name, report in (await self._reports()).items():
            if name not in pids:
                found.append(f"{name} does not run")
            elif report is None:
                found.append(f"{name} does not answer")
        return found

    async def _reports(self) -> dict[str, str | None]:
        names = self._supervisor.names
        said = await asyncio.gather(*(ask(socket_path(self._folder, name)) for name in names))
        return dict(zip(names, said, strict=True))
