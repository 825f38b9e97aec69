"""Load on an SMTP receiver: many connections, pipelined, from one process. It measures the sink, not the gateway.

Each connection sends one message after another, as the gateway's wire does: MAIL, RCPT and DATA in one write; when
the 354 is there, the content and the next message's commands in one write (RFC 2920 §3.1). One message of usual size
costs the receiver one read and one write. It is meant for a receiver that takes everything (``--world accept``): any
other reply ends its connection, and the messages that it left unanswered count as failed.

Example: ``python -m bench.load.inject --port 2525 --messages 100000 --sink-pid 4711``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

_CLOCK_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Run:
    """What is to be sent, and what became of it. Mutable: all connections count in it."""

    messages: int
    connections: int
    body: bytes  # dot-stuffed, ends with CRLF
    domains: int
    done: asyncio.Future[None]
    started: int = 0
    sent: int = 0
    failed: int = 0
    open: int = 0
    tag: str = field(default_factory=lambda: f"{os.getpid()}.{time.time_ns()}")

    def next(self) -> tuple[bytes, bytes] | None:
        """The envelope and content of the next message; None when all were handed out."""
        number = self.started
        if number >= self.messages:
            return None
        self.started += 1
        to = b"p%d@d%d.test" % (number, number % self.domains)
        envelope = b"MAIL FROM:<b@bench.test> BODY=8BITMIME\r\nRCPT TO:<%s>\r\nDATA\r\n" % to
        head = b"From: b@bench.test\r\nTo: %s\r\nMessage-ID: <%d.%s@bench.test>\r\n\r\n"
        return envelope, head % (to, number, self.tag.encode()) + self.body + b".\r\n"


class Injector(asyncio.Protocol):
    """One connection: knows which replies the group that it wrote last must get."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rest = b""
        self._content = b""  # of the message whose envelope is out
        self._unanswered = 0  # messages that this connection began and that have no 250 for their dot
        self._expected: deque[bytes] = deque([b"220"])
        self._dot = False  # the next reply is a dot's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it; the receiver speaks first."""
        self._transport = cast("asyncio.Transport", transport)
        self._run.open += 1

    def data_received(self, data: bytes) -> None:
        """Match replies with what is expected; write the next group when all are there."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        code = b""
        for line in lines:
            if line[3:4] == b"-":
                continue
            code = line[:3]
            if not self._expected or code != self._expected.popleft():
                self._transport.abort()
                return
            if self._dot:
                self._dot = False
                self._unanswered -= 1
                self._run.sent += 1
        if code and not self._expected:
            self._go_on(code)

    def connection_lost(self, exc: Exception | None) -> None:
        """What was unanswered failed; the last one out ends the run."""
        del exc
        run = self._run
        run.failed += self._unanswered
        run.open -= 1
        if run.open == 0 and not run.done.done():
            run.done.set_result(None)

    def _go_on(self, code: bytes) -> None:
        if code == b"220":
            self._expected.append(b"250")
            self._transport.write(b"EHLO bench.test\r\n")
        elif code == b"221":
            self._transport.close()
        else:
            self._write_group()

    def _write_group(self) -> None:
        """The content of the message that got its 354, if any, and the commands of the next one, or QUIT."""
        content = self._content
        following = self._run.next()
        if content:
            self._dot = True
            self._expected.append(b"250")
        if following is None:
            envelope, self._content = b"QUIT\r\n", b""
            self._expected.append(b"221")
        else:
            envelope, self._content = following
            self._unanswered += 1
            self._expected.extend((b"250", b"250", b"354"))
        self._transport.write(content + envelope)


async def inject(host: str, port: int, run: Run) -> float:
    """Send ``run``'s messages; the seconds that it took. Raises OSError when nobody listens."""
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    for _ in range(run.connections):
        await loop.create_connection(lambda: Injector(run), host, port)
    await run.done
    return time.monotonic() - started


async def _main(args: argparse.Namespace) -> int:
    line = b"x" * 76 + b"\r\n"
    body = line * max(args.body_bytes // len(line), 1)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    run = Run(args.messages, min(args.connections, args.messages), body, args.domains, done)
    before = _cpu_s(args.sink_pid)
    took_s = await inject(args.host, args.port, run)
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures: dict[str, float] = {
        "sent": run.sent,
        "failed": run.messages - run.sent,
        "seconds": round(took_s, 3),
        "messages_per_s": round(run.sent / took_s),
        "injector_cpu_us": round((used.ru_utime + used.ru_stime) / max(run.sent, 1) * 1e6, 1),
    }
    if args.sink_pid:
        figures["sink_cpu_us"] = round((_cpu_s(args.sink_pid) - before) / max(run.sent, 1) * 1e6, 1)
    print(
        json.dumps(figures)
        if args.json
        else "\n".join(f"{name:>16} {value:,}" for name, value in figures.items())
    )
    return 0 if run.sent == run.messages else 1


def _cpu_s(pid: int | None) -> float:
    """CPU seconds that process ``pid`` has used, user and system (Linux: proc(5), fields 14 and 15)."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _CLOCK_TICK_S


def main(argv: list[str] | None = None) -> int:
    """Run the injector; 0 when every message was taken, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load.inject",
        description="Pipelined SMTP load from many connections; prints messages per second and CPU per message.",
        epilog="example: python -m bench.load.inject --port 2525 --messages 100000 --sink-pid 4711",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="where the receiver listens (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, required=True, help="its TCP port")
    parser.add_argument("--messages", type=int, default=50_000, help="how many (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=50, help="at once (default: %(default)s)")
    parser.add_argument("--body-bytes", type=int, default=4_000, help="size of a body (default: %(default)s)")
    parser.add_argument("--domains", type=int, default=10, help="recipients' domains (default: %(default)s)")
    parser.add_argument("--sink-pid", type=int, help="report this process's CPU per message too (Linux)")
    parser.add_argument("--json", action="store_true", help="the figures as one line of JSON")
    args = parser.parse_args(argv)
    try:
        import uvloop  # optional: without it the injector is slower, not different
    except ImportError:
        return asyncio.run(_main(args))
    return uvloop.run(_main(args))


if __name__ == "__main__":
    sys.exit(main())
