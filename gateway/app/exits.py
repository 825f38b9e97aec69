"""Exit codes, and how an error becomes one: for the supervisor's children and for the command line alike.

Those above 2 are of sysexits.h, so that a service manager can tell "try again" from "mend the file first".
"""

from __future__ import annotations

from enum import IntEnum

from gateway.errors import ConfigError, GatewayError, StoreUnavailable


class Exit(IntEnum):
    """What a process's end means."""

    OK = 0
    FAILED = 1
    """It could not do what was asked, or the answer is no (the books do not balance)."""
    USAGE = 2
    """The command line is wrong."""
    BUG = 70
    """An error that nobody foresaw; its trace is in the log."""
    TEMPORARY = 75
    """Postgres is away, or a dispatcher lost its lease: starting again may help."""
    CONFIG = 78
    """The configuration is wrong: starting again does not help."""


def exit_code(error: BaseException) -> Exit:
    """What a process that ends by `error` exits with."""
    match error:
        case ConfigError():
            return Exit.CONFIG
        case StoreUnavailable():
            return Exit.TEMPORARY
        case GatewayError():
            return Exit.FAILED
        case _:
            return Exit.BUG
