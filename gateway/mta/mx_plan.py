"""From DNS answers to the hosts and addresses that a domain's mail is tried at, in order, or to why there are none.

Owns the rules of RFC 5321 §5.1 and RFC 7505 and the limits that keep any domain's answers cheap. Pure. Must not know how DNS is
asked (`mta/dns.py`) or what is remembered (`mta/mx.py`).

    MX answer ─chosen─▶ names to look up ─planned─▶ Plan (may be kept) ─ordered─▶ Hosts (one throw of the dice) ─tries─▶ addresses

What a failure means:

    MX: no such name (NXDOMAIN)                     NO_DOMAIN, permanent
    MX: "." alone                                   NULL_MX, permanent (RFC 7505 §3)
    no MX, no address either                        NO_DOMAIN, permanent: 5.1.2 is "does not exist or is incapable of accepting mail"
    any answer missing, and no host usable          DNS_TEMPORARY (RFC 5321 §5.1: queued and tried again)
    MX hosts, all without an address                NO_ROUTE, deferred: a domain with MX records means to take mail, and a permanent
                                                    failure would suppress all its recipients for one wrong record; it ends by expiry
    only addresses that are refused                 NO_ROUTE, deferred, with the address and the key that would allow it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from itertools import chain, zip_longest
from random import Random
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from gateway.model.disposition import Disposition, Stage
from gateway.mta.networks import Network, refusal
from gateway.mta.reply import ErrorKind, from_error
from gateway.mta.site import site_name

T = TypeVar("T")

MOST_HOSTS: Final = 20
"""MX hosts of a domain whose addresses are looked up; the rest of a longer set is not used."""

MOST_ADDRESSES: Final = 8
"""Addresses of one host that are tried."""

KEEP_LEAST_S, KEEP_MOST_S, KEEP_NEGATIVE_S, KEEP_TEMPORARY_S = 60.0, 3_600.0, 60.0, 15.0
"""How long an answer is kept, in seconds: bounds of a TTL, a negative answer, a temporary failure."""

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*", re.ASCII
)  # fmt: skip


class Found(msgspec.Struct, Generic[T], frozen=True):
    """Records of the asked type. `ttl_s` is the least of them and of the CNAMEs on the way."""

    values: tuple[T, ...]
    ttl_s: int


class Absent(msgspec.Struct, frozen=True):
    """Authoritatively nothing: no such name (NXDOMAIN), or a name without the asked type (NODATA)."""

    name_exists: bool


class Unanswered(msgspec.Struct, frozen=True):
    """No answer that says anything about the name: time-out, SERVFAIL, refused."""

    why: str


Answer: TypeAlias = Found[T] | Absent | Unanswered


class Exchange(msgspec.Struct, frozen=True):
    """One MX record, or the implicit one; `name` in lower case without a final dot, empty for the root."""

    preference: int
    name: str


class Addresses(msgspec.Struct, frozen=True):
    """What the look-ups of one host name gave."""

    v4: Answer[str]
    v6: Answer[str]


class MxHost(msgspec.Struct, frozen=True):
    """A host that takes a domain's mail, with its addresses in the order in which they are tried."""

    name: str
    preference: int
    addresses: tuple[str, ...]


class Hosts(msgspec.Struct, frozen=True):
    """Where a domain's mail goes, best host first; at least one host, each with at least one address."""

    domain: str
    mx: tuple[MxHost, ...]
    site_name: str
    port: int = 25


class NoHosts(msgspec.Struct, frozen=True):
    """Why a domain's mail can go nowhere, for now or for good."""

    domain: str
    kind: ErrorKind
    detail: str

    @property
    def disposition(self) -> Disposition:
        """What an attempt to this domain comes to."""
        return from_error(self.kind, Stage.CONNECT, self.detail)


