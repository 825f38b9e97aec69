"""The sink as a process, with other people's SMTP clients: what they are told, and what the ledger says of it."""

import asyncio
import os
import signal
import smtplib
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiosmtplib
import pytest

from bench.load.inject import Run, inject
from bench.load.ledger import Books, compare, message_key
from bench.load.timelog import read_times
from tests.support.sink import SinkServer


def message(number: int) -> str:
    return f"From: a@gw\r\nMessage-ID: <{number}@gw>\r\nSubject: x\r\n\r\n.hello\r\n"


async def send(sink: SinkServer, recipient: str, number: int = 1) -> None:
    await aiosmtplib.send(
        message(number),
        sender="a@gw",
        recipients=[recipient],
        hostname="127.0.0.1",
        port=sink.port,
        start_tls=False,
        timeout=5,
    )


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[SinkServer]:
    async with SinkServer(tmp_path) as server:
        yield server


async def test_smtplib_sends_to_many_recipients(sink: SinkServer) -> None:
    def talk() -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as client:
            client.ehlo()
            assert {"pipelining", "8bitmime", "smtputf8", "size"} <= set(client.esmtp_features)
            return client.sendmail("a@gw", ["ok@x", "unknown@x", "grey1@x"], message(1))

    refused = await asyncio.to_thread(talk)
    assert {recipient: code for recipient, (code, _) in refused.items()} == {"unknown@x": 550, "grey1@x": 451}
    ledger = await sink.wait_for_accepts(1)
    assert ledger.replied == {"1@gw ok@x"}
    assert ledger.refused == {550: 1, 451: 1}


async def test_smtputf8_recipient_is_kept_as_it_came(sink: SinkServer) -> None:
    recipient = "jörg@EXAMPLE.test"
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=sink.port) as client:
        await client.mail("a@gw", options=["SMTPUTF8"], encoding="utf-8")
        await client.rcpt(recipient, encoding="utf-8")
        await client.data(message(1))
    assert (await sink.wait_for_accepts(1)).replied == {message_key("<1@gw>", recipient)}


async def test_greylisted_recipient_is_taken_on_the_next_connection(sink: SinkServer) -> None:
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await send(sink, "grey1@x")
    await send(sink, "grey1@x")
    assert (await sink.wait_for_accepts(1)).replied == {"1@gw grey1@x"}


async def test_drop_after_the_dot_is_on_the_books_without_a_reply(sink: SinkServer) -> None:
    for recipient in ("dropdot@x", "lostdot@x", "dropdata@x"):
        with pytest.raises(aiosmtplib.SMTPServerDisconnected):
            await send(sink, recipient)
    await send(sink, "dropdot@x")
    ledger = await sink.wait_for_accepts(2)
    assert ledger.unreplied == ledger.replied == {"1@gw dropdot@x"}
    assert ledger.duplicates == {"1@gw dropdot@x": 2}
    assert ledger.dropped == 2


