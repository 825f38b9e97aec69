"""What the SMTP door accepts: messages over TLS with AUTH, durably, each with a Message-ID of its own.

Two loads on one process of the role listen: clients that keep their connection, one command after another as smtplib speaks, and
clients that connect anew for each message (handshake, EHLO, AUTH, message, QUIT). One recipient each, 4 kB of text. Postgres commits
to disk before the 250. The client works in this process; its CPU, with its side of TLS, is reported apart, since it shares the
machine. At the end of each run the queue must hold what was answered with 250.
"""

from __future__ import annotations

import asyncio
import base64
import math
import ssl
import time
from typing import Final, cast

import msgspec

from bench import cpu
from bench.load.certificate import write_pem
from bench.options import Options, Progress
from bench.processes import child, free_port, listening
from bench.report import Figure, Outcome, figure
from bench.stage import FROM_DOMAIN, SITE, Stage, make_site, shaping, stage
from gateway.app.brief import Role
from gateway.store.pool import connect
from gateway.store.sites import issue_key
from gateway.throttle.shaping import Limits

REACH_MESSAGES: Final = 500
_BODY: Final = b"It is a long way from here to there, and a letter takes it in a moment.\r\n" * 55
_WARM_UP_S: Final = 2.0
_DOMAINS: Final = 50


class Kind(msgspec.Struct, frozen=True):
    """One kind of load."""

    name: str
    clients: int
    keeps: bool


LOADS: Final = (Kind("kept connections", 32, True), Kind("a connection a message", 16, False))


class Load(msgspec.Struct):
    """What all connections of one run share. Mutable: they count in it."""

    login: bytes
    latencies_s: list[float] = []
    first_errors: list[bytes] = []
    next: int = 0
    stopping: bool = False

    def message(self) -> tuple[bytes, bytes]:
        """The recipient and the content of the next message."""
        number = self.next
        self.next = number + 1
        to = b"user%d@d%d.test" % (number, number % _DOMAINS)
        head = b"From: News <news@%b>\r\nTo: %b\r\nSubject: Your order %d\r\nMessage-ID: <%d@%b>\r\nMIME-Version: 1.0\r\n\r\n"
        domain = FROM_DOMAIN.encode()
        return to, head % (domain, to, number, number, domain) + _BODY + b".\r\n"


class Client(asyncio.Protocol):
    """One connection: says one thing, waits for its reply, says the next."""

    def __init__(self, load: Load, keeps: bool) -> None:
        self._load, self._keeps = load, keeps
        self._rest = b""
        self._to = self._content = b""
        self._began_at = time.perf_counter()
        self._step = b"220"
        self.taken = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server speaks first."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a reply; go on when it is whole."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if line[3:4] != b"-":
                self._go_on(line)

    def connection_lost(self, exc: Exception | None) -> None:
        """The load is over for this connection."""
        if exc is not None and not self._load.stopping:
            self._load.first_errors.append(repr(exc).encode())
        if not self.closed.done():
            self.closed.set_result(None)

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
                self.taken = True
                if self._keeps and not load.stopping:
                    self._begin()
                else:
                    self._say(b"QUIT\r\n", b"QUIT")
            case b"QUIT", b"221":
                self._transport.close()
            case _:
                if len(load.first_errors) < 5:
                    load.first_errors.append(self._step + b": " + line)
                self._transport.abort()

    def _begin(self) -> None:
        if self._keeps:
            self._began_at = time.perf_counter()
        self._to, self._content = self._load.message()
        self._say(b"MAIL FROM:<app@bench.test>\r\n", b"MAIL")

    def _say(self, words: bytes, step: bytes) -> None:
        self._step = step
        self._transport.write(words)


