"""What must hold for every byte that a peer sends over SMTP, checked before any library sees it. Pure.

aiosmtpd 1.4.6 keeps buffering a line past its limit (100 MiB in, 100 MiB held) and takes a bare LF for a line's end, which
lets one message smuggle in another (CVE-2023-51764 to -51766). Here both end the connection. RFC 5321 §2.3.8: CR and LF
appear only together.
"""

from __future__ import annotations

from typing import Final

LONGEST_LINE_BYTES: Final = 4_096
"""Four times what RFC 5321 §4.5.3.1.6 allows: what is a little too long is answered politely, by aiosmtpd."""

MOST_BYTES: Final = 4 * 1_048_576
"""Of one session, all messages together."""


class LineGuard:
    """The state of one connection: its last byte, the length of its unfinished line, what it has sent so far."""

    def __init__(self, *, longest_line: int = LONGEST_LINE_BYTES, most: int = MOST_BYTES) -> None:
        self._longest_line, self._most = longest_line, most
        self._line = 0
        self._total = 0
        self._after_cr = False

    def allow(self, most: int) -> None:
        """Let the session have sent so many bytes in all, from now on: the peer has shown who it is."""
        self._most = most

    def check(self, data: bytes) -> bytes:
        """Look at the next bytes; the reply line (without CRLF) with which to hang up, or nothing when all is well."""
        if not data:
            return b""
        self._total += len(data)
        if self._total > self._most:
            return b"421 4.3.4 too much for one session"
        text = b"\r" + data if self._after_cr else data
        self._after_cr = text.endswith(b"\r")
        whole = text[:-1] if self._after_cr else text
        pairs = whole.count(b"\r\n")
        if whole.count(b"\r") != pairs or whole.count(b"\n") != pairs:
            return b"500 5.5.2 bare CR or LF"
        lines = whole.split(b"\r\n")
        lengths = [len(line) for line in lines]
        lengths[0] += self._line
        self._line = lengths[-1]
        if max(lengths) > self._longest_line:
            return b"500 5.5.2 line too long"
        return b""
