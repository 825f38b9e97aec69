"""An app that speaks SMTP alone: its message goes through the door, the queue and a dispatcher, as it came, and signed by us.

And when Postgres is away, it is told to come again; what it sends then is taken once.
"""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path

import dkim
import msgspec
import pytest

from gateway.clock import SystemClock
from gateway.model.ids import PLACES, decode
from gateway.mta.keys import public_key_txt
from gateway.mta.mime import dot_stuff
from gateway.store import sites
from gateway.submission.desk import Desk, open_desk
from gateway.submission.door import open_door
from gateway.throttle.shaping import Shaping
from tests.support.fleet import SENDING_DOMAIN, Fleet, _rsa_key
from tests.support.overheard import overheard
from tests.support.server import Server
from tests.support.smtp_peer import Peer
from tests.support.submission import settings


class App:
    """An application that knows `smtplib` and no more."""

    def __init__(self, port: int, key: str, desk: Desk) -> None:
        self.port, self.key, self.desk = port, key, desk

    async def send(self, message: EmailMessage, *recipients: str) -> str:
        """Send; the reply to the final dot."""
        return await asyncio.to_thread(self._send, message, recipients)

    def _send(self, message: EmailMessage, recipients: tuple[str, ...]) -> str:
        with smtplib.SMTP("127.0.0.1", self.port, timeout=10) as smtp:
            smtp.starttls()
            smtp.login("apikey", self.key)
            smtp.mail("app@elsewhere.example")
            for recipient in recipients:
                smtp.rcpt(recipient)
            code, text = smtp.data(wire(message))
            return f"{code} {text.decode()}"


@asynccontextmanager
async def app_of(fleet: Fleet) -> AsyncIterator[App]:
    """The fleet's site, with a key, and the door open."""
    async with fleet.pool.acquire() as connection:
        _, key = await sites.issue_key(connection, fleet.site_id, "app", ["send"])
    fleet.configure("api", public_url="https://gateway.example")
    config = fleet.config("door")
    section = settings(fleet.directory)
    config = msgspec.structs.replace(config, submission=section)
    async with (
        open_desk(
            config,
            fleet.dsn,
            shaping=Shaping(default=fleet.limits),
            clock=SystemClock(),
            application_name="door",
        ) as desk,
        open_door(desk),
    ):
        yield App(section.port, key, desk)


def letter(number: int, **fields: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"Acme <hello@{SENDING_DOMAIN}>"
    message["To"] = "list@elsewhere.example"
    message["Subject"] = f"Grüße {number}"
    message["Message-ID"] = f"<{number}@{SENDING_DOMAIN}>"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content(f"Hällo {number}.\n.\n..dots\n")
    return message


def wire(message: EmailMessage) -> bytes:
    """A message with the line ends of SMTP, without its dots."""
    return message.as_bytes(policy=message.policy.clone(linesep="\r\n"))


def ids(reply: str, count: int) -> list[int]:
    assert reply.startswith("250 2.0.0 queued as "), reply
    number = decode("msg", reply.split(" ")[4])
    return [number * PLACES + place for place in range(count)]


def contents(heard: list[bytearray]) -> list[bytes]:
    """The messages that were written to the receiver, without their dots."""
    found: list[bytes] = []
    for said in heard:
        for part in bytes(said).split(b"DATA\r\n")[1:]:
            content, end, _ = part.partition(b"\r\n.\r\n")
            if end:
                found.append((content + b"\r\n").replace(b"\r\n..", b"\r\n."))
    return found


async def test_from_smtplib_to_the_receiver_as_it_came_and_signed(db: str, tmp_path: Path) -> None:
    async with (
        Fleet(db, tmp_path) as fleet,
        overheard(fleet.sink.port) as (port, heard),
        app_of(fleet) as app,
    ):
        fleet.configure("route", default=f"127.0.0.1:{port}")
        for number in range(20):
            reply = await app.send(letter(number), f"u{number}@a.test", f"u{number}@b.test")
            fleet.submitted += ids(reply, 2)
        again = await app.send(letter(3), "u3@a.test", "u3@b.test")
        assert ids(again, 2)[0] in fleet.submitted, "the same message is known"
        marketing = letter(99, X_Gateway_Stream="marketing", Bcc="secret@s.test")
        fleet.submitted += ids(await app.send(marketing, "m@a.test"), 1)
        await fleet.start("here")
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("delivered") == set(fleet.submitted)

    got = contents(heard)
    assert len(got) == 41
    records = {f"s1._domainkey.{SENDING_DOMAIN}.".encode(): public_key_txt(_rsa_key()).encode()}
    for message in got:
        assert dkim.DKIM(message).verify(dnsfunc=lambda name, timeout=5: records.get(name))
        assert b"X-Gateway-Delivery: " in message
        assert b"Feedback-ID: " in message
        assert b"X-Gateway-Stream" not in message
    came = wire(letter(7))
    assert sum(message.endswith(came) for message in got) == 2, "as it came, from its first field on"
    [one] = [message for message in got if b"<99@" in message]
    header = one.partition(b"\r\n\r\n")[0]
    assert b"List-Unsubscribe: <https://gateway.example/u/" in header
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in header
    assert b"secret" not in one
    assert b"list-unsubscribe:" in header.partition(b"bh=")[0].replace(b"\r\n\t", b"").lower()


async def test_while_postgres_is_away_the_app_is_told_to_come_again(
    own_server: Server, tmp_path: Path
) -> None:
    async with Fleet(own_server.dsn, tmp_path) as fleet, app_of(fleet) as app:
        fleet.submitted += ids(await app.send(letter(1), "a@a.test"), 1)
        await fleet.stop_upkeep()
        own_server.stop()
        app.desk.auth.forget()
        with pytest.raises(smtplib.SMTPResponseException) as caught:
            await app.send(letter(2), "a@a.test")
        assert caught.value.smtp_code == 454
        own_server.start()
        await fleet.reconnect()
        fleet.start_upkeep()
        reply = await app.send(letter(2), "a@a.test")
        fleet.submitted += ids(reply, 1)
        assert await app.send(letter(2), "a@a.test") == reply
        await fleet.start("here")
        await fleet.settled()
        await fleet.check()


async def test_postgres_away_in_the_middle_of_a_session_is_a_451(own_server: Server, tmp_path: Path) -> None:
    message = dot_stuff(wire(letter(1)))
    async with Fleet(own_server.dsn, tmp_path) as fleet, app_of(fleet) as app:
        await fleet.stop_upkeep()
        peer = await Peer.connect(app.port)
        await peer.says("EHLO app.example")
        await peer.starts_tls()
        await peer.says("EHLO app.example")
        await peer.signs_in(app.key)
        await peer.says("MAIL FROM:<>")
        await peer.says("RCPT TO:<a@a.test>")
        await peer.says("DATA")
        own_server.stop()
        assert (await peer.says(message + b".\r\n")).startswith("451 4.3.0")
        own_server.start()
        await fleet.reconnect()
        fleet.submitted += ids(await peer.sends(message, "a@a.test"), 1)
        await fleet.check(settled=False)
