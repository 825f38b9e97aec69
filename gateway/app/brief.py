"""What a child is told: one line of JSON at its start, and one more whenever the configuration was changed.

Both come through its standard input. By this way no DSN stands on a command line or in an environment, and a configuration that
is edited meanwhile cannot make two children of one supervisor differ. Pure.
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


class Tuning(msgspec.Struct, frozen=True):
    """What the files say and may change while the gateway runs; of `config` only the live keys do."""

    config: Config
    shaping: Shaping = Shaping()
    bounce_rules: BounceRules = BounceRules()


class Brief(msgspec.Struct, frozen=True):
    """All that one process needs to know at its start.

    Attributes:
        dsn: where Postgres is, whether configured or our own.
        tuning: what the files say.
        log_level: debug, info, warning or error.
        log_json: whether logs are lines of JSON.
        report: path of the socket where this process says how it is; empty: nowhere.
    """

    role: Role
    dsn: str
    tuning: Tuning
    log_level: str = "info"
    log_json: bool = True
    report: str = ""


def encode(what: Brief | Tuning) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(what) + b"\n"


def decode(line: bytes) -> Brief:
    """The brief of a line.

    Raises:
        msgspec.DecodeError: not what `encode` wrote.
    """
    return msgspec.json.decode(line, type=Brief)


def decode_tuning(line: bytes) -> Tuning:
    """The tuning of a later line.

    Raises:
        msgspec.DecodeError: not what `encode` wrote.
    """
    return msgspec.json.decode(line, type=Tuning)
