"""A receiving SMTP server in a process of its own, with a ledger that the gateway's books are compared with.

The shell around ``session``: sockets, the ledger's file, timers, signals. Order, for every chunk received: the
session judges it, the ledger's lines are written with one ``write()``, the replies go out. It imports nothing from
``gateway/``, and it ends when its parent does (PDEATHSIG on Linux; EOF on ``--parent-fd`` anywhere).

Output: one line ``{"port": …, "pid": …}`` on stdout when it listens; a closing summary at its end, on stderr in
words or with ``--json`` on stdout: recipients taken, CPU, sessions over TLS, and how the last message was signed. Ended by SIGTERM or SIGINT. Exit status: 0, 1 when the ledger cannot be written,
2 for a wrong argument.

A sink that is restarted on an old ledger goes on with it, but has forgotten which recipients it had seen.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import resource
import signal
import socket
import ssl
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final, cast

from bench.load import arrival
from bench.load.certificate import server_context
from bench.load.desk import Desk
from bench.load.session import Ending, Session, algorithms
from bench.load.timelog import TimeLog
from bench.load.world import World, WorldError, load, named

_PR_SET_PDEATHSIG: Final = 1
_RESET_AFTER_S: Final = 0.02  # for the 250 to leave before the RST overtakes it
_FLUSH_EVERY_S: Final = 0.5
_GRACE_S: Final = 1.0
_BACKLOG: Final = 4096


class Sink:
    """What the connections share: the desk, the ledger's file, who is connected, and the wish to stop.

    ``tls`` is what STARTTLS is answered with; None: it is not offered.
    """

    def __init__(self, desk: Desk, ledger_fd: int, delay_s: float, tls: ssl.SSLContext | None = None) -> None:
        self.desk = desk
        self.delay_s = delay_s
        self.tls = tls
        self.tls_sessions = 0
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.stopped: asyncio.Future[int] = self.loop.create_future()
        self._ledger_fd = ledger_fd

    def stop(self, status: int = 0) -> None:
        """Ask for the end, with this exit status. The first call counts."""
        if not self.stopped.done():
            self.stopped.set_result(status)

    def write_ledger(self) -> bool:
        """Write the desk's lines; whether they are in the file, and replies may go out."""
        lines = self.desk.take_lines()
        try:
            while lines:
                lines = lines[os.write(self._ledger_fd, lines) :]
        except OSError as error:
            print(f"sink: the ledger cannot be written: {error}", file=sys.stderr)
            self.stop(1)
            return False
        return True


class Connection(asyncio.Protocol):
    """One connection: moves bytes between the socket and its session."""

    def __init__(self, sink: Sink, ehlo: bytes) -> None:
        self._sink = sink
        self._session = Session(sink.desk, ehlo, offers_tls=sink.tls is not None)
        self._transport: asyncio.Transport | None = None
        self._outbox: deque[tuple[bytes, Ending]] = deque()  # replies that wait out --delay-ms
        self._timer: asyncio.TimerHandle | None = None
        self._securing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)
        self._sink.connections.add(self)
        self._settle()

    def data_received(self, data: bytes) -> None:
        """Judge, write the ledger, reply."""
        self.arrived(data, time.monotonic())

    def arrived(self, data: bytes, at: float) -> None:
        """Do it for bytes that arrived at ``at`` (monotonic seconds)."""
        self._session.receive(data, at)
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever the session still held back is settled without a reply."""
        del exc
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._sink.connections.discard(self)
        self._session.lost(time.monotonic())
        self._sink.write_ledger()

    def pause_writing(self) -> None:
        """The peer does not read its replies: read no more commands."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def finish(self) -> None:
        """Send what is ready and close. A message whose verdict was held back is settled without a reply."""
        while self._outbox:
            self._send_delayed()
        self._session.lost(time.monotonic())
        self._sink.write_ledger()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, sending nothing more."""
        if self._transport is not None:
            self._transport.abort()

    def _resume(self) -> None:
        self._timer = None
        self._session.resume(time.monotonic())
        self._settle()

    def _settle(self) -> None:
        """Do what the session wants, the ledger first."""
        session, sink = self._session, self._sink
        if not sink.write_ledger():
            self.abort()
            return
        if session.pause_s and self._timer is None:
            self._timer = sink.loop.call_later(session.pause_s, self._resume)
        replies = session.take_replies()
        if not replies and session.ending is Ending.OPEN:
            return
        if sink.delay_s:
            self._outbox.append((replies, session.ending))
            sink.loop.call_later(sink.delay_s, self._send_delayed)
        else:
            self._send(replies, session.ending)

    def _send_delayed(self) -> None:
        if self._outbox:
            self._send(*self._outbox.popleft())

    def _send(self, replies: bytes, ending: Ending) -> None:
        if self._transport is None:
            return
        if ending is Ending.SECURE:
            self._securing = self._sink.loop.create_task(self._secure(self._transport, replies))
            return
        if replies:
            self._transport.write(replies)
        if ending is Ending.CLOSE:
            self._transport.close()
        elif ending is Ending.RESET:
            self._sink.loop.call_later(_RESET_AFTER_S, self._reset)

    async def _secure(self, transport: asyncio.Transport, replies: bytes) -> None:
        sink = self._sink
        assert sink.tls is not None
        # In one step: were the loop to read between the two, it would take the peer's first TLS record for commands.
        transport.write(replies)
        try:
            secured = await sink.loop.start_tls(transport, self, sink.tls, server_side=True)
        except (OSError, TimeoutError):  # no handshake: an SSLError is an OSError
            transport.abort()
            return
        if secured is not None:
            self._transport = secured
            self._session.secured()
            sink.tls_sessions += 1

    def _reset(self) -> None:
        if self._transport is None:
            return
        fd = cast("socket.socket", self._transport.get_extra_info("socket")).fileno()
        with socket.socket(fileno=os.dup(fd)) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


async def serve(args: argparse.Namespace, world: World) -> int:
    """Listen until a signal, the parent's end or a ledger that cannot be written; the exit status."""
    loop = asyncio.get_running_loop()
    times = TimeLog(args.time_log) if args.time_log else None
    desk = Desk(world, hide=args.hide, on_dot=times.dot if times else None)
    ledger_fd = os.open(args.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sink = Sink(desk, ledger_fd, args.delay_ms / 1000, server_context("sink.test") if args.tls else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sink.stop)
    if args.parent_fd is not None:
        loop.add_reader(args.parent_fd, _watch_parent, args.parent_fd, sink)
    servers: list[asyncio.Server] = []
    stamped: list[socket.socket] = []
    port = args.port
    for address, ehlo in ((args.host, world.ehlo), *world.doors.items()):
        if times is not None:
            stamped.append(_listen_stamped(sink, address, port, ehlo))
            port = stamped[0].getsockname()[1]
        else:
            servers.append(await _listen(sink, address, port, ehlo))
            port = servers[0].sockets[0].getsockname()[1]
    flusher = loop.create_task(_flush(times)) if times else None
    gc.freeze()
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)

    status = await sink.stopped

    for server in servers:
        server.close()
    for listening in stamped:
        loop.remove_reader(listening)
        listening.close()
    await _hang_up(sink)
    if flusher is not None:
        flusher.cancel()
    if times is not None:
        times.close()
    os.close(ledger_fd)
    _sum_up(sink, as_json=args.json)
    return status