class Measured(msgspec.Struct, frozen=True):
    """One run, per message where it is a cost."""

    messages_per_s: float
    p50_ms: float
    p99_ms: float
    door_ms: float
    postgres_ms: float
    client_ms: float


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure both loads `options.runs` times in turn."""
    seconds = 2.0 if options.quick else 8.0
    found: dict[str, list[Measured]] = {load.name: [] for load in LOADS}
    async with stage() as own:
        for number in range(options.runs):
            for load in LOADS:
                one = await _one(own, load, seconds)
                found[load.name].append(one)
                tell(
                    f"run {number + 1} of {options.runs}: {load.name}: {one.messages_per_s:,.0f} messages/s; "
                    f"p50 {one.p50_ms:.1f} p99 {one.p99_ms:.1f} ms; a message: door {one.door_ms:.3f}, "
                    f"Postgres {one.postgres_ms:.3f}, client {one.client_ms:.3f} ms of CPU"
                )
    figures: dict[str, Figure] = {}
    for load in LOADS:
        mine = found[load.name]
        reach = REACH_MESSAGES if load.keeps else None
        figures[f"{load.name}: accepted"] = figure(
            [m.messages_per_s for m in mine], "messages/s", at_least=reach
        )
        figures[f"{load.name}: p50"] = figure([m.p50_ms for m in mine], "ms")
        figures[f"{load.name}: p99"] = figure([m.p99_ms for m in mine], "ms")
        figures[f"{load.name}: CPU of the door"] = figure([m.door_ms for m in mine], "ms a message")
        figures[f"{load.name}: CPU of Postgres"] = figure([m.postgres_ms for m in mine], "ms a message")
        figures[f"{load.name}: CPU of the client"] = figure([m.client_ms for m in mine], "ms a message")
    settings = {
        "seconds": seconds, "processes": 1, "synchronous_commit": True, "tls": "implicit, ECDSA P-256", "message_bytes": len(_BODY) + 150,
        "message_ids": True, "loads": [msgspec.structs.asdict(load) for load in LOADS],
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def _one(own: Stage, kind: Kind, seconds: float) -> Measured:
    name = f"submission_{time.monotonic_ns()}"
    dsn = await own.database(name)
    connection = await connect(dsn, application_name="bench")
    try:
        folder = own.folder / name
        folder.mkdir()
        pem = write_pem(folder, "localhost")
        config = own.config(
            listen={"port": free_port()},
            submission={
                "port": free_port(), "tls_port": free_port(), "certificate_file": pem, "key_file": pem
            },
            database={"data_dir": str(folder)},
        )  # fmt: skip
        await make_site(connection, config)
        _, key = await issue_key(connection, SITE, "bench", ["send"])
        load = Load(base64.b64encode(f"\0bench\0{key}".encode()))
        async with child(Role.LISTEN, config, dsn, shaping(Limits())) as door:
            await listening(config.submission.tls_port, [door])
            clients = [
                asyncio.create_task(_client(load, config.submission.tls_port, kind.keeps))
                for _ in range(kind.clients)
            ]
            await asyncio.sleep(_WARM_UP_S)
            warmed = len(load.latencies_s)
            before = (door.cpu_s, cpu.tree_cpu_s(own.postgres_pid), time.process_time())
            started = time.monotonic()
            await asyncio.sleep(seconds)
            took_s = time.monotonic() - started
            count = len(load.latencies_s) - warmed
            door_s, client_s = door.cpu_s - before[0], time.process_time() - before[2]
            load.stopping = True
            await asyncio.gather(*clients)
            await connection.execute("checkpoint")
            # With what the last messages in flight cost: a share of a percent.
            postgres_s = cpu.tree_cpu_s(own.postgres_pid) - before[1]
            door.require()
        if load.first_errors or not count:
            raise RuntimeError(f"the door did not take a message: {load.first_errors[:1]}")
        held = await connection.fetchval("select count(*) from queue")
        if held != len(load.latencies_s):
            raise RuntimeError(f"250 for {len(load.latencies_s)} messages, {held} in the queue")
    finally:
        await connection.close()
        await own.drop(name)
    latencies = sorted(load.latencies_s[warmed : warmed + count])
    return Measured(
        count / took_s,
        latencies[len(latencies) // 2] * 1000,
        latencies[math.ceil(len(latencies) * 0.99) - 1] * 1000,
        door_s * 1000 / count,
        postgres_s * 1000 / count,
        client_s * 1000 / count,
    )


async def _client(load: Load, port: int, keeps: bool) -> None:
    """One client, with one connection or one after another, until the load stops."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    while not load.stopping and not load.first_errors:
        _, one = await loop.create_connection(lambda: Client(load, keeps), "127.0.0.1", port, ssl=context)
        await one.closed
