"""One role's process: `python -m gateway.app.child`, started by the supervisor alone.

Flow: tie to the supervisor → read the brief → set up logs → import the role and run it until SIGTERM. Ctrl-C in a terminal
reaches every process of the group; a child ignores it and waits for the supervisor's word.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from importlib import import_module
from typing import Protocol, cast

import uvloop

from gateway import __version__
from gateway.app.brief import Brief, decode
from gateway.app.exits import Exit, exit_code
from gateway.app.lifeline import die_with_parent, hold
from gateway.errors import GatewayError
from gateway.telemetry import Event, configure_logging, log


class RoleModule(Protocol):
    """A module of `gateway.app.roles`."""

    async def start(self, brief: Brief, stop: asyncio.Event) -> Exit:
        """Work until `stop` is set, then finish what was begun."""
        ...


def main() -> int:
    """Run the role that the brief names; the exit status."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):  # the supervisor ended before it had said what to do
        return Exit.TEMPORARY
    brief = decode(line)
    configure_logging(brief.log_level, brief.log_json)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(brief))


async def _live(brief: Brief) -> Exit:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    hold(0, lambda: loop.call_soon_threadsafe(stop.set), exit_code=Exit.TEMPORARY)
    log.info(Event.PROCESS_STARTED, role=brief.role.value, pid=os.getpid(), version=__version__)
    try:
        # By name: a process loads its own role's packages and no other's.
        role = cast("RoleModule", import_module(f"gateway.app.roles.{brief.role}"))
        return await role.start(brief, stop)
    except GatewayError as error:
        log.error(Event.PROCESS_ENDED, role=brief.role.value, pid=os.getpid(), problem=str(error))
        return exit_code(error)
    except Exception as error:
        log.error(Event.PROCESS_ENDED, role=brief.role.value, pid=os.getpid(), exc_info=True)
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())
