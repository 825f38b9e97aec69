"""A session is opened at the first host and address that takes it; when none does, the most telling failure is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import TypeAlias

import pytest

from gateway.model.disposition import BounceClass, Disposition, Outcome, Scope, Stage
from gateway.mta.connect import MOST_TRIES, most_telling, open_first
from gateway.mta.mx import MxResolver
from gateway.mta.mx_plan import Hosts, MxHost
from gateway.mta.reply import TEXT_LIMIT, ErrorKind, from_error
from gateway.mta.wire import Mail, Session, SessionFailed, Timeouts
from tests.support.clock import FakeClock
from tests.support.dns import scripted_dns
from tests.support.scripted_smtp import (
    GREETING,
    OPENING,
    TAKEN,
    Close,
    Reset,
    ScriptedServer,
    Step,
    Until,
    scripted,
)

QUICK = Timeouts(connect_s=0.3, banner_s=0.3, mail_s=2, rcpt_s=2, data_s=2, dot_s=2)
GOOD: Sequence[Step] = [*OPENING, *TAKEN, b"250 2.0.0 queued\r\n"]
Serve: TypeAlias = Callable[..., Coroutine[None, None, list[ScriptedServer]]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve each script on an address of its own, 127.0.0.2 first, all on one port."""
    async with AsyncExitStack() as stack:

        async def start(*scripts: Sequence[Step]) -> list[ScriptedServer]:
            servers: list[ScriptedServer] = []
            for number, script in enumerate(scripts, 2):
                port = servers[0].port if servers else 0
                servers.append(
                    await stack.enter_async_context(scripted(script, host=f"127.0.0.{number}", port=port))
                )
            return servers

        yield start


def hosts(port: int, *numbers: Sequence[int]) -> Hosts:
    """Hosts mx1, mx2 … with addresses 127.0.0.<number>."""
    mx = [
        MxHost(f"mx{place}.there.example", place, tuple(f"127.0.0.{number}" for number in each))
        for place, each in enumerate(numbers, 1)
    ]
    return Hosts("there.example", tuple(mx), "(mx1|mx2).there.example", port)


async def failure(where: Hosts) -> Disposition:
    with pytest.raises(SessionFailed) as failed:
        await open_first(where, "out.example", QUICK)
    return failed.value.disposition


def tried(servers: Sequence[ScriptedServer]) -> list[int]:
    return [len(server.heard) for server in servers]


async def delivers(session: Session) -> bool:
    mail = Mail("b@bounces.example", "ann@there.example", b"Subject: hi\r\n\r\nhello\r\n")
    return (await session.transact(mail, lambda: None)).outcome is Outcome.DELIVERED


async def test_the_best_host_is_used_and_no_other_is_bothered(serve: Serve) -> None:
    servers = await serve(GOOD, GOOD)
    session = await open_first(hosts(servers[0].port, [2], [3]), "out.example", QUICK)
    assert await delivers(session)
    assert tried(servers) == [1, 0]
    assert b"EHLO out.example" in servers[0].heard[0]


@pytest.mark.parametrize(
    "script",
    [
        [Close()], [Reset()], [], [b"what?\r\n", Close()], [b"421 4.3.2 later\r\n", Close()], [b"451 no\r\n", Close()],
        [b"554 5.7.1 not you\r\n", Close()], [GREETING, Until(b"EHLO"), b"421 busy\r\n", Close()], [GREETING, Until(b"EHLO"), Close()],
    ],
    ids=[
        "closed at once", "reset at once", "no banner", "no SMTP", "421 banner", "451 banner", "554 banner", "421 to EHLO",
        "closed at EHLO",
    ],
)  # fmt: skip
async def test_trouble_with_one_host_leads_to_the_next(serve: Serve, script: list[Step]) -> None:
    servers = await serve(script, GOOD)
    session = await open_first(hosts(servers[0].port, [2], [3]), "out.example", QUICK)
    assert await delivers(session)
    assert tried(servers) == [1, 1]


