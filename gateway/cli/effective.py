"""The limits of one destination: what holds, and which line of which file says so.

Owns how rules and files are put together for people; which rule wins is `throttle.shaping`'s, which file wins
`dispatch.connections`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from gateway.config import Loaded
from gateway.config.shown import text_of
from gateway.config.strict_toml import Document, KeyPath
from gateway.throttle.shaping import Origin, Shaping

_SMALLER_OF: Final = {
    "max_per_dispatcher": "connections_per_lane",
    "messages_per_connection": "messages_per_connection",
    "idle_connection_s": "idle_connection_s",
}
"""Limits that `[dispatch]` of gateway.toml bounds as well: the smaller one holds."""


class Held(msgspec.Struct, frozen=True):
    """One limit in force.

    Attributes:
        limit: its key in throttles.toml.
        source: `default`, `file:line`, or `environment NAME`.
        rule: the table that gave it, as it stands in the file; empty for a built-in default.
        instead_of: what another file says, where that is larger and therefore does not hold; else empty.
    """

    limit: str
    value: float
    source: str
    rule: str
    instead_of: str = ""


def held(
    domain: str,
    shaping: Shaping,
    throttles: Document | None,
    loaded: Loaded,
    *,
    site_name: str = "",
    mx_hosts: Sequence[str] = (),
) -> Iterator[Held]:
    """Yield each limit that holds for a domain (lower case, A-labels); MX hosts and site name where they are known."""
    for limit, origin in shaping.explain(domain, site_name=site_name, mx_hosts=mx_hosts).items():
        ours = _of_throttles(limit, origin, throttles)
        theirs = _of_dispatch(limit, loaded)
        if theirs is None or theirs.value >= ours.value:
            yield ours
        else:
            larger = f"{text_of(ours.value)} {ours.source} {ours.rule}".rstrip()
            yield msgspec.structs.replace(theirs, instead_of=larger)


def table_name(rule: str) -> str:
    """Write a rule's table as it stands in the file: `provider.google` → `[provider.google]`, `domain.a.b` → `[domain."a.b"]`."""
    kind, dot, name = rule.partition(".")
    if not dot:
        return f"[{kind}]"
    plain = name.replace("-", "").replace("_", "")
    return f"[{kind}.{name}]" if plain.isascii() and plain.isalnum() else f'[{kind}."{name}"]'


def _of_throttles(limit: str, origin: Origin, throttles: Document | None) -> Held:
    kind, dot, name = origin.rule.partition(".")
    key: KeyPath = (kind, name, limit) if dot else (kind, limit)
    if throttles is None or not throttles.has(key):
        return Held(limit, origin.value, "default", "")
    return Held(limit, origin.value, f"{throttles.path}:{throttles.line_of(key)}", table_name(origin.rule))


def _of_dispatch(limit: str, loaded: Loaded) -> Held | None:
    name = _SMALLER_OF.get(limit)
    if name is None:
        return None
    value = getattr(loaded.config.dispatch, name)
    return Held(limit, value, loaded.source(("dispatch", name)), f"[dispatch] {name}")