class Candidate(msgspec.Struct, frozen=True):
    """A usable host before the dice are thrown."""

    name: str
    preference: int
    v4: tuple[str, ...]
    v6: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True):
    """A domain's usable hosts, in no order, and how long they may be kept."""

    domain: str
    candidates: tuple[Candidate, ...]
    site_name: str
    keep_s: float


class Policy(msgspec.Struct, frozen=True):
    """What the operator lets us use."""

    ipv6: bool = False
    allowed: tuple[Network, ...] = ()
    """Networks that may be written to though they are not public."""


def is_host_name(name: str) -> bool:
    """Whether a name (lower case, A-labels, no final dot) can be asked for at all."""
    return _HOST_NAME.fullmatch(name) is not None


def literal(domain: str, policy: Policy, port: int = 25) -> Hosts | NoHosts:
    """Read an address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3)."""
    inside = domain[1:-1] if domain.endswith("]") else ""
    is_v6 = inside[:5].lower() == "ipv6:"
    try:
        address = ip_address(inside[5:] if is_v6 else inside)
        if isinstance(address, IPv6Address) is not is_v6 or "%" in inside:
            raise ValueError
    except ValueError:
        return NoHosts(domain, ErrorKind.NO_DOMAIN, f"{domain} is neither [192.0.2.1] nor [IPv6:2001:db8::1]")
    if why := _refused(str(address), policy):
        return NoHosts(domain, ErrorKind.NO_ROUTE, f"{address} {why}")
    return Hosts(domain, (MxHost(domain, 0, (str(address),)),), domain, port)


def chosen(domain: str, answer: Answer[Exchange], rng: Random) -> tuple[Exchange, ...] | NoHosts:
    """Return the hosts whose addresses are worth a look-up, best first, at most `MOST_HOSTS`."""
    match answer:
        case Unanswered(why=why):
            return NoHosts(domain, ErrorKind.DNS_TEMPORARY, f"MX of {domain}: {why}")
        case Absent(name_exists=False):
            return NoHosts(domain, ErrorKind.NO_DOMAIN, domain)
        case Absent():
            return (Exchange(0, domain),)  # RFC 5321 §5.1: the implicit MX
        case Found(values=values):
            pass
    best: dict[str, int] = {}
    for exchange in values:
        if exchange.name:
            best[exchange.name] = min(exchange.preference, best.get(exchange.name, exchange.preference))
    if not best:
        # RFC 7505 wants preference 0; whoever writes another one means the same, and the root takes no mail.
        return NoHosts(domain, ErrorKind.NULL_MX, domain)
    named = [Exchange(preference, name) for name, preference in best.items() if is_host_name(name)]
    if not named:
        return NoHosts(domain, ErrorKind.NO_ROUTE, f"no MX record of {domain} holds a host name")
    return tuple(sorted(named, key=lambda each: (each.preference, rng.random())))[:MOST_HOSTS]


def planned(
    domain: str,
    mx: Answer[Exchange],
    exchanges: Sequence[Exchange],
    looked_up: Mapping[str, Addresses],
    policy: Policy,
) -> Plan | NoHosts:
    """Put MX answer, chosen hosts and their addresses (by name) together."""
    candidates: list[Candidate] = []
    refused: list[str] = []
    missing: list[str] = []
    for exchange in exchanges:
        addresses = looked_up[exchange.name]
        v4, v6, why = _usable(addresses, policy)
        if v4 or v6:
            candidates.append(Candidate(exchange.name, exchange.preference, v4, v6))
            continue
        if why:
            refused.append(f"{exchange.name} [{why}")
        missing += [
            f"addresses of {exchange.name}: {answer.why}"
            for answer in (addresses.v4, addresses.v6)
            if isinstance(answer, Unanswered)
        ]
    if candidates:
        ttls = [answer.ttl_s for answer in _found(mx, looked_up)]
        keep_s = KEEP_LEAST_S if missing else min(max(min(ttls), KEEP_LEAST_S), KEEP_MOST_S)
        return Plan(domain, tuple(candidates), _site_of(mx, domain), keep_s)
    if missing:
        return NoHosts(domain, ErrorKind.DNS_TEMPORARY, missing[0])
    if refused:
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        return NoHosts(domain, ErrorKind.NO_ROUTE, refused[0] + more)
    if isinstance(mx, Found):
        names = ", ".join(exchange.name for exchange in exchanges[:3])
        return NoHosts(domain, ErrorKind.NO_ROUTE, f"no MX host of {domain} has an address ({names})")
    return NoHosts(domain, ErrorKind.NO_DOMAIN, f"{domain} has neither MX nor address")


