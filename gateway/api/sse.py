"""Server-Sent Events (WHATWG HTML §9.2) as bytes. Pure.

Owns the form of the stream. Must not know what is told. Data is JSON on one line, so that no line end can begin a field of its own.
"""

from __future__ import annotations

from typing import Final

HEARTBEAT: Final = b":\n\n"
"""A comment: keeps the connection, and whatever stands between, from giving up."""


def event(name: str, data: bytes, event_id: str) -> bytes:
    """Make an event; `event_id` comes back as Last-Event-ID when the client connects again."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), name.encode(), data)


def retry(after_ms: int) -> bytes:
    """Say after how many milliseconds a client is to connect again."""
    return b"retry: %d\n\n" % after_ms
