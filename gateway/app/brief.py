"""What a child is told at its start: one line of JSON through its standard input.

By this way no DSN stands on a command line or in an environment, and a configuration that is edited meanwhile cannot
make two children of one supervisor differ. Pure.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway.config.sections import Config
from gateway.mta.bounce_rules import BounceRules
from gateway.throttle.shaping import Shaping


class Role(StrEnum):
    """The kinds of process that make a gateway."""

    API = "api"
    DISPATCH = "dispatch"
    SCHEDULE = "schedule"
    LISTEN = "listen"


class Brief(msgspec.Struct, frozen=True):
    """All that one process needs to know.

    Attributes:
        dsn: where Postgres is, whether configured or our own.
        shaping: the throttles at the start.
        throttles: the file they are from, to be watched; empty where there is none.
        bounce_rules: the rules for replies at the start.
        bounces: the file they are from, as `throttles`.
        log_level: debug, info, warning or error.
        log_json: whether logs are lines of JSON.
    """

    role: Role
    config: Config
    dsn: str
    shaping: Shaping
    throttles: str = ""
    bounce_rules: BounceRules = BounceRules()
    bounces: str = ""
    log_level: str = "info"
    log_json: bool = True


def encode(brief: Brief) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(brief) + b"\n"


def decode(line: bytes) -> Brief:
    """The brief of a line.

    Raises:
        msgspec.DecodeError: not what `encode` wrote.
    """
    return msgspec.json.decode(line, type=Brief)
