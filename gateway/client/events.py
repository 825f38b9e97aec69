"""Server-Sent Events (WHATWG HTML §9.2) read from bytes as they come. Pure.

Owns the form of the stream. Must not know what is told. Lines end with LF, CRLF or CR; an event that was not ended by an empty line when the
stream broke is dropped, as the standard has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
EVENT_LIMIT_BYTES: Final = 1024 * 1024


class Event(msgspec.Struct, frozen=True):
    """One event; `id` is that of the last event that had one."""

    name: str
    data: bytes
    id: str


class EventError(Exception):
    """What comes is no stream of events that could be kept in memory."""


class Parser:
    """Reads one connection's events."""

    def __init__(self) -> None:
        self.retry_s: float | None = None
        """What the server said about when to come again."""
        self._left = b""
        self._name, self._data, self._id = "", list[bytes](), ""
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Event | None]:
        """What a piece completes: events, and None for each comment, which only says that the server lives.

        Raises:
            EventError: an event of more than a megabyte.
        """
        text = self._left + piece
        # A CR at the end may be the first half of CRLF.
        end = len(text) - text.endswith(b"\r")
        *lines, rest = _LINE_END.split(text[:end])
        self._left = rest + text[end:]
        self._size += len(piece)
        for line in lines:
            if not line:
                if self._data:
                    yield Event(self._name or "message", b"\n".join(self._data), self._id)
                self._name, self._data = "", []
                self._size = len(self._left)
            elif line.startswith(b":"):
                yield None
            else:
                self._field(line)
        if self._size > EVENT_LIMIT_BYTES:
            raise EventError(f"an event of more than {EVENT_LIMIT_BYTES} bytes")

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self.retry_s = int(value[:9]) / 1_000
