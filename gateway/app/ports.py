"""Listening addresses: whether they are free before anything starts, and whether the API answers afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from gateway.errors import GatewayError

_PROBE_TIMEOUT_S = 2.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (a key to look up, not to listen on)


class CannotListen(GatewayError):
    """An address that a role should listen on is not to be had."""


def require_free(host: str, port: int, key: str) -> None:
    """Check that we can listen there, before a child finds out that it cannot.

    Args:
        host: as configured.
        port: as configured.
        key: the key of the port, for the message (`api.port`).

    Raises:
        CannotListen: somebody else listens there, or the address is not of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        section, _, name = key.partition(".")
        raise CannotListen(
            f"cannot listen on {host}:{port}: {error.strerror}; end what listens there, or set [{section}] {name} "
            f"(GATEWAY__{section.upper()}__{name.upper()}) to a free one"
        ) from error


def base_url(host: str, port: int) -> str:
    """Where a client of this machine reaches a listening address."""
    host = _ANYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def answers(host: str, port: int, path: str) -> bool:
    """Whether HTTP GET of `path` is answered with 200."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(_ANYWHERE.get(host, host), port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readuntil(b"\r\n")).split(b" ")[1:2] == [b"200"]
            finally:
                writer.close()
    return False
