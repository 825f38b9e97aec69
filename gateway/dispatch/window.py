"""How many deliveries may wait in a dispatcher: as many as leave in time. Pure.

Owns one number. What waits longer than its lateness allows goes back to the queue and is claimed again: with 400 rows claimed at
once by a process that sends 300 a second, each delivery was claimed 2.3 times, and that cost Postgres 0.3 to 0.5 ms a message
instead of 0.12 (2026-11-22, 2 busy cores). So the number falls when deliveries went back late, and rises while they do not:
doubled until the first one was late, then by additive increase and multiplicative decrease, as a sender of TCP (RFC 5681 §3.1).
Deliveries on the wire do not count: a slow receiver is no reason to take less for the others. Must not know lanes or Postgres.
"""

from __future__ import annotations

from typing import Final

LEAST: Final = 20
START: Final = 100
_SHRINK: Final = 0.6


class Window:
    """The number of deliveries that may wait."""

    # Mutable on purpose: it is asked and told with each claim.
    def __init__(self, most: int) -> None:
        self._most = most
        self._late = 0
        self._proven = True  # nothing has been late yet
        self.size = min(most, START)

    def late(self, count: int) -> None:
        """Take note that so many deliveries went back because they would have left too late."""
        self._late += count

    def settle(self) -> None:
        """Before a claim: shrink once, however many were late since the last one."""
        if self._late:
            self._late = 0
            self._proven = False
            self.size = max(min(LEAST, self._most), int(self.size * _SHRINK))

    def filled(self) -> None:
        """After a claim that gave all it asked for: grow."""
        self.size = min(self._most, self.size + (self.size if self._proven else max(5, self.size // 10)))