async def test_nobody_listening_leads_to_the_next_address_of_the_host(serve: Serve) -> None:
    servers = await serve(GOOD)
    session = await open_first(hosts(servers[0].port, [9, 2], [8]), "out.example", QUICK)
    assert await delivers(session)


async def test_a_refusal_in_words_is_the_whole_hosts(serve: Serve) -> None:
    servers = await serve([b"554 5.7.1 not you\r\n", Close()], GOOD, GOOD)
    await open_first(hosts(servers[0].port, [2, 3], [4]), "out.example", QUICK)
    assert tried(servers) == [1, 0, 1]


async def test_when_all_refuse_the_best_hosts_word_is_told(serve: Serve) -> None:
    servers = await serve([b"554 5.7.1 not you\r\n", Close()], [b"421 4.3.2 later\r\n", Close()])
    told = await failure(hosts(servers[0].port, [2], [3]))
    assert (told.code, told.outcome, told.scope) == (554, Outcome.DEFERRED, Scope.LANE)
    assert "not you" in told.text
    assert "mx1.there.example [127.0.0.2]" in told.text
    assert "2 addresses tried" in told.text


async def test_a_reply_of_a_worse_host_says_more_than_no_connection_to_the_best(serve: Serve) -> None:
    servers = await serve([b"421 4.3.2 later\r\n", Close()])
    told = await failure(hosts(servers[0].port, [9], [2], [8]))
    assert (told.code, "mx2.there.example" in told.text) == (421, True)


async def test_a_bounded_number_of_addresses_is_tried(serve: Serve) -> None:
    servers = await serve(*[[Close()]] * 7)
    told = await failure(hosts(servers[0].port, [2, 3, 4, 5], [6, 7], [8]))
    assert tried(servers) == [1, 1, 0, 0, 1, 1, 1]
    assert f"{MOST_TRIES} addresses tried" in told.text


def test_the_most_telling_failure_is_a_reply_then_no_smtp_then_silence_then_no_connection() -> None:
    refused, lost = (
        from_error(kind, Stage.CONNECT) for kind in (ErrorKind.CONNECTION_REFUSED, ErrorKind.CONNECTION_LOST)
    )
    silent, odd = from_error(ErrorKind.TIMEOUT, Stage.CONNECT), from_error(ErrorKind.MALFORMED, Stage.BANNER)
    reply = Disposition(Outcome.DEFERRED, BounceClass.POLICY, 554, None, "no", Scope.LANE)
    told = [refused, lost, silent, odd, reply]
    assert most_telling(told) == 4
    assert most_telling(told[:4]) == 3
    assert most_telling(told[:3]) == 2
    assert most_telling(told[:2]) == 0


async def test_what_is_told_stays_within_its_limit(serve: Serve) -> None:
    servers = await serve([b"554 " + b"x" * 1_500 + b"\r\n", Close()])
    told = await failure(hosts(servers[0].port, [2], [9]))
    assert len(told.text) <= TEXT_LIMIT
    assert told.text.endswith("(mx1.there.example [127.0.0.2]; 2 addresses tried)")


async def test_from_a_domain_to_a_delivered_message(serve: Serve) -> None:
    servers = await serve([b"421 4.3.2 later\r\n", Close()], GOOD)
    async with scripted_dns() as dns:
        dns.put("there.example", "MX", "10 mx1.there.example.", "20 mx2.there.example.")
        dns.put("mx1.there.example", "A", "127.0.0.2")
        dns.put("mx2.there.example", "A", "127.0.0.3")
        resolver = MxResolver(
            FakeClock(),
            nameservers=[dns.nameserver],
            allow_private=(ip_network("127.0.0.0/8"),),
            port=servers[0].port,
        )
        where = await resolver.resolve("there.example")
        await resolver.close()
    assert isinstance(where, Hosts)
    async with asyncio.timeout(5):
        assert await delivers(await open_first(where, "out.example", QUICK))
    assert tried(servers) == [1, 1]
