"""The dispatcher's local journal: what was started, what may have been accepted, and what was answered.

Owns the files `inc-<incarnation>.<n>.log` and `inc-<incarnation>.lock` in one directory. Must not know Postgres or SMTP.
Appends are plain `write()`s, which survive `kill -9` of the process; nothing is fsynced: after a power cut the rows of
that host are rescued without its journal, as in doubt (docs/operations).

One short line a record, in the order of a delivery's life; the last one decides:

    TRY id epoch                           an attempt has begun            → started
    DOT id epoch                           written before the final dot    → in doubt
    RES id epoch code enhanced|- text      the reply to the dot was read   → result
    END id epoch                           refused, given up or handed back without a dot; or made, and waiting for the one before it

A file that ends inside a line lost only that record: whoever wrote it never went on (`JournalError`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from gateway.errors import JournalError

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment longer than this is closed and a new one begun."""

_SEGMENT_NAME: Final = re.compile(r"inc-(\d+)\.(\d+)\.log")
_LOCK_NAME: Final = re.compile(r"inc-(\d+)\.lock")
_ESCAPED: Final = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")
_BREAKS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Journal:
    """The open journal of a living dispatcher; its lock tells the others that it lives.

    Not for several threads. The lock is a flock: it ends with the process, however that ends, and a child that inherits
    the descriptor by a bare fork would keep it (ours are close-on-exec).
    """

    # Mutable on purpose: bookkeeping is touched three times a delivery.
    def __init__(self, directory: Path, incarnation: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Create the journal of a new incarnation.

        Raises:
            JournalError: the directory cannot be written, or this incarnation has a journal already.
        """
        self._directory, self._incarnation, self._segment_bytes = directory, incarnation, segment_bytes
        self._first = self._current = 0
        self._closed_sizes_bytes: dict[int, int] = {}
        self._size_bytes = 0  # of the current segment
        self._unacknowledged: dict[int, int] = {0: 0}  # by the segment in which the delivery was opened
        self._open: dict[int, tuple[int, int]] = {}  # id → (epoch, segment in which it was opened)
        self._reopened: dict[int, int] = {}  # id → acknowledgements still under way for its earlier epochs
        self._broken: JournalError | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_fd = _take_lock(directory, incarnation)
            self._fd = self._open_segment(0)
        except OSError as error:
            raise JournalError(
                f"cannot create the journal of incarnation {incarnation} in {directory}: {error}"
            ) from error

    @property
    def size_bytes(self) -> int:
        """Bytes in the segments that still exist."""
        return self._size_bytes + sum(self._closed_sizes_bytes.values())

    @property
    def open_count(self) -> int:
        """Deliveries that were started and not yet acknowledged."""
        return len(self._open)

    def tried(self, delivery_id: int, epoch: int) -> None:
        """Append TRY: an attempt begins. Raises JournalError, as all appends do: nothing may be sent after it."""
        known = self._open.get(delivery_id)
        if known is None:
            self._open[delivery_id] = (epoch, self._current)
            self._unacknowledged[self._current] += 1
        elif known[0] != epoch:
            # Leased again before we heard that its last epoch was acknowledged: that one must not close this one.
            self._open[delivery_id] = (epoch, known[1])
            self._reopened[delivery_id] = self._reopened.get(delivery_id, 0) + 1
        self._append(b"TRY %d %d\n" % (delivery_id, epoch))

    def dotted(self, delivery_id: int, epoch: int) -> None:
        """Append DOT: from here on the receiver may have the message. Call it before the dot is written."""
        self._append(b"DOT %d %d\n" % (delivery_id, epoch))

    def answered(self, delivery_id: int, epoch: int, code: int, enhanced: str | None, text: str) -> None:
        """Append RES: the reply to the final dot was read."""
        line = f"RES {delivery_id} {epoch} {code} {enhanced or '-'} {_escape(text)}\n"
        self._append(line.encode("utf-8", "replace"))

    def ended(self, delivery_id: int, epoch: int) -> None:
        """Append END: refused, given up or handed back, and no dot was written."""
        self._append(b"END %d %d\n" % (delivery_id, epoch))

    def acknowledged(self, delivery_ids: Iterable[int]) -> None:
        """Forget deliveries whose outcome Postgres has, and delete the segments that nobody needs any more."""
        for delivery_id in delivery_ids:
            if self._reopened and delivery_id in self._reopened:
                self._reopened[delivery_id] -= 1
                if not self._reopened[delivery_id]:
                    del self._reopened[delivery_id]
            elif (known := self._open.pop(delivery_id, None)) is not None:
                self._unacknowledged[known[1]] -= 1
        while self._first < self._current and not self._unacknowledged[self._first]:
            with contextlib.suppress(FileNotFoundError):
                self._path(self._first).unlink()
            del self._unacknowledged[self._first], self._closed_sizes_bytes[self._first]
            self._first += 1

    def rotate(self) -> None:
        """Begin a new segment, so that the present one can go once its deliveries are acknowledged."""
        number = self._current + 1
        try:
            fd = self._open_segment(number)
        except OSError as error:
            raise self._fail(error) from error
        os.close(self._fd)
        self._closed_sizes_bytes[self._current] = self._size_bytes
        self._fd, self._current, self._size_bytes = fd, number, 0
        self._unacknowledged[number] = 0
        self.acknowledged(())

    def close(self) -> None:
        """Close the files and let the lock go; the files stay for `replay` (or `remove`, if all is acknowledged)."""
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._lock_fd)
            self._fd = self._lock_fd = -1
            self._broken = JournalError("the journal is closed")

    def _append(self, record: bytes) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            written = os.write(self._fd, record)
        except OSError as error:
            raise self._fail(error) from error
        self._size_bytes += written
        if written != len(record):
            raise self._fail("only a part of a record could be written (disk full?)")
        if self._size_bytes > self._segment_bytes:
            self.rotate()

    def _fail(self, why: object) -> JournalError:
        # For good: after half a record the next one would be glued to it.
        self._broken = JournalError(f"cannot append to {self._path(self._current)}: {why}; sending stops")
        return self._broken

    def _path(self, number: int) -> Path:
        return self._directory / f"inc-{self._incarnation}.{number}.log"

    def _open_segment(self, number: int) -> int:
        return os.open(self._path(number), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)


class Replay(msgspec.Struct, frozen=True):
    """What a dead incarnation's journal says, by delivery id."""

    results: dict[int, tuple[int, int, str | None, str]]
    """(epoch, code, enhanced, text): acknowledge. Where there are several, a 2xx wins, else the newest epoch."""
    in_doubt: dict[int, int]
    """Epoch of a DOT without RES."""
    started: dict[int, int]
    """Epoch of a TRY without DOT, RES or END: not sent, but it may be what killed the process."""
    damaged_lines: int = 0
    """Lines that could not be read, a torn last one included."""


def replay(directory: Path, incarnation: int) -> Replay:
    """Read the journal of a dead incarnation; one that does not exist replays to nothing."""
    state: dict[tuple[int, int], str] = {}
    found: dict[tuple[int, int], tuple[int, str | None, str]] = {}
    damaged = 0
    for _, path in sorted(_segments(directory, incarnation)):
        *lines, tail = path.read_bytes().split(b"\n")
        damaged += bool(tail)
        for line in lines:
            record = _parse(line)
            if record is None:
                damaged += 1
                continue
            word, key, reply = record
            if reply is not None:
                found[key] = reply
            # A dot is taken back by nothing but a reply: whatever else follows, the receiver may have the message.
            if word == "RES" or state.get(key) not in ("DOT", "RES"):
                state[key] = word
    results: dict[int, tuple[int, int, str | None, str]] = {}
    in_doubt: dict[int, int] = {}
    started: dict[int, int] = {}
    for (delivery_id, epoch), word in sorted(state.items()):  # so that a newer epoch overwrites an older one
        if word == "RES":
            code, enhanced, text = found[delivery_id, epoch]
            if code // 100 == 2 or results.get(delivery_id, (0, 0))[1] // 100 != 2:
                results[delivery_id] = (epoch, code, enhanced, text)
        elif word == "DOT":
            in_doubt[delivery_id] = epoch
        elif word == "TRY":
            started[delivery_id] = epoch
    return Replay(results, in_doubt, started, damaged)


def find_dead(directory: Path) -> list[int]:
    """Return the incarnations that left a journal here and whose process is gone, in order."""
    incarnations = {
        int(match[1])
        for entry in (os.listdir(directory) if directory.is_dir() else ())
        if (match := _SEGMENT_NAME.fullmatch(entry) or _LOCK_NAME.fullmatch(entry))
    }
    return sorted(incarnation for incarnation in incarnations if not _is_locked(directory, incarnation))


def exists(directory: Path, incarnation: int) -> bool:
    """Whether an incarnation's journal lies here."""
    return next(_segments(directory, incarnation), None) is not None


def remove(directory: Path, incarnation: int) -> None:
    """Delete the journal of a dead incarnation once all it said is acknowledged; the lock goes last."""
    for _, path in _segments(directory, incarnation):
        path.unlink(missing_ok=True)
    _lock_path(directory, incarnation).unlink(missing_ok=True)


def _segments(directory: Path, incarnation: int) -> Iterator[tuple[int, Path]]:
    for entry in os.listdir(directory) if directory.is_dir() else ():
        match = _SEGMENT_NAME.fullmatch(entry)
        if match and int(match[1]) == incarnation:
            yield int(match[2]), directory / entry


def _lock_path(directory: Path, incarnation: int) -> Path:
    return directory / f"inc-{incarnation}.lock"


def _take_lock(directory: Path, incarnation: int) -> int:
    """Make the lock file so that it never exists unlocked while its process lives: lock first, then name it."""
    nameless = directory / f"inc-{incarnation}.lock.{os.getpid()}"
    fd = os.open(nameless, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.link(nameless, _lock_path(directory, incarnation))
    except OSError:
        os.close(fd)
        raise
    finally:
        nameless.unlink(missing_ok=True)
    return fd


def _is_locked(directory: Path, incarnation: int) -> bool:
    try:
        fd = os.open(_lock_path(directory, incarnation), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


_Record = tuple[str, tuple[int, int], tuple[int, str | None, str] | None]


def _parse(line: bytes) -> _Record | None:
    try:
        word, rest = line.decode("utf-8").split(" ", 1)
        if word == "RES":
            delivery_id, epoch, code, enhanced, text = rest.split(" ", 4)
            reply = (int(code), None if enhanced == "-" else enhanced, _unescape(text))
            return word, (int(delivery_id), int(epoch)), reply
        if word in ("TRY", "DOT", "END"):
            delivery_id, epoch = rest.split(" ")
            return word, (int(delivery_id), int(epoch)), None
    except ValueError:  # UnicodeDecodeError is one
        pass
    return None


def _escape(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if text.isprintable():
        return text
    return _BREAKS.sub(lambda c: f"\\x{ord(c[0]):02x}" if ord(c[0]) < 256 else f"\\u{ord(c[0]):04x}", text)


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else "\\", text)
