"""TLS before the greeting (RFC 8314 §3.3): who connects is counted before the handshake, and becomes a conversation after it.

Owns the time between. `create_server(ssl=…)` would count nobody until the handshake is over: idle connections could take every file
descriptor of the process. `loop.start_tls` comes too late here: uvloop reads as soon as `connection_made` returns.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import cast

from gateway.submission.lobby import HANDSHAKE_S, Lobby


class Threshold(asyncio.Protocol):
    """One connection until TLS stands."""

    def __init__(
        self,
        lobby: Lobby,
        context: ssl.SSLContext,
        waiting: set[asyncio.Transport],
        behind: Callable[[], asyncio.Protocol],
    ) -> None:
        """`waiting`: where handshakes that are not over stand; `behind`: makes who talks over TLS."""
        self._lobby, self._context, self._waiting, self._behind = lobby, context, waiting, behind

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, or hang up."""
        line = cast("asyncio.Transport", transport)
        name = line.get_extra_info("peername")
        peer = str(name[0]) if name else ""
        if not self._lobby.threshold.admit(peer):
            line.abort()
            return
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._waiting.add(line)

        def end(_: asyncio.Future[None]) -> None:
            self._waiting.discard(line)
            self._lobby.threshold.leave(peer)
            if not over.cancelled():
                over.exception()  # it failed: the connection is closed, and nobody else needs to know

        over.add_done_callback(end)
        tls = SSLProtocol(
            loop, self._behind(), self._context, over, server_side=True, ssl_handshake_timeout=HANDSHAKE_S
        )
        line.set_protocol(tls)
        tls.connection_made(line)
