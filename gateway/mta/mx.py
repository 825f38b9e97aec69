"""Where mail for a domain goes: look-ups with a memory.

Owns what is asked, for how long, and what is remembered; `mta/mx_plan.py` decides what the answers mean. RFC 5321 §5.1.
Must not know lanes, nor open a connection (`mta/connect.py`).

Look-ups of one domain share one task, and no domain waits for another: a name server that takes ten seconds for one costs the
others nothing. The answers are kept for their TTL within bounds, failures for less (`mx_plan.keep_s`).
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar

from gateway.clock import Clock
from gateway.config import MxConfig
from gateway.mta import mx_plan
from gateway.mta.dns import Dns
from gateway.mta.mx_plan import (
    Absent,
    Addresses,
    Answer,
    Hosts,
    NoHosts,
    Plan,
    Policy,
    Unanswered,
)
from gateway.mta.networks import Network
from gateway.mta.reply import ErrorKind

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

KEPT_DOMAINS: Final = 10_000
"""Domains whose answers are kept; beyond it the one not asked for the longest time goes."""

TIMEOUT_S: Final = 20.0


class MxResolver:
    """Finds the hosts of domains; one per process, made on the running loop."""

    # Mutable on purpose: what is remembered, and what is being looked up.
    def __init__(
        self,
        clock: Clock,
        *,
        nameservers: Sequence[str] = (),
        ipv6: bool = False,
        allow_private: tuple[Network, ...] = (),
        timeout_s: float = TIMEOUT_S,
        port: int = 25,
        kept_domains: int = KEPT_DOMAINS,
        rng: random.Random | None = None,
    ) -> None:
        self._clock, self._timeout_s, self._port, self._kept_domains = clock, timeout_s, port, kept_domains
        self._policy = Policy(ipv6, allow_private)
        self._rng = rng or random.SystemRandom()
        self._dns = Dns(nameservers)
        self._kept: OrderedDict[str, tuple[float, Plan | NoHosts]] = OrderedDict()  # until when (monotonic)
        self._asking: dict[str, asyncio.Task[Plan | NoHosts]] = {}

    async def resolve(self, domain: str) -> Hosts | NoHosts:
        """Return where mail for a domain (A-labels) or an address literal goes, in an order made for one session.

        Ends within `timeout_s`; never raises for what DNS does.
        """
        domain = domain.lower()
        if domain.startswith("["):
            return mx_plan.literal(domain, self._policy, self._port)
        domain = domain.removesuffix(".")
        if not mx_plan.is_host_name(domain):
            # Addresses are checked when they are taken: a name like this is our mistake, and no reason to suppress anybody.
            return NoHosts(
                domain, ErrorKind.NO_ROUTE, f"{domain} is no domain name; expected letter-digit labels (xn--)"
            )
        result = self._remembered(domain)
        if result is None:
            # Not cancelled with the one who asked first: others wait for it, and its answer is kept.
            result = await asyncio.shield(self._asking.get(domain) or self._ask(domain))
        return mx_plan.ordered(result, self._rng, self._port) if isinstance(result, Plan) else result

    def known(self, domain: str) -> Plan | None:
        """Return the hosts of a domain (lower case, A-labels) that an earlier look-up found, without asking again."""
        result = self._remembered(domain)
        return result if isinstance(result, Plan) else None

    async def close(self) -> None:
        """Drop what is being looked up; who waits for it is cancelled."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._dns.close()

    def _remembered(self, domain: str) -> Plan | NoHosts | None:
        until, result = self._kept.get(domain, (0.0, None))
        if result is None or until <= self._clock.monotonic():
            return None
        self._kept.move_to_end(domain)
        return result

    def _ask(self, domain: str) -> asyncio.Task[Plan | NoHosts]:
        task = self._asking[domain] = asyncio.create_task(self._look_up_and_keep(domain))
        return task

    async def _look_up_and_keep(self, domain: str) -> Plan | NoHosts:
        try:
            result = await self._look_up(domain)
        finally:
            del self._asking[domain]
        self._kept[domain] = (self._clock.monotonic() + mx_plan.keep_s(result), result)
        self._kept.move_to_end(domain)
        while len(self._kept) > self._kept_domains:
            self._kept.popitem(last=False)
        return result

    async def _look_up(self, domain: str) -> Plan | NoHosts:
        deadline = asyncio.create_task(self._clock.sleep(self._timeout_s))
        try:
            mx = (await self._by(deadline, {domain: self._dns.exchanges(domain)}))[domain]
            exchanges = mx_plan.chosen(domain, mx, self._rng)
            if isinstance(exchanges, NoHosts):
                return exchanges
            looked_up = await self._addresses(deadline, [each.name for each in exchanges])
            return mx_plan.planned(domain, mx, exchanges, looked_up, self._policy)
        finally:
            deadline.cancel()

    async def _addresses(self, deadline: asyncio.Task[None], names: Sequence[str]) -> dict[str, Addresses]:
        v4 = {(name, "A"): self._dns.v4(name) for name in names}
        v6 = {(name, "AAAA"): self._dns.v6(name) for name in names if self._policy.ipv6}
        answers = await self._by(deadline, v4 | v6)
        if not self._policy.ipv6:
            # AAAA is then asked for only where it decides between "no address" and "none that we use".
            bare = [name for name in names if isinstance(answers[name, "A"], Absent)]
            answers |= await self._by(deadline, {(name, "AAAA"): self._dns.v6(name) for name in bare})
        nothing = Absent(name_exists=True)
        return {name: Addresses(answers[name, "A"], answers.get((name, "AAAA"), nothing)) for name in names}

    async def _by(
        self, deadline: asyncio.Task[None], questions: Mapping[K, Coroutine[Any, Any, Answer[T]]]
    ) -> dict[K, Answer[T]]:
        """Ask side by side; what takes longer than the deadline is left behind, not waited for."""
        asking = {key: asyncio.create_task(question) for key, question in questions.items()}
        try:
            while (pending := {task for task in asking.values() if not task.done()}) and not deadline.done():
                await asyncio.wait((*pending, deadline), return_when=asyncio.FIRST_COMPLETED)
            return {key: task.result() if task.done() else self._late() for key, task in asking.items()}
        finally:
            for task in asking.values():
                task.cancel()

    def _late(self) -> Unanswered:
        return Unanswered(f"no answer in {self._timeout_s:g} s")


def resolver_of(config: MxConfig, clock: Clock) -> MxResolver:
    """Make the resolver that `[mx]` describes, on the running loop."""
    return MxResolver(
        clock,
        nameservers=config.nameservers,
        ipv6=config.ipv6,
        allow_private=config.allowed,
        timeout_s=config.timeout_s,
        port=config.port,
    )
