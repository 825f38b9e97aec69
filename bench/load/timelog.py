"""The sink's time log: when each final dot was received, for exact rates by destination.

Records of 16 bytes, native order: float64 seconds of CLOCK_MONOTONIC (``time.monotonic``, comparable between the
processes of one machine), then uint64 index of the domain (of the message's first recipient) into the file
``FILE.domains``, one domain a line in the order in which they were first seen. Writes are buffered: read after the
sink has ended, or after ``flush``. It is a measurement, not evidence; a kill may cost its last records.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

_RECORD: Final = struct.Struct("=dQ")
_FLUSH_BYTES: Final = 64 * 1024


class TimeLog:
    """Appends times to ``path``, which it starts anew."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=_FLUSH_BYTES)
        self._names = _names_of(path).open("wb", buffering=0)
        self._index: dict[bytes, int] = {}

    def dot(self, at_s: float, domain: bytes) -> None:
        """A final dot for ``domain`` was received at ``at_s``."""
        index = self._index.get(domain)
        if index is None:
            index = self._index[domain] = len(self._index)
            self._names.write(domain + b"\n")
        self._file.write(_RECORD.pack(at_s, index))

    def flush(self) -> None:
        """Make what was logged so far readable."""
        self._file.flush()

    def close(self) -> None:
        """Write what is buffered, and close. Idempotent."""
        self._file.close()
        self._names.close()


def read_times(path: Path) -> dict[str, array[float]]:
    """The times in ``path`` by domain, each an ascending float64 array. A torn last record is left out."""
    names = _names_of(path).read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:-1]
    data = path.read_bytes()
    columns: list[array[float]] = [array("d") for _ in names]
    records = cast(
        "Iterator[tuple[float, int]]", _RECORD.iter_unpack(data[: len(data) - len(data) % _RECORD.size])
    )
    for at_s, index in records:
        columns[index].append(at_s)
    return dict(zip(names, columns, strict=True))


def _names_of(path: Path) -> Path:
    return path.with_name(path.name + ".domains")
