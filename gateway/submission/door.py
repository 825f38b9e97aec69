"""The SMTP door's sockets: STARTTLS on one port, TLS from the first byte on another (RFC 6409, RFC 8314).

Owns listening, the certificate, and the end. Must not know what is said on a connection (`conversation`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from gateway.clock import Clock, SystemClock
from gateway.config import Config, SubmissionConfig
from gateway.errors import ConfigError
from gateway.feedback.listener import Visit
from gateway.submission.conversation import Conversation
from gateway.submission.desk import Desk, open_desk
from gateway.submission.lobby import Lobby
from gateway.submission.threshold import Threshold
from gateway.telemetry import Event, log
from gateway.throttle.retune import Follow, never
from gateway.throttle.shaping import Shaping

GRACE_S: Final = 5.0
_BACKLOG: Final = 1_024
_CERTIFICATE_CHECK_S: Final = 60.0


async def serve_submission(
    config: Config, dsn: str, *, shaping: Shaping, stop: asyncio.Event, follow: Follow = never
) -> None:
    """Serve `[submission]` until `stop`; then take what has been sent whole, and hang up.

    `follow` tells of changed configuration: `[expiry]` and the throttles hold for messages to come.

    Raises:
        StoreUnavailable: Postgres did not answer at the start.
        ConfigError: the certificate cannot be used.
        OSError: an address cannot be listened on.
    """
    clock = SystemClock()
    async with (
        open_desk(config, dsn, shaping=shaping, clock=clock, application_name="gateway submission") as desk,
        open_door(desk),
    ):
        follow(desk.retune)
        await stop.wait()


@asynccontextmanager
async def open_door(desk: Desk) -> AsyncGenerator[Lobby]:
    """Listen as long as the block lasts.

    Raises:
        ConfigError: the certificate cannot be used.
        OSError: an address cannot be listened on.
    """
    section = desk.config.submission
    tls = server_context(section)
    lobby = Lobby(desk, tls)
    visits: set[Visit] = set()
    loop = asyncio.get_running_loop()
    waiting: set[asyncio.Transport] = set()
    talk = functools.partial(Conversation, lobby, visits)
    doors: list[tuple[int, Callable[[], asyncio.Protocol]]] = [(section.port, talk)]
    if section.tls_port and tls is not None:
        doors.append((section.tls_port, functools.partial(Threshold, lobby, tls, waiting, talk)))
    async with contextlib.AsyncExitStack() as stack:
        if tls is not None:
            renewing = asyncio.create_task(renew(tls, section, desk.clock), name="submission certificate")
            stack.callback(renewing.cancel)
        servers: list[asyncio.Server] = []
        stack.push_async_callback(_close, servers, visits, waiting)
        for port, make in doors:
            servers.append(
                await loop.create_server(make, section.host, port, reuse_address=True, backlog=_BACKLOG)
            )
        yield lobby


def server_context(section: SubmissionConfig) -> ssl.SSLContext | None:
    """The server's side of TLS with the configured certificate; None without one.

    Raises:
        ConfigError: it cannot be read, or does not fit its key.
    """
    if not section.certificate_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        _load(context, section)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"{section.certificate_file}, {section.key_file}: {error.strerror or error}",
            key="submission.certificate_file",
            hint="a certificate with its chain, and its private key without a passphrase, in PEM",
        ) from error
    return context


async def renew(context: ssl.SSLContext, section: SubmissionConfig, clock: Clock) -> None:
    """Take a renewed certificate for connections to come, until cancelled; a wrong one is told, and the one before stays."""
    known = _stamps(section)
    while True:
        await clock.sleep(_CERTIFICATE_CHECK_S)
        found = _stamps(section)
        if found == known:
            continue
        known = found
        try:
            server_context(section)  # on a trial: half a pair must not spoil the one in use
            _load(context, section)
        except (ConfigError, OSError) as error:
            log.error(Event.CONFIG_REFUSED, path=section.certificate_file, problem=str(error))
        else:
            log.info(Event.CONFIG_LOADED, path=section.certificate_file)


def _load(context: ssl.SSLContext, section: SubmissionConfig) -> None:
    # With a passphrase asked for, OpenSSL would wait at a terminal.
    context.load_cert_chain(section.certificate_file, section.key_file, password=lambda: "")


def _stamps(section: SubmissionConfig) -> list[tuple[int, int]]:
    stamps: list[tuple[int, int]] = []
    for name in (section.certificate_file, section.key_file):
        with contextlib.suppress(OSError):
            found = Path(name).stat()
            stamps.append((found.st_mtime_ns, found.st_ino))
    return stamps


async def _close(servers: list[asyncio.Server], visits: set[Visit], waiting: set[asyncio.Transport]) -> None:
    """Refuse newcomers, tell everybody to go, and wait for those whose message is being taken."""
    for server in servers:
        server.close()
    for line in list(waiting):
        line.abort()
    open_ = [visit for visit in visits if isinstance(visit, Conversation)]
    for visit in open_:
        visit.hang_up(b"421 4.3.2 shutting down")
    if open_:
        await asyncio.wait([asyncio.ensure_future(visit.gone.wait()) for visit in open_], timeout=GRACE_S)
