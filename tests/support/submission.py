"""The SMTP door for tests, beside the control API and on the same database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path

import msgspec

from bench.load.certificate import write_pem
from gateway.config import SubmissionConfig
from gateway.submission.desk import Desk
from gateway.submission.door import open_door
from gateway.submission.lobby import Lobby
from tests.support.api import Client, World, open_world
from tests.support.peers import free_port
from tests.support.smtp_peer import Peer

CERTIFICATE_NAME = "localhost"
LETTER = (
    b"From: Ann <ann@acme.example>\r\nTo: bob@b.example\r\nBcc: secret@s.example\r\nSubject: hello\r\n"
    b"Message-ID: <1@acme.example>\r\n\r\n..dot\r\nHi.\r\n"
)
"""A message with its dots, as it goes over the wire."""


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


def letter() -> EmailMessage:
    """A message with all that needs encoding, and with dots."""
    message = EmailMessage()
    message["From"] = "Größe <ann@acme.example>"
    message["To"] = "bob@b.example, eve@e.example"
    message["Subject"] = "Grüße"
    message.set_content("Hällo.\n.\n..\n")
    message.add_alternative("<p>Hällo.</p>", subtype="html")
    return message


def key_of(client: Client) -> str:
    """The key of somebody who has one."""
    assert client.key is not None
    return client.key


def taken(reply: str) -> str:
    """The id that a 250 tells."""
    assert reply.startswith("250 2.0.0 queued as msg_"), reply
    return reply.removeprefix("250 2.0.0 queued as ").split(" ")[0]