async def test_reset_comes_after_the_250(sink: SinkServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    writer.write(
        b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<resetafter@x>\r\nDATA\r\n" + message(1).encode() + b".\r\n"
    )
    assert b"250 2.0.0 taken" in await reader.readuntil(b"taken\r\n")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_hang_never_replies(sink: SinkServer) -> None:
    with pytest.raises(aiosmtplib.SMTPException):
        await aiosmtplib.send(
            message(1),
            sender="a@gw",
            recipients=["hang@x"],
            hostname="127.0.0.1",
            port=sink.port,
            timeout=0.3,
        )
    assert (await sink.wait_for_accepts(1)).unreplied == {"1@gw hang@x"}


async def test_mail_over_starttls_is_counted(tmp_path: Path) -> None:
    async with SinkServer(tmp_path, options=("--tls", "--json", "--delay-ms", "5")) as sink:
        async with aiosmtplib.SMTP(
            hostname="127.0.0.1", port=sink.port, start_tls=True, validate_certs=False
        ) as client:
            await client.sendmail("a@gw", ["ok@x"], message(1))
        await send(sink, "ok@x", 2)  # in plaintext: nobody is made to
        assert (await sink.wait_for_accepts(2)).replied == {"1@gw ok@x", "2@gw ok@x"}
        summary = await sink.stop_and_read()
    assert summary["accepts"] == 2
    assert summary["tls_sessions"] == 1
    assert summary["signatures"] == []


async def test_a_handshake_that_fails_ends_the_connection(tmp_path: Path) -> None:
    async with SinkServer(tmp_path, options=("--tls",)) as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(b"EHLO me\r\n")
        await reader.readuntil(b"250 ENHANCEDSTATUSCODES\r\n")
        writer.write(b"STARTTLS\r\n")
        assert (await reader.readline()).startswith(b"220 ")
        writer.write(b"MAIL FROM:<a@gw>\r\n" * 10)
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await send(sink, "ok@x")
        assert (await sink.wait_for_accepts(1)).replied == {"1@gw ok@x"}


async def test_hidden_message_fails_the_books(tmp_path: Path) -> None:
    async with SinkServer(tmp_path, options=("--hide",)) as sink:
        for number in range(3):
            await send(sink, "ok@x", number)
        ledger = await sink.wait_for_accepts(2)
    findings = compare(Books({f"{number}@gw ok@x" for number in range(3)}), ledger)
    assert not findings.balanced
    assert findings.missing == ("0@gw ok@x",)


async def test_kill_loses_nothing_that_was_replied_to(tmp_path: Path) -> None:
    async with SinkServer(tmp_path) as sink:
        for number in range(20):
            await send(sink, "ok@x", number)
        assert await sink.kill() == -signal.SIGKILL
        assert sink.ledger().accepts == 20
        await sink.start()  # same port, and it goes on with the same ledger
        await send(sink, "ok@x", 20)
        assert (await sink.wait_for_accepts(21)).duplicates == {}


async def test_sigterm_settles_what_was_held_back(tmp_path: Path) -> None:
    async with SinkServer(tmp_path) as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(
            b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<slow60000@x>\r\nDATA\r\n" + message(1).encode() + b".\r\n"
        )
        await reader.readuntil(b"354 go on\r\n")
        assert await sink.stop() == 0
        assert b"taken" not in await reader.read()
        writer.close()
    assert sink.ledger().unreplied == {"1@gw slow60000@x"}


async def test_sink_ends_with_its_parent(tmp_path: Path) -> None:
    """A process in the middle starts a sink and is killed: the sink must not outlive it."""
    start = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    sink = ("-m", "bench.load.sink", "--ledger", str(tmp_path / "ledger.tsv"))
    middle = await asyncio.create_subprocess_exec(
        sys.executable, "-c", start, *sink, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert middle.stdout is not None
    await asyncio.wait_for(middle.stdout.readline(), 20)
    middle.kill()
    # the sink holds the other end of stdout too: an end of file says that both are gone
    assert await asyncio.wait_for(middle.stdout.read(), 10) == b""
    await middle.wait()


async def test_delay_holds_back_every_group_of_replies(tmp_path: Path) -> None:
    async with SinkServer(tmp_path, options=("--delay-ms", "50")) as sink:
        loop = asyncio.get_running_loop()
        started = loop.time()
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        await reader.readuntil(b"220 sink ESMTP\r\n")
        writer.write(b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<ok@x>\r\nDATA\r\n")
        await reader.readuntil(b"354 go on\r\n")
        assert 0.1 <= loop.time() - started < 5
        writer.close()


async def test_time_log_has_every_dot_by_domain(tmp_path: Path) -> None:
    path = tmp_path / "times.bin"
    async with SinkServer(tmp_path, options=("--time-log", str(path))) as sink:
        for number, domain in enumerate(("x.test", "y.test", "x.test")):
            await send(sink, f"ok@{domain}", number)
        await sink.stop()
    times = read_times(path)
    assert {domain: len(seen) for domain, seen in times.items()} == {"x.test": 2, "y.test": 1}
    assert times["x.test"][0] < times["y.test"][0] < times["x.test"][1]


async def test_the_time_log_has_the_moment_of_arrival_though_the_sink_had_no_processor(
    tmp_path: Path,
) -> None:
    path = tmp_path / "times"
    async with SinkServer(tmp_path, options=("--time-log", str(path))) as sink:
        with socket.create_connection(("127.0.0.1", sink.port), timeout=5) as client:
            client.sendall(b"EHLO me\r\nMAIL FROM:<a@gw>\r\nRCPT TO:<ok@x.test>\r\nDATA\r\n")
            said = b""
            while b"354" not in said:
                said += client.recv(1000)
            os.kill(sink.pid, signal.SIGSTOP)
            client.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n")
            resumed = time.monotonic()
            os.kill(sink.pid, signal.SIGCONT)
            assert client.recv(1000).startswith(b"250")
        await sink.stop()
    [at] = read_times(path)["x.test"]
    assert at <= resumed, "it was read later"


async def test_world_file_with_a_door_of_its_own(tmp_path: Path) -> None:
    world = '[[domain]]\nname = "closed.test"\naddress = "127.0.0.2"\nehlo = "554 5.7.1 not you"\n'
    async with SinkServer(tmp_path, world=world) as sink:
        with socket.create_connection(("127.0.0.2", sink.port), timeout=5) as door:
            door.sendall(b"EHLO me\r\n")
            said = b""
            while b"554" not in said:
                said += door.recv(1000)
        await send(sink, "ok@x")
        await sink.wait_for_accepts(1)


async def test_waiting_in_vain_says_what_was_there(sink: SinkServer) -> None:
    await send(sink, "ok@x")
    with pytest.raises(AssertionError, match=r"\(running\) had 1 of 2 accepted"):
        await sink.wait_for_accepts(2, timeout_s=0.2)


async def test_pipelined_load_is_counted_exactly(sink: SinkServer) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    run = Run(messages=500, connections=8, body=b"hello\r\n" * 200, domains=3, done=done)
    await inject("127.0.0.1", sink.port, run)
    assert (run.sent, run.failed) == (500, 0)
    ledger = sink.ledger()
    assert ledger.accepts == len(ledger.replied) == 500
