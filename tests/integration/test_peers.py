"""Against other people's mail programs: Postfix's smtp-sink takes (or refuses) what we send, swaks knocks at our listener."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.config import Config, DatabaseConfig, ListenConfig, MailConfig
from gateway.feedback.listener import serve_listener
from gateway.model.disposition import Outcome, Scope
from gateway.mta.wire import Mail, Session, SessionFailed, Timeouts, open_session
from tests.support.peers import answers, free_port, require, smtp_sink

pytestmark = pytest.mark.peer

MAIL = Mail("b@bounces.example", "ann@there.example", b"Subject: hi\r\n\r\nhello\r\n")


async def connect(port: int) -> Session:
    return await open_session("127.0.0.1", port, "out.example", Timeouts(connect_s=5))


def go() -> None:
    """The dot may be written."""


@pytest.mark.parametrize("options", [(), ("-p",), ("-e",)], ids=["pipelining", "no pipelining", "no ESMTP"])
async def test_postfix_takes_many_messages_over_one_connection(options: tuple[str, ...]) -> None:
    async with smtp_sink(*options) as port:
        session = await connect(port)
        came_to = [(await session.transact(MAIL, go)).outcome for _ in range(20)]
        session.quit()
    assert came_to == [Outcome.DELIVERED] * 20


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        (("-f", "RCPT"), Outcome.BOUNCED),
        (("-r", "RCPT"), Outcome.DEFERRED),
        (("-f", "."), Outcome.BOUNCED),
        (("-r", "."), Outcome.DEFERRED),
        (("-q", "RCPT"), Outcome.DEFERRED),
        (("-q", "."), Outcome.IN_DOUBT),
    ],
    ids=["5xx to RCPT", "4xx to RCPT", "5xx to the dot", "4xx to the dot", "hangs up at RCPT", "hangs up at the dot"],
)  # fmt: skip
async def test_what_postfix_refuses_is_judged_by_where_and_how(
    options: tuple[str, ...], outcome: Outcome
) -> None:
    async with smtp_sink(*options) as port:
        disposition = await (await connect(port)).transact(MAIL, go)
    assert disposition.outcome is outcome


async def test_postfix_that_lets_nobody_in_defers_the_lane() -> None:
    async with smtp_sink("-f", "CONNECT") as port:
        with pytest.raises(SessionFailed) as failed:
            await connect(port)
    assert (failed.value.disposition.outcome, failed.value.disposition.scope) == (
        Outcome.DEFERRED,
        Scope.LANE,
    )


async def test_swaks_cannot_relay_through_the_listener(tmp_path: Path) -> None:
    swaks, port, stop = require("swaks", "swaks"), free_port(), asyncio.Event()
    config = Config(
        database=DatabaseConfig(data_dir=str(tmp_path)),
        listen=ListenConfig(port=port),
        mail=MailConfig(bounce_domain="bounces.example"),
    )
    listening = asyncio.create_task(serve_listener(config, stop=stop))
    try:
        await answers(port)
        process = await asyncio.create_subprocess_exec(
            swaks, "--server", f"127.0.0.1:{port}", "--from", "a@x.example", "--to", "victim@elsewhere.example",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        told = (await process.communicate())[0].decode()
    finally:
        stop.set()
        await listening
    assert process.returncode == 24  # swaks: no recipient was accepted
    assert "550 5.7.1" in told
