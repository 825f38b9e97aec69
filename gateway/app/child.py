"""One role's process: `python -m gateway.app.child`, started by the supervisor alone.

Flow: tie to the supervisor → read the brief → set up logs → report → import the role and run it until SIGTERM; what the supervisor says
meanwhile of a changed configuration goes to the role. Ctrl-C in a terminal, and its end, reach every process of the group; a child
ignores both and waits for the supervisor's word.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from importlib import import_module
from typing import Protocol, cast

import uvloop
from prometheus_client import CollectorRegistry, ProcessCollector

from gateway import __version__
from gateway.app.brief import Brief, decode, decode_tuning
from gateway.app.exits import Exit, exit_code
from gateway.app.lifeline import Pipe, die_with_parent, hold
from gateway.app.report import serve_report
from gateway.app.tuning import Tunings
from gateway.errors import GatewayError
from gateway.telemetry import Event, Metrics, configure_logging, log


class RoleModule(Protocol):
    """A module of `gateway.app.roles`."""

    async def start(self, brief: Brief, tunings: Tunings, stop: asyncio.Event, metrics: Metrics) -> Exit:
        """Work until `stop` is set, then finish what was begun; follow the tunings meanwhile, and count in `metrics`."""
        ...


def main() -> int:
    """Run the role that the brief names; the exit status."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pipe = Pipe(0)
    line = pipe.line()
    if not line.endswith(b"\n"):  # the supervisor ended before it had said what to do
        return Exit.TEMPORARY
    brief = decode(line)
    configure_logging(brief.log_level, brief.log_json)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(brief, pipe))


async def _live(brief: Brief, pipe: Pipe) -> Exit:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tunings = Tunings(brief.tuning)
    hold(
        pipe,
        lambda line: loop.call_soon_threadsafe(tunings.take, decode_tuning(line)),
        lambda: loop.call_soon_threadsafe(stop.set),
        exit_code=Exit.TEMPORARY,
    )
    metrics = Metrics(CollectorRegistry())
    ProcessCollector(registry=metrics.registry)
    log.info(Event.PROCESS_STARTED, role=brief.role.value, pid=os.getpid(), version=__version__)
    reporting: asyncio.Server | None = None  # uvloop closes a server that nobody holds
    try:
        if brief.report:
            reporting = await serve_report(brief.report, metrics.registry)
        # By name: a process loads its own role's packages and no other's.
        role = cast("RoleModule", import_module(f"gateway.app.roles.{brief.role}"))
        return await role.start(brief, tunings, stop, metrics)
    except GatewayError as error:
        log.error(Event.PROCESS_ENDED, role=brief.role.value, pid=os.getpid(), problem=str(error))
        return exit_code(error)
    except Exception as error:
        log.error(Event.PROCESS_ENDED, role=brief.role.value, pid=os.getpid(), exc_info=True)
        return exit_code(error)
    finally:
        if reporting is not None:
            reporting.close()


if __name__ == "__main__":
    sys.exit(main())
