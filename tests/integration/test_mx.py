"""Look-ups against a DNS server that answers as the test says: what is found, what is refused, what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.config import MxConfig
from gateway.model.disposition import Outcome
from gateway.mta.mx import MxResolver, resolver_of
from gateway.mta.mx_plan import MOST_HOSTS, Hosts, MxHost, NoHosts
from gateway.mta.reply import ErrorKind
from tests.support.clock import FakeClock
from tests.support.dns import Behaviour, Fails, Held, OneByOne, ScriptedDns, Silent, scripted_dns


class World:
    """A DNS server, a clock, and resolvers that use both."""

    def __init__(self, dns: ScriptedDns, stack: AsyncExitStack) -> None:
        self.dns, self.clock, self._stack = dns, FakeClock(), stack

    def resolver(self, **options: Any) -> MxResolver:
        made = MxResolver(self.clock, nameservers=[self.dns.nameserver], **options)
        self._stack.push_async_callback(made.close)
        return made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(scripted_dns())
        dns.put("plain.example", "MX", "20 MX2.plain.example.", "10 mx1.plain.example.")
        dns.put("mx1.plain.example", "A", "8.8.8.1", "8.8.8.2")
        dns.put("mx1.plain.example", "AAAA", "2607::1")
        dns.put("mx2.plain.example", "A", "8.8.8.3")
        yield World(dns, stack)


def names(result: Hosts | NoHosts) -> list[str]:
    assert isinstance(result, Hosts), result
    return [host.name for host in result.mx]


def failed(result: Hosts | NoHosts) -> NoHosts:
    assert isinstance(result, NoHosts), result
    return result


async def test_hosts_come_by_preference_with_their_addresses(world: World) -> None:
    result = await world.resolver(ipv6=True).resolve("Plain.Example.")
    assert isinstance(result, Hosts)
    first, second = result.mx
    assert (first.name, first.preference, second) == (
        "mx1.plain.example",
        10,
        MxHost("mx2.plain.example", 20, ("8.8.8.3",)),
    )
    assert first.addresses[0] == "2607::1"
    assert set(first.addresses[1:]) == {"8.8.8.1", "8.8.8.2"}
    assert (result.domain, result.site_name, result.port) == ("plain.example", "(mx1|mx2).plain.example", 25)


async def test_without_ipv6_only_a_records_are_asked_for(world: World) -> None:
    result = await world.resolver().resolve("plain.example")
    assert isinstance(result, Hosts)
    assert set(result.mx[0].addresses) == {"8.8.8.1", "8.8.8.2"}
    assert {rdtype for _, rdtype in world.dns.asked} == {"MX", "A"}


async def test_a_host_with_ipv6_alone_is_used_or_refused_by_name(world: World) -> None:
    world.dns.put("six.example", "MX", "10 mx.six.example.")
    world.dns.put("mx.six.example", "AAAA", "2607::6")
    result = await world.resolver(ipv6=True).resolve("six.example")
    assert isinstance(result, Hosts)
    assert result.mx[0].addresses == ("2607::6",)
    refused = failed(await world.resolver().resolve("six.example"))
    assert (refused.kind, "[mx] ipv6" in refused.detail) == (ErrorKind.NO_ROUTE, True)


async def test_a_domain_without_mx_is_its_own_host(world: World) -> None:
    world.dns.put("bare.example", "A", "8.8.8.8")
    result = await world.resolver().resolve("bare.example")
    assert isinstance(result, Hosts)
    assert (result.mx, result.site_name) == ((MxHost("bare.example", 0, ("8.8.8.8",)),), "bare.example")


async def test_an_internationalised_domain_comes_in_a_labels(world: World) -> None:
    world.dns.put("xn--bcher-kva.example", "MX", "10 mx1.plain.example.")
    resolver = world.resolver()
    assert names(await resolver.resolve("XN--BCHER-KVA.example")) == ["mx1.plain.example"]
    assert failed(await resolver.resolve("bücher.example")).kind is ErrorKind.NO_ROUTE


@pytest.mark.parametrize(
    ("behaviour", "outcome", "kind"),
    [
        (Fails("SERVFAIL"), Outcome.DEFERRED, ErrorKind.DNS_TEMPORARY),
        (Fails("REFUSED"), Outcome.DEFERRED, ErrorKind.DNS_TEMPORARY),
        (Fails("NOTIMP"), Outcome.DEFERRED, ErrorKind.DNS_TEMPORARY),
        (None, Outcome.BOUNCED, ErrorKind.NO_DOMAIN),
    ],
    ids=["SERVFAIL", "REFUSED", "NOTIMP", "NXDOMAIN"],
)
async def test_a_failed_look_up_is_deferred_and_a_missing_domain_bounced(
    world: World, behaviour: Behaviour | None, outcome: Outcome, kind: ErrorKind
) -> None:
    if behaviour:
        world.dns.behaviours["there.test"] = behaviour
    result = failed(await world.resolver().resolve("there.test"))
    assert (result.kind, result.disposition.outcome) == (kind, outcome)


async def test_null_mx_is_bounced(world: World) -> None:
    world.dns.put("null.example", "MX", "0 .")
    result = failed(await world.resolver().resolve("null.example"))
    assert (result.kind, result.disposition.enhanced) == (ErrorKind.NULL_MX, "5.1.10")


async def test_a_name_with_neither_mx_nor_address_is_no_mail_domain(world: World) -> None:
    world.dns.put("text.example", "TXT", "hello")
    result = failed(await world.resolver().resolve("text.example"))
    assert (result.kind, result.detail) == (ErrorKind.NO_DOMAIN, "text.example has neither MX nor address")


async def test_hosts_that_are_gone_are_skipped_and_deferred_when_all_are(world: World) -> None:
    world.dns.put("half.example", "MX", "10 gone.test.", "20 mx1.plain.example.")
    world.dns.put("gone.example", "MX", "10 gone.test.", "20 gone2.test.")
    resolver = world.resolver()
    assert names(await resolver.resolve("half.example")) == ["mx1.plain.example"]
    assert failed(await resolver.resolve("gone.example")).kind is ErrorKind.NO_ROUTE


async def test_hosts_that_fail_for_now_are_skipped_and_deferred_when_all_do(world: World) -> None:
    world.dns.put("half.example", "MX", "10 bad.example.", "20 mx1.plain.example.")
    world.dns.put("bad.test", "MX", "10 bad.example.", "20 gone.test.")
    world.dns.behaviours["bad.example"] = Fails()
    resolver = world.resolver(ipv6=True)
    assert names(await resolver.resolve("half.example")) == ["mx1.plain.example"]
    assert failed(await resolver.resolve("bad.test")).kind is ErrorKind.DNS_TEMPORARY


async def test_an_mx_that_is_a_cname_is_followed(world: World) -> None:
    world.dns.put("alias.example", "MX", "10 www.alias.example.")
    world.dns.put("www.alias.example", "CNAME", "further.alias.example.")
    world.dns.put("further.alias.example", "CNAME", "mx1.plain.example.")
    result = await world.resolver().resolve("alias.example")
    assert isinstance(result, Hosts)
    assert result.mx[0].name == "www.alias.example"
    assert set(result.mx[0].addresses) == {"8.8.8.1", "8.8.8.2"}
    world.dns.behaviours.update({"www.alias.example": OneByOne(), "further.alias.example": OneByOne()})
    again = await world.resolver().resolve("alias.example")
    assert isinstance(again, Hosts)
    assert set(again.mx[0].addresses) == {"8.8.8.1", "8.8.8.2"}


async def test_a_domain_that_is_a_cname_is_treated_as_its_target(world: World) -> None:
    world.dns.put("alias.example", "CNAME", "plain.example.")
    assert names(await world.resolver().resolve("alias.example")) == [
        "mx1.plain.example",
        "mx2.plain.example",
    ]


@pytest.mark.parametrize("behaviour", [None, OneByOne()], ids=["in one answer", "one by one"])
async def test_a_cname_loop_ends_and_is_deferred(world: World, behaviour: Behaviour | None) -> None:
    world.dns.put("loop.example", "MX", "10 one.loop.example.")
    world.dns.put("one.loop.example", "CNAME", "two.loop.example.")
    world.dns.put("two.loop.example", "CNAME", "one.loop.example.")
    if behaviour:
        world.dns.behaviours.update({"one.loop.example": behaviour, "two.loop.example": behaviour})
    result = failed(await world.resolver().resolve("loop.example"))
    assert (result.kind, "in circles" in result.detail) == (ErrorKind.DNS_TEMPORARY, True)


async def test_a_chain_of_cnames_without_end_costs_a_bounded_number_of_look_ups(world: World) -> None:
    for step in range(100):
        world.dns.put(f"s{step}.chain.example", "CNAME", f"s{step + 1}.chain.example.")
        world.dns.behaviours[f"s{step}.chain.example"] = OneByOne()
    result = failed(await world.resolver().resolve("s0.chain.example"))
    assert result.kind is ErrorKind.DNS_TEMPORARY
    assert len(world.dns.asked) <= 10


async def test_five_hundred_mx_records_cost_a_bounded_number_of_look_ups(world: World) -> None:
    world.dns.put("big.example", "MX", *(f"{n} mx{n}.big.example." for n in range(500)))
    for n in range(500):
        world.dns.put(f"mx{n}.big.example", "A", f"8.8.{n // 250}.{n % 250 + 1}")
    result = await world.resolver(ipv6=True).resolve("big.example")
    assert names(result) == [f"mx{n}.big.example" for n in range(MOST_HOSTS)]
    assert world.dns.over_tcp == [("big.example", "MX")]
    assert len(world.dns.asked) == 1 + 2 * MOST_HOSTS


@pytest.mark.parametrize(
    ("rdtype", "address"),
    [("A", "127.0.0.1"), ("A", "10.0.0.1"), ("A", "169.254.169.254"), ("AAAA", "::1"), ("AAAA", "fd00::1"), ("AAAA", "::ffff:10.0.0.1")],
)  # fmt: skip
async def test_a_host_in_a_network_that_is_not_public_is_refused_unless_allowed(
    world: World, rdtype: str, address: str
) -> None:
    world.dns.put("inside.example", "MX", "10 mx.inside.example.")
    world.dns.put("mx.inside.example", rdtype, address)
    refused = failed(await world.resolver(ipv6=True).resolve("inside.example"))
    assert refused.kind is ErrorKind.NO_ROUTE
    assert "mx.inside.example [" in refused.detail
    assert "[mx] allow_networks" in refused.detail
    allowing = world.resolver(ipv6=True, allow_private=(ip_network(address),))
    assert names(await allowing.resolve("inside.example")) == ["mx.inside.example"]


async def test_literals_go_to_their_address_and_ask_nobody(world: World) -> None:
    resolver = world.resolver(ipv6=True)
    for domain, address in (("[8.8.8.8]", "8.8.8.8"), ("[IPv6:2607::9]", "2607::9")):
        result = await resolver.resolve(domain)
        assert isinstance(result, Hosts)
        assert result.mx[0].addresses == (address,)
    assert failed(await resolver.resolve("[127.0.0.1]")).kind is ErrorKind.NO_ROUTE
    assert not world.dns.asked


async def test_an_answer_is_remembered_for_its_ttl_and_at_least_a_minute(world: World) -> None:
    resolver = world.resolver()
    await resolver.resolve("plain.example")
    await world.clock.advance(59)
    await resolver.resolve("plain.example")
    assert world.dns.count("plain.example", "MX") == 1
    await world.clock.advance(2)
    world.dns.put("plain.example", "MX", "10 mx2.plain.example.", ttl=600)
    world.dns.put("mx2.plain.example", "A", "8.8.8.4", ttl=500)
    assert names(await resolver.resolve("plain.example")) == ["mx2.plain.example"]
    await world.clock.advance(499)
    await resolver.resolve("plain.example")
    assert world.dns.count("plain.example", "MX") == 2


async def test_failures_are_remembered_for_a_short_time(world: World) -> None:
    resolver = world.resolver()
    world.dns.behaviours["plain.example"] = Fails()
    await resolver.resolve("plain.example")
    await resolver.resolve("new.test")
    asked = len(world.dns.asked)
    await world.clock.advance(10)
    await resolver.resolve("plain.example")
    await resolver.resolve("new.test")
    assert len(world.dns.asked) == asked
    del world.dns.behaviours["plain.example"]
    world.dns.put("new.test", "MX", "10 mx1.plain.example.")
    await world.clock.advance(20)
    assert names(await resolver.resolve("plain.example"))
    assert failed(await resolver.resolve("new.test"))
    await world.clock.advance(31)
    assert names(await resolver.resolve("new.test"))


async def test_what_was_not_asked_for_the_longest_time_is_forgotten_first(world: World) -> None:
    resolver = world.resolver(kept_domains=2)
    for domain in ("a.test", "b.test", "a.test", "c.test", "a.test", "b.test"):
        await resolver.resolve(domain)
    assert [world.dns.count(name, "MX") for name in ("a.test", "b.test", "c.test")] == [1, 2, 1]


async def test_one_answer_is_ordered_anew_for_each_session(world: World) -> None:
    world.dns.put("equal.example", "MX", "10 mx1.plain.example.", "10 mx2.plain.example.")
    resolver = world.resolver()
    first = {names(await resolver.resolve("equal.example"))[0] for _ in range(64)}
    assert first == {"mx1.plain.example", "mx2.plain.example"}
    assert world.dns.count("equal.example", "MX") == 1


async def test_look_ups_of_one_domain_at_once_share_one_query(world: World) -> None:
    held = world.dns.behaviours["plain.example MX"] = Held()
    resolver = world.resolver()
    waiting = [asyncio.create_task(resolver.resolve("plain.example")) for _ in range(50)]
    await world.dns.until_asked("plain.example", "MX")
    waiting[0].cancel()  # the first to ask goes away; the others still get their answer
    held.released.set()
    results = await asyncio.gather(*waiting[1:])
    assert {result.mx[0].name for result in results if isinstance(result, Hosts)} == {"mx1.plain.example"}
    assert world.dns.count("mx1.plain.example", "A") == 1


async def test_a_slow_name_server_for_one_domain_holds_up_no_other(world: World) -> None:
    held = world.dns.behaviours["slow.example"] = Held()
    world.dns.put("slow.example", "MX", "10 mx1.plain.example.")
    resolver = world.resolver()
    slow = asyncio.create_task(resolver.resolve("slow.example"))
    await world.dns.until_asked("slow.example", "MX")
    for n in range(20):
        world.dns.put(f"d{n}.example", "MX", "10 mx1.plain.example.")
        assert names(await resolver.resolve(f"d{n}.example"))
    await world.clock.advance(10)
    assert not slow.done()
    held.released.set()
    assert names(await slow) == ["mx1.plain.example"]


async def test_silence_ends_at_the_time_out_of_the_domain(world: World) -> None:
    world.dns.behaviours["silent.example"] = Silent()
    resolver = world.resolver(timeout_s=20)
    silent = asyncio.create_task(resolver.resolve("silent.example"))
    await world.dns.until_asked("silent.example", "MX")
    await world.clock.advance(19)
    assert not silent.done()
    await world.clock.advance(2)
    result = failed(await silent)
    assert (result.kind, result.detail) == (
        ErrorKind.DNS_TEMPORARY,
        "MX of silent.example: no answer in 20 s",
    )


async def test_an_address_that_does_not_come_in_time_costs_no_other(world: World) -> None:
    world.dns.put("part.example", "MX", "10 silent.example.", "20 mx1.plain.example.")
    world.dns.behaviours["silent.example"] = Silent()
    world.dns.behaviours["mx1.plain.example AAAA"] = Silent()
    resolver = world.resolver(ipv6=True)
    asking = asyncio.create_task(resolver.resolve("part.example"))
    await world.dns.until_asked("mx1.plain.example", "AAAA")
    # Answers come in the order of their questions: once this one is there, so is the A record of mx1.
    world.dns.put("later.example", "A", "8.8.8.9")
    assert names(await resolver.resolve("later.example")) == ["later.example"]
    await world.clock.advance(21)
    result = await asking
    assert isinstance(result, Hosts)
    assert [host.name for host in result.mx] == ["mx1.plain.example"]
    assert set(result.mx[0].addresses) == {"8.8.8.1", "8.8.8.2"}


async def test_nobody_at_the_name_server_is_a_temporary_failure() -> None:
    async with scripted_dns() as dns:
        nameserver = dns.nameserver
    resolver = MxResolver(FakeClock(), nameservers=[nameserver])
    result = failed(await resolver.resolve("plain.example"))
    await resolver.close()
    assert result.kind is ErrorKind.DNS_TEMPORARY


async def test_closing_drops_what_is_being_looked_up(world: World) -> None:
    world.dns.behaviours["silent.example"] = Silent()
    resolver = MxResolver(world.clock, nameservers=[world.dns.nameserver])
    asking = asyncio.create_task(resolver.resolve("silent.example"))
    await world.dns.until_asked("silent.example", "MX")
    await resolver.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_the_configuration_makes_the_resolver(world: World) -> None:
    config = MxConfig(nameservers=(world.dns.nameserver,), allow_networks=("127.0.0.0/8",), port=2525)
    world.dns.put("inside.example", "A", "127.0.0.5")
    resolver = resolver_of(config, world.clock)
    result = await resolver.resolve("inside.example")
    await resolver.close()
    assert isinstance(result, Hosts)
    assert (result.mx[0].addresses, result.port) == (("127.0.0.5",), 2525)
