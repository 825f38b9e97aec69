"""The listener on a real socket: it relays nothing, keeps what is for its own addresses, and cannot be held up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.config import Config, DatabaseConfig, ListenConfig, MailConfig
from gateway.feedback import listener
from gateway.feedback.doorkeeper import Doorkeeper
from gateway.feedback.listener import Mailbox, Reception, Visit, serve_listener


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Peer:
    """A client that says what it is told to, whatever the protocol wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def hears(self) -> str:
        async with asyncio.timeout(5):
            while True:
                line = (await self.reader.readline()).decode()
                if line[3:4] != "-":
                    return line.strip()

    async def says(self, line: str | bytes) -> str:
        self.writer.write(line if isinstance(line, bytes) else line.encode() + b"\r\n")
        return await self.hears()


class Listening(msgspec.Struct):
    port: int
    mailbox: Path
    stop: asyncio.Event

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        assert (await peer.hears()).startswith("220 ")
        return peer


@pytest.fixture
async def listening(tmp_path: Path) -> AsyncIterator[Listening]:
    config = Config(
        database=DatabaseConfig(data_dir=str(tmp_path)),
        listen=ListenConfig(port=free_port()),
        mail=MailConfig(bounce_domain="Bounces.Example"),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(serve_listener(config, stop=stop))
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", config.listen.port)
                writer.close()
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
    yield Listening(config.listen.port, tmp_path / "mailbox", stop)
    stop.set()
    await task


@pytest.mark.parametrize(
    "address",
    [
        "someone@example.org",
        "postmaster@example.org",
        "user@bounces.example",
        "abuse",
        "a%example.org@bounces.example",
    ],
)
async def test_relays_for_nobody(listening: Listening, address: str) -> None:
    peer = await listening.connect()
    await peer.says("EHLO peer.example")
    await peer.says("MAIL FROM:<a@peer.example>")
    assert (await peer.says(f"RCPT TO:<{address}>")).startswith("550 5.7.1")


@pytest.mark.parametrize("address", ["postmaster@bounces.example", "ABUSE@Bounces.Example", "Postmaster"])
async def test_keeps_what_is_for_its_own_addresses(listening: Listening, address: str) -> None:
    peer = await listening.connect()
    await peer.says("EHLO peer.example")
    await peer.says("MAIL FROM:<>")
    assert (await peer.says(f"RCPT TO:<{address}>")).startswith("250")
    await peer.says("DATA")
    assert (await peer.says(b"Subject: hello\r\n\r\n..dot\r\n.\r\n")).startswith("250 2.0.0")
    [file] = listening.mailbox.iterdir()
    assert file.read_bytes() == b"Subject: hello\r\n\r\n.dot\r\n"


async def test_a_smuggled_end_of_data_ends_the_connection(listening: Listening) -> None:
    peer = await listening.connect()
    await peer.says("EHLO peer.example")
    await peer.says("MAIL FROM:<>")
    await peer.says("RCPT TO:<abuse@bounces.example>")
    await peer.says("DATA")
    assert (await peer.says(b"a\n.\nMAIL FROM:<x@y.example>\r\n")).startswith("500 5.5.2")
    assert await peer.reader.read() == b""
    assert not list(listening.mailbox.iterdir())


async def test_an_endless_line_ends_the_connection(listening: Listening) -> None:
    peer = await listening.connect()
    peer.writer.write(b"x" * 100_000)
    assert (await peer.hears()).startswith("500 5.5.2")


async def test_one_address_gets_no_more_than_its_share(listening: Listening) -> None:
    peers = [await listening.connect() for _ in range(listener.MOST_CONNECTIONS_PER_PEER)]
    late = Peer(*await asyncio.open_connection("127.0.0.1", listening.port))
    assert (await late.hears()).startswith("421 4.7.0")
    peers[0].writer.close()
    await peers[0].writer.wait_closed()
    async with asyncio.timeout(5):
        while True:
            again = Peer(*await asyncio.open_connection("127.0.0.1", listening.port))
            if (await again.hears()).startswith("220"):
                break
    for peer in peers:
        peer.writer.close()


@pytest.mark.parametrize("how", ["told to go", "closing already", "idle"])
async def test_a_peer_that_reads_nothing_does_not_keep_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(listener, "LAST_WORD_S", 0.05)
    visits: set[Visit] = set()
    doorkeeper, reception = Doorkeeper(1, 1), Reception("a.example", Mailbox(tmp_path))
    idle_s = 0.1 if how == "idle" else 60.0
    server = await asyncio.get_running_loop().create_server(
        lambda: Visit(reception, doorkeeper, visits, "a.example", timeout=idle_s), "127.0.0.1", 0
    )
    with socket.create_connection(server.sockets[0].getsockname()) as deaf:
        async with asyncio.timeout(5):
            while not visits:
                await asyncio.sleep(0)
            [visit] = visits
            line = visit._line
            assert line is not None
            line.write(b"x" * 32_000_000)  # more than the kernel keeps for both sides
            if how == "closing already":  # as aiosmtpd does after QUIT
                line.close()
            if how != "idle":
                visit.hang_up(b"421 4.3.2 go")
            while visits:
                await asyncio.sleep(0)
        assert doorkeeper.admit("127.0.0.1")
        assert deaf.fileno() >= 0
    server.close()


async def test_says_goodbye_at_the_end(listening: Listening) -> None:
    peer = await listening.connect()
    listening.stop.set()
    assert (await peer.hears()).startswith("421 4.3.2")


def test_a_full_mailbox_takes_nothing_more_and_knows_so_after_a_restart(tmp_path: Path) -> None:
    assert Mailbox(tmp_path, 10).keep(b"12345678")
    assert not Mailbox(tmp_path, 10).keep(b"123")
    assert Mailbox(tmp_path, 10).keep(b"12")
    assert len(list(tmp_path.iterdir())) == 2
