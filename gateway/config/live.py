"""Which keys of `gateway.toml` are taken while the gateway runs, and which wait for the next start. Pure.

A key is live where every process can put the new value to use at once. Sizes that something was made with (a pool, a window, a
socket), names in what has been accepted, and where state lives are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.config.sections import Config
from gateway.config.strict_toml import KeyPath, known_keys

_WHOLE_SECTIONS: Final = ("route", "retry", "expiry", "doubt")
_OF_API: Final = ("requests_per_s", "requests_burst", "backlog_limit")
_OF_DISPATCH: Final = (
    "connections_per_lane",
    "messages_per_connection",
    "idle_connection_s",
    "claim_rows",
    "max_lanes_per_claim",
    "tls",
    "connect_timeout_s",
    "banner_timeout_s",
    "mail_timeout_s",
    "rcpt_timeout_s",
    "data_timeout_s",
    "data_block_timeout_s",
    "min_transfer_bytes_per_s",
    "dot_timeout_s",
)

LIVE: Final[frozenset[KeyPath]] = frozenset(
    {(section, key) for section in _WHOLE_SECTIONS for key in known_keys(Config, (section,))}
    | {("api", key) for key in _OF_API}
    | {("dispatch", key) for key in _OF_DISPATCH}
)
"""Keys that need no restart."""


def in_force(started: Config, wanted: Config) -> Config:
    """Return what holds after a change while the gateway runs: the live keys as wanted, all others as started."""
    sections: dict[str, Any] = {}
    for section in known_keys(Config):
        keys = [key for at, key in LIVE if at == section]
        if keys:
            new: Mapping[str, Any] = {key: getattr(getattr(wanted, section), key) for key in keys}
            sections[section] = msgspec.structs.replace(getattr(started, section), **new)
    return msgspec.structs.replace(started, **sections)


def is_live(key: KeyPath) -> bool:
    """Whether a change of this key (of `route.domains` also one entry) is taken without a restart."""
    return key[:2] in LIVE
