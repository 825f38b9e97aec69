"""The SMTP door for tests, beside the control API and on the same database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bench.load.certificate import write_pem
from gateway.config import SubmissionConfig
from gateway.submission.desk import Desk
from gateway.submission.door import open_door
from gateway.submission.lobby import Lobby
from tests.support.api import World, open_world
from tests.support.peers import free_port
from tests.support.smtp_peer import Peer

CERTIFICATE_NAME = "localhost"


class Door(msgspec.Struct):
    """An open door."""

    world: World
    lobby: Lobby
    section: SubmissionConfig

    async def peer(self, key: str | None = None) -> Peer:
        """Somebody at the door: over TLS and signed in, when there is a key."""
        peer = await Peer.connect(self.section.port)
        await peer.says("EHLO app.example")
        if key is not None:
            await peer.starts_tls()
            await peer.says("EHLO app.example")
            assert (await peer.signs_in(key)).startswith("235 2.7.0")
        return peer


def settings(folder: Path, *, tls: bool = True, **keys: object) -> SubmissionConfig:
    """A door on free ports, with a certificate of its own or without any."""
    found: dict[str, object] = {"port": free_port(), "require_tls": tls}
    if tls:
        file = write_pem(folder, CERTIFICATE_NAME)
        found |= {"tls_port": free_port(), "certificate_file": file, "key_file": file}
    return msgspec.convert(found | keys, SubmissionConfig)


@asynccontextmanager
async def submission(dsn: str, folder: Path, *, tls: bool = True, **keys: object) -> AsyncIterator[Door]:
    """A world with its SMTP door open; `keys` of the section `[submission]`."""
    section = settings(folder, tls=tls, **keys)
    async with open_world(dsn, folder, submission=section) as world:
        services = world.services
        desk = Desk(
            services.config, services.clock, services.pool, services.auth, services.senders, services.intake, services.waker,
            services.lanes, services.backlogs,
        )  # fmt: skip
        async with open_door(desk) as lobby:
            yield Door(world, lobby, section)
