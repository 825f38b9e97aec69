"""What the SMTP door accepts: messages over TLS with AUTH, durably, each with a Message-ID of its own.

Two loads on one process of the role listen: clients that keep their connection, one command after another as smtplib speaks, and
clients that connect anew for each message (handshake, EHLO, AUTH, message, QUIT). One recipient each, 4 kB of text. How it is measured
is in `accepting`; the client's CPU has its side of TLS in it.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from typing import Final

import msgspec

from bench.load.accepting import Answers, Connection, Measured, costs, measure, measure_in_turn, seconds, site
from bench.load.certificate import write_pem
from bench.options import Options, Progress
from bench.processes import child, free_port, listening
from bench.report import Figure, Outcome, figure
from bench.stage import FROM_DOMAIN, Stage, shaping
from gateway.app.brief import Role
from gateway.throttle.shaping import Limits

REACH_MESSAGES: Final = 500
_BODY: Final = b"It is a long way from here to there, and a letter takes it in a moment.\r\n" * 55
_DOMAINS: Final = 50


class Kind(msgspec.Struct, frozen=True):
    """One kind of load."""

    name: str
    clients: int
    keeps: bool


LOADS: Final = (Kind("kept connections", 32, True), Kind("a connection a message", 16, False))


class Load(Answers, kw_only=True):
    """What all connections of one run share."""

    login: bytes
    next: int = 0

    def message(self) -> tuple[bytes, bytes]:
        """The recipient and the content of the next message."""
        number = self.next
        self.next = number + 1
        to = b"user%d@d%d.test" % (number, number % _DOMAINS)
        head = b"From: News <news@%b>\r\nTo: %b\r\nSubject: Your order %d\r\nMessage-ID: <%d@%b>\r\nMIME-Version: 1.0\r\n\r\n"
        domain = FROM_DOMAIN.encode()
        return to, head % (domain, to, number, number, domain) + _BODY + b".\r\n"


class Client(Connection):
    """One connection: says one thing, waits for its reply, says the next."""

    def __init__(self, load: Load, keeps: bool) -> None:
        super().__init__(load)
        self._load, self._keeps = load, keeps
        self._rest = b""
        self._to = self._content = b""
        self._began_at = time.perf_counter()
        self._step = b"220"

    def data_received(self, data: bytes) -> None:
        """Take a reply; go on when it is whole."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if line[3:4] != b"-":
                self._go_on(line)

    def _go_on(self, line: bytes) -> None:
        load = self._load
        match self._step, line[:3]:
            case b"220", b"220":
                self._say(b"EHLO bench.test\r\n", b"EHLO")
            case b"EHLO", b"250":
                self._say(b"AUTH PLAIN " + load.login + b"\r\n", b"AUTH")
            case b"AUTH", b"235":
                self._begin()
            case b"MAIL", b"250":
                self._say(b"RCPT TO:<" + self._to + b">\r\n", b"RCPT")
            case b"RCPT", b"250":
                self._say(b"DATA\r\n", b"DATA")
            case b"DATA", b"354":
                self._say(self._content, b"DOT")
            case b"DOT", b"250":
                load.latencies_s.append(time.perf_counter() - self._began_at)
                if self._keeps and not load.stopping:
                    self._begin()
                else:
                    self._say(b"QUIT\r\n", b"QUIT")
            case b"QUIT", b"221":
                self._transport.close()
            case _:
                load.refused(self._step + b": " + line)
                self._transport.abort()

    def _begin(self) -> None:
        if self._keeps:
            self._began_at = time.perf_counter()
        self._to, self._content = self._load.message()
        self._say(b"MAIL FROM:<app@bench.test>\r\n", b"MAIL")

    def _say(self, words: bytes, step: bytes) -> None:
        self._step = step
        self._transport.write(words)


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure both loads `options.runs` times in turn."""
    found = await measure_in_turn(
        options, tell, LOADS, _one, lambda _, one: f"{one.per_s:,.0f} messages/s; {one.line('door')}"
    )
    figures: dict[str, Figure] = {}
    for load in LOADS:
        mine = found[load.name]
        figures[f"{load.name}: accepted"] = figure(
            [m.per_s for m in mine], "messages/s", at_least=REACH_MESSAGES if load.keeps else None
        )
        figures |= costs(load.name, "the door", "message", mine)
    settings = {
        "seconds": seconds(options), "processes": 1, "synchronous_commit": True, "tls": "implicit, ECDSA P-256",
        "message_bytes": len(_BODY) + 150, "message_ids": True, "loads": [msgspec.structs.asdict(load) for load in LOADS],
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def _one(own: Stage, kind: Kind, seconds: float) -> Measured:
    name = f"submission_{time.monotonic_ns()}"
    folder = own.folder / name
    folder.mkdir()
    pem = write_pem(folder, "localhost")
    door = {"port": free_port(), "tls_port": free_port(), "certificate_file": pem, "key_file": pem}
    async with (
        site(own, name, listen={"port": free_port()}, submission=door) as (connection, dsn, config, key),
        child(Role.LISTEN, config, dsn, shaping(Limits())) as process,
    ):
        port = config.submission.tls_port
        await listening(port, [process])
        load = Load(login=base64.b64encode(f"\0bench\0{key}".encode()))
        clients = [asyncio.create_task(_client(load, port, kind.keeps)) for _ in range(kind.clients)]
        return await measure(own, connection, process, load, asyncio.gather(*clients), seconds)


async def _client(load: Load, port: int, keeps: bool) -> None:
    """One client, with one connection or one after another, until the load stops."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    while not load.stopping and not load.first_errors:
        _, one = await loop.create_connection(lambda: Client(load, keeps), "127.0.0.1", port, ssl=context)
        await one.closed