def keep_s(result: Plan | NoHosts) -> float:
    """Return how long a result may be kept, in seconds."""
    if isinstance(result, Plan):
        return result.keep_s
    return KEEP_TEMPORARY_S if result.kind is ErrorKind.DNS_TEMPORARY else KEEP_NEGATIVE_S


def ordered(plan: Plan, rng: Random, port: int = 25) -> Hosts:
    """Order a plan for one session: by preference, equals and each host's addresses at random, IPv6 and IPv4 by turns.

    Throwing the dice for each session rather than for each look-up spreads what leaves while one answer is kept.
    """
    best_first = sorted(plan.candidates, key=lambda each: (each.preference, rng.random()))  # RFC 5321 §5.1
    hosts = tuple(
        MxHost(each.name, each.preference, _by_turns(_mixed(each.v6, rng), _mixed(each.v4, rng)))
        for each in best_first
    )
    return Hosts(plan.domain, hosts, plan.site_name, port)


def tries(hosts: Hosts) -> Iterator[tuple[MxHost, str]]:
    """Yield hosts and addresses in the order in which a connection is tried: two of each host, then all others.

    RFC 5321 §5.1 wants at least two addresses tried and allows a limit: eight dead ones of the best host must not use it up.
    """
    for host in hosts.mx:
        yield from ((host, address) for address in host.addresses[:2])
    for host in hosts.mx:
        yield from ((host, address) for address in host.addresses[2:])


def _usable(addresses: Addresses, policy: Policy) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return the addresses that may be used by family, and why the first of the others may not."""
    kept: list[list[str]] = [[], []]
    first_refused = ""
    for family, answer in enumerate((addresses.v4, addresses.v6)):
        for address in answer.values if isinstance(answer, Found) else ():
            if why := _refused(address, policy):
                first_refused = first_refused or f"{address}] {why}"
            elif len(kept[family]) < MOST_ADDRESSES and address not in kept[family]:
                kept[family].append(address)
    return tuple(kept[0]), tuple(kept[1]), first_refused


def _refused(address: str, policy: Policy) -> str:
    if why := refusal(address, policy.allowed):
        return f"is {why}; a network in [mx] allow_networks would allow it"
    return "is IPv6; [mx] ipv6 = true would allow it" if ":" in address and not policy.ipv6 else ""


def _found(
    mx: Answer[Exchange], looked_up: Mapping[str, Addresses]
) -> Iterator[Found[Exchange] | Found[str]]:
    if isinstance(mx, Found):
        yield mx
    for addresses in looked_up.values():
        for answer in (addresses.v4, addresses.v6):
            if isinstance(answer, Found):
                yield answer


def _site_of(mx: Answer[Exchange], domain: str) -> str:
    """Name the whole MX set, also of hosts that are down or beyond the limit: it must not change with them."""
    if not isinstance(mx, Found):
        return domain
    return site_name(exchange.name for exchange in mx.values if is_host_name(exchange.name))


def _mixed(addresses: tuple[str, ...], rng: Random) -> list[str]:
    return sorted(addresses, key=lambda _: rng.random())


def _by_turns(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    turns = chain.from_iterable(zip_longest(first, second))
    return tuple(address for address in turns if address is not None)[:MOST_ADDRESSES]