async def _listen(sink: Sink, host: str, port: int, ehlo: bytes) -> asyncio.Server:
    return await sink.loop.create_server(lambda: Connection(sink, ehlo), host, port, backlog=_BACKLOG)


def _listen_stamped(sink: Sink, host: str, port: int, ehlo: bytes) -> socket.socket:
    listening = socket.create_server((host, port), backlog=_BACKLOG)
    arrival.listen(sink.loop, listening, lambda: Connection(sink, ehlo))
    return listening


async def _hang_up(sink: Sink) -> None:
    """Close all connections; those that do not take their last replies in time are cut."""
    for connection in list(sink.connections):
        connection.finish()
    deadline = sink.loop.time() + _GRACE_S
    while sink.connections and sink.loop.time() < deadline:
        await asyncio.sleep(0.01)
    for connection in list(sink.connections):
        connection.abort()


async def _flush(times: TimeLog) -> None:
    while True:
        await asyncio.sleep(_FLUSH_EVERY_S)
        times.flush()


def _watch_parent(fd: int, sink: Sink) -> None:
    if not os.read(fd, 4096):
        sink.loop.remove_reader(fd)
        sink.stop()


def _sum_up(sink: Sink, *, as_json: bool) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s, accepts = used.ru_utime + used.ru_stime, sink.desk.accepts
    signatures = algorithms(sink.desk.last_head)
    if as_json:
        summary = {
            "accepts": accepts,
            "cpu_s": round(cpu_s, 3),
            "tls_sessions": sink.tls_sessions,
            "signatures": signatures,
        }
        print(json.dumps(summary), flush=True)
    else:
        over_tls = f", {sink.tls_sessions:,} sessions over TLS" if sink.tls else ""
        print(f"sink: took {accepts:,} recipients with {cpu_s:.2f} s of CPU{over_tls}", file=sys.stderr)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _world(name: str, seed: int) -> World:
    if not name.endswith(".toml"):
        return named(name, seed)
    try:
        return load(Path(name).read_text(encoding="utf-8"), seed)
    except OSError as error:
        raise WorldError(f"{name}: {error.strerror}") from None


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load.sink",
        description="A receiving SMTP server that answers like the world and keeps a ledger of what it took.",
        epilog="example: python -m bench.load.sink --port 2525 --ledger data/ledger.tsv --world default --seed 7",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0, the default, picks a free one")
    parser.add_argument("--ledger", type=Path, required=True, help="file to append the ledger to")
    parser.add_argument(
        "--world", default="default", help="default, accept, or a .toml file (see bench/load/world.py)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="which recipients draw which behaviour (0 to 2^64-1)"
    )
    parser.add_argument(
        "--hide", action="store_true", help="leave one message that was taken out of the ledger"
    )
    parser.add_argument(
        "--delay-ms", type=float, default=0.0, help="hold every group of replies back so long"
    )
    parser.add_argument(
        "--tls", action="store_true", help="offer STARTTLS, with a certificate that is made at the start"
    )
    parser.add_argument(
        "--time-log",
        type=Path,
        help="file for the arrivals of final dots by the kernel's clock (see timelog.py)",
    )
    parser.add_argument("--parent-fd", type=int, help="end when this file descriptor of a pipe is at its end")
    parser.add_argument("--json", action="store_true", help="closing summary as one line of JSON on stdout")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the sink; the exit status."""
    _die_with_parent()
    parser = _arguments()
    args = parser.parse_args(argv)
    if args.time_log and args.tls:
        parser.error("--time-log: arrivals are read below TLS; leave --tls out")
    if not 0 <= args.seed < 1 << 64:
        parser.error("--seed: say 0 to 2^64-1")
    try:
        world = _world(args.world, args.seed)
    except WorldError as error:
        parser.error(f"--world: {error}")
    _allow_many_connections()
    try:
        import uvloop  # optional: without it the sink is slower, not different
    except ImportError:
        return asyncio.run(serve(args, world))
    return uvloop.run(serve(args, world))


if __name__ == "__main__":
    sys.exit(main())
