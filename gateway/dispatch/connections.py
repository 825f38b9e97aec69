"""How a lane may use connections in this dispatcher: how many, how often, how long idle.

Owns the one rule: of `throttles.toml` and `gateway.toml` the smaller value holds. MX hosts and site name count from when a look-up
has told them: until then the rules of the domain's name do. Must not know lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from gateway.config import DispatchConfig
from gateway.mta.mx_plan import Plan
from gateway.throttle.shaping import Limits, Shaping

KEPT_DOMAINS: Final = 10_000


class Connections(msgspec.Struct, frozen=True):
    """What holds for one lane in one dispatcher."""

    most: int
    messages: int
    """Messages after which a connection is closed."""
    idle_s: float
    """How long an idle connection is kept."""


def smaller(config: DispatchConfig, limits: Limits) -> Connections:
    """Return what holds where the two files say different things. Pure."""
    return Connections(
        min(config.connections_per_lane, limits.max_per_dispatcher),
        min(config.messages_per_connection, limits.messages_per_connection),
        min(config.idle_connection_s, limits.idle_connection_s),
    )


class ConnectionRules:
    """The rules in force in this dispatcher, and what they came to for domains that it met."""

    # Mutable on purpose: rules that can be replaced, and a bounded memory of what they say.
    def __init__(
        self,
        config: DispatchConfig,
        shaping: Shaping | None = None,
        plan_of: Callable[[str], Plan | None] = lambda _: None,
    ) -> None:
        """Take the rules, and what is known of a domain's MX hosts without asking. Without throttles the configuration decides."""
        self._config, self._shaping, self._plan_of = config, shaping, plan_of
        self._known: dict[tuple[str, str], Connections] = {}

    def retune(self, config: DispatchConfig, shaping: Shaping) -> None:
        """Replace the rules."""
        self._config, self._shaping = config, shaping
        self._known.clear()

    def of(self, domain: str) -> Connections:
        """Return what holds for a lane of this domain (lower case, A-labels)."""
        plan = self._plan_of(domain)
        key = (domain, plan.site_name if plan else "")
        if (known := self._known.get(key)) is None:
            if len(self._known) >= KEPT_DOMAINS:
                self._known.clear()
            known = self._known[key] = self._made(domain, plan)
        return known

    def _made(self, domain: str, plan: Plan | None) -> Connections:
        config = self._config
        if self._shaping is None:
            return Connections(
                config.connections_per_lane, config.messages_per_connection, config.idle_connection_s
            )
        hosts = [candidate.name for candidate in plan.candidates] if plan else []
        site_name = plan.site_name if plan else ""
        return smaller(config, self._shaping.for_domain(domain, site_name=site_name, mx_hosts=hosts))
