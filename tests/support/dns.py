"""A DNS server on loopback that answers what a test wrote down, over UDP and, where an answer was cut short, over TCP.

It plays the recursive resolver: CNAMEs are followed inside the zone, a name without the asked type is NODATA, a name that
is nowhere NXDOMAIN. Names and types that stand in `behaviours` answer otherwise, late, or never.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass(frozen=True)
class Fails:
    """Answer with this code: SERVFAIL, REFUSED, NOTIMP."""

    rcode: str = "SERVFAIL"


class Silent:
    """Never answer."""


@dataclass
class Held:
    """Answer from the zone once the test sets `released`."""

    released: asyncio.Event = field(default_factory=asyncio.Event)


class OneByOne:
    """Give a CNAME alone, as a server does that follows none."""


Behaviour = Fails | Silent | Held | OneByOne


@dataclass
class ScriptedDns:
    """What the fixture gives: the zone to fill, where it listens, and what it was asked."""

    port: int = 0
    zone: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    """By name, or by "name type" for one type alone."""
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    over_tcp: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def nameserver(self) -> str:
        """How a resolver is pointed at it."""
        return f"127.0.0.1:{self.port}"

    def put(self, name: str, rdtype: str, *values: str, ttl: int = 0) -> None:
        """Set the records of a name and type. With a TTL of 0 nobody below the code under test remembers them."""
        self.zone[name, rdtype] = (ttl, values)

    def count(self, name: str, rdtype: str) -> int:
        """How often this was asked."""
        return self.asked.count((name, rdtype))

    async def until_asked(self, name: str, rdtype: str) -> None:
        """Return once this has been asked."""
        while (name, rdtype) not in self.asked:
            self._news.clear()
            await self._news.wait()

    async def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        """Answer one query; None: never."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        rdtype = dns.rdatatype.to_text(question.rdtype)
        (self.over_tcp if tcp else self.asked).append((name, rdtype))
        self._news.set()
        behaviour = self.behaviours.get(f"{name} {rdtype}") or self.behaviours.get(name)
        if isinstance(behaviour, Silent):
            return None
        if isinstance(behaviour, Held):
            await behaviour.released.wait()
        response = dns.message.make_response(query, recursion_available=True)
        if isinstance(behaviour, Fails):
            response.set_rcode(dns.rcode.from_text(behaviour.rcode))
        else:
            self._fill(response, name, rdtype, follow=not isinstance(behaviour, OneByOne))
        limit = 65_535 if tcp else max(512, query.payload if query.edns >= 0 else 512)
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            short = dns.message.make_response(query, recursion_available=True)
            short.flags |= dns.flags.TC
            return short.to_wire()

    def _fill(self, response: dns.message.Message, name: str, rdtype: str, *, follow: bool) -> None:
        passed: list[str] = []
        while (name, "CNAME") in self.zone and name not in passed:
            passed.append(name)
            ttl, values = self.zone[name, "CNAME"]
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", "CNAME", values[0]))
            name = values[0].rstrip(".").lower()
            if not follow:
                return
        if name in passed:
            return
        if (name, rdtype) in self.zone:
            ttl, values = self.zone[name, rdtype]
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", rdtype, *values))
        elif not any(known == name or known.endswith(f".{name}") for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: ScriptedDns, tasks: set[asyncio.Task[None]]) -> None:
        self._server, self._tasks = server, tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        async def reply() -> None:
            answer = await self._server.answer(data, tcp=False)
            if answer is not None and not self._transport.is_closing():
                self._transport.sendto(answer, addr)

        task = asyncio.create_task(reply())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def scripted_dns(port: int = 0) -> AsyncIterator[ScriptedDns]:
    """Serve a zone on a port of loopback (0: a free one), the same for UDP and TCP."""
    server, tasks = ScriptedDns(), set[asyncio.Task[None]]()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                answer = await server.answer(await reader.readexactly(size), tcp=True)
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(stream(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    tcp = await asyncio.start_server(connected, "127.0.0.1", port)
    server.port = tcp.sockets[0].getsockname()[1]
    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Udp(server, tasks), local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
        pending: Sequence[asyncio.Task[None]] = list(tasks)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
