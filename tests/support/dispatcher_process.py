"""A dispatcher as a process of its own, for scenarios: the product's `run_dispatcher`, with an end at a chosen moment.

    process = spawn(["--config", "gateway.toml", "--die-at", "answered:100"], log_path)

The faults are laid around the product's functions here, from outside: the product knows nothing of them. A server that has
imported everything once forks the processes, since a fresh interpreter takes 1.4 s to import the dispatcher. The process ends
with the one that started it, however that ended.

Exit status: 0 drained, 75 fenced, 1 anything else (its log says what); -9 where `--die-at` struck.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvloop

from gateway.clock import SystemClock
from gateway.config import load
from gateway.dispatch import lease
from gateway.dispatch.content import Contents
from gateway.dispatch.lease import Fenced
from gateway.dispatch.run import run_dispatcher
from gateway.mta.bounce_rules import BounceRules, RuledJudge, load_bounces
from gateway.mta.journal import Journal
from gateway.store.queue import Queue
from gateway.telemetry import configure_logging

FENCED = 75
_PR_SET_PDEATHSIG = 1


def _one(*_: Any) -> int:
    return 1


# name → (owner, function, whether after it, what one call weighs, from its arguments and its answer)
MOMENTS: dict[str, tuple[type, str, bool, Callable[..., int]]] = {
    "claimed": (Queue, "claim", True, lambda args, grants: sum(len(g.deliveries) for g in grants)),
    "tried": (Journal, "tried", True, _one),
    "dotted": (Journal, "dotted", True, _one),
    "replied": (Journal, "answered", False, _one),
    "answered": (Journal, "answered", True, _one),
    "acknowledging": (Queue, "acknowledge", False, lambda args, _: len(args[2])),
    "acknowledged": (Queue, "acknowledge", True, lambda args, _: len(args[2])),
}
"""Moments at which a dispatcher can be made to die, in the order of a delivery's life. They count deliveries.

claimed: leased in the database, nothing known here · tried: TRY in the journal, nothing sent · dotted: DOT in the journal, the
content still here · replied: the reply was read, the journal does not say so · answered: RES in the journal · acknowledging:
about to tell Postgres · acknowledged: Postgres has it, the journal does not know.
"""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str, after: int) -> None:
    """Have this process kill itself at `moment`, for the delivery number `after`."""
    owner, name, late, weigh = MOMENTS[moment]
    original = getattr(owner, name)
    left = after

    def count(args: tuple[Any, ...], answer: Any) -> None:
        nonlocal left
        left -= weigh(args, answer)
        if left <= 0:
            _die()

    async def later(*args: Any, **options: Any) -> Any:
        if not late:
            count(args, None)
        answer = await original(*args, **options)
        if late:
            count(args, answer)
        return answer

    def at_once(*args: Any, **options: Any) -> Any:
        if not late:
            count(args, None)
        answer = original(*args, **options)
        if late:
            count(args, answer)
        return answer

    setattr(owner, name, later if asyncio.iscoroutinefunction(original) else at_once)


def lose_answers(call: str, one_in: int) -> None:
    """Have Postgres do what `call` (claim, acknowledge or release) asks, but lose every so manieth answer on the way back."""
    original = getattr(Queue, call)
    calls = 0

    async def forgetful(*args: Any, **options: Any) -> Any:
        nonlocal calls
        answer = await original(*args, **options)
        calls += 1
        if calls % one_in == 0:
            raise ConnectionResetError(f"the answer of {call} was lost on purpose")
        return answer

    setattr(Queue, call, forgetful)


def poison(local_part: str) -> None:
    """Have this process die as by a crash in native code when it makes the mail of a recipient with that local part."""
    original = Contents.make

    def make(self: Contents, delivery: Any) -> Any:
        if delivery.recipient.partition("@")[0] == local_part:
            _die()
        return original(self, delivery)

    setattr(Contents, "make", make)  # noqa: B010 (a type checker would object to the assignment)


def spawn(arguments: Sequence[str], log: Path) -> BaseProcess:
    """Start a dispatcher; what it says goes to the file `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=run, args=(list(arguments), log), daemon=True)
    process.start()
    return process


def run(arguments: list[str], log: Path) -> None:
    """Be the dispatcher: in a process of its own, until it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # reaches a stopped process too
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(output, standard)
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--die-at", metavar="MOMENT:COUNT")
    parser.add_argument("--lose-answers", metavar="CALL:ONE_IN")
    parser.add_argument("--poison", metavar="LOCAL_PART")
    parser.add_argument("--journal-grace-s", type=float)
    parser.add_argument(
        "--file-bytes", type=int, help="no file of this process grows longer, as on a full disk"
    )
    parser.add_argument("--spare-descriptors", type=int, help="how many more files and sockets it may open")
    args = parser.parse_args(arguments)
    if args.die_at:
        moment, _, after = args.die_at.partition(":")
        die_at(moment, int(after))
    if args.lose_answers:
        call, _, one_in = args.lose_answers.partition(":")
        lose_answers(call, int(one_in))
    if args.poison:
        poison(args.poison)
    if args.journal_grace_s is not None:
        setattr(lease, "JOURNAL_GRACE_S", args.journal_grace_s)  # noqa: B010
    if args.file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.file_bytes, args.file_bytes))
        sys.tracebacklimit = 2  # its log is such a file, too: the words must find room in it
    if args.spare_descriptors is not None:
        most = max(map(int, os.listdir("/proc/self/fd"))) + 1 + args.spare_descriptors
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    configure_logging("info", json=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_live(args.config)))


async def _live(config_path: Path) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if (parent := multiprocessing.parent_process()) is not None:
        loop.add_reader(parent.sentinel, os._exit, 1)
    config = load(config_path, {})
    bounces = config_path.with_name("bounces.toml")
    judge = RuledJudge(load_bounces(bounces) if bounces.exists() else BounceRules())
    try:
        await run_dispatcher(config, config.database.dsn, clock=SystemClock(), stop=stop, judge=judge)
    except Fenced:
        return FENCED
    return 0
