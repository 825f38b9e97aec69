"""The content of one DATA command: collected whole, its end found, its dots taken out. Pure.

Owns where a message ends: at CRLF.CRLF and nowhere else (RFC 5321 §4.1.1.4, §4.5.2), so that nothing can be smuggled in behind a
bare CR or LF (CVE-2023-51764 to -51766); a message that holds one is refused, and what follows is read as the strict rule says.
aiosmtpd reads line by line, 10 µs each; here a block costs one search.
"""

from __future__ import annotations

from typing import Final

_END: Final = b"\r\n.\r\n"
_MARGIN_BYTES: Final = 1_048_576


class DotReader:
    """Takes blocks until the dot. A message beyond its limit is read to its end, and not kept."""

    # Mutable on purpose: what came so far.
    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes`: of the message with its dots."""
        self._limit = limit_bytes
        self._blocks: list[bytes] = []
        self._tail = b"\r\n"  # of the DATA line: a dot right behind it ends an empty message
        self._received = 0
        self._dropped = False

    @property
    def kept_bytes(self) -> int:
        """What it holds in memory."""
        return 0 if self._dropped else self._received

    @property
    def endless(self) -> bool:
        """So far beyond its limit that nobody should wait for the end."""
        return self._received > 2 * self._limit + _MARGIN_BYTES

    @property
    def dropped(self) -> bool:
        """Whether the content is not kept: too large, or `drop` was called."""
        return self._dropped

    @property
    def too_large(self) -> bool:
        """Whether more came than the limit."""
        return self._received > self._limit

    def drop(self) -> None:
        """Keep nothing of this message, but go on to its end."""
        self._dropped = True
        self._blocks.clear()

    def feed(self, data: bytes) -> bytes | None:
        """Take the next block; what stands behind the end once that is found, None while it goes on."""
        seen = self._tail + data
        found = seen.find(_END)
        if found < 0:
            self._take(data)
            self._tail = seen[-4:]
            return None
        end = found + len(_END) - len(self._tail)  # in `data`; the dot's CRLF is in it
        self._take(data[:end])
        return data[end:]

    def content(self) -> bytes:
        """Return the message after its end was found, without the dots that stood for the transport; empty when dropped."""
        whole = b"".join(self._blocks)[:-3]
        if whole.startswith(b"."):
            whole = whole[1:]
        return whole.replace(b"\r\n.", b"\r\n") if b"\r\n." in whole else whole

    def _take(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._limit:
            self.drop()
        if not self._dropped:
            self._blocks.append(data)


def unclean(content: bytes) -> str:
    """Why a message's octets cannot be sent on as they are, or nothing: bare CR or LF, or NUL."""
    pairs = content.count(b"\r\n")
    if content.count(b"\r") != pairs or content.count(b"\n") != pairs:
        return "a bare CR or LF; expected lines that end in CR LF"
    return "a NUL octet; expected text, or base64" if b"\0" in content else ""
