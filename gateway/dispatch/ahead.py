"""Whether a lane opens one delivery behind another, by what that came to lately. Pure.

Owns the memory of it: how long the receiver takes at a dot, and how often what was opened came too late, which costs a connection
(ADR 0010). Must not know deliveries, connections or the clock: it is told what time it is (monotonic, seconds).
"""

from __future__ import annotations

from typing import Final

OPENED_S: Final = 5.0
"""How long a delivery waits, opened, for the end of the one before it; then another connection takes it."""

FADING: Final = 0.9
"""What is left of the longest time at a dot after one that took less: some twenty in a row, and it counts for a tenth."""

REST_S: Final = 1.0
"""How long nothing is opened ahead after something that was came too late; twice as long each time, up to `MOST_REST_S`."""

MOST_REST_S: Final = 300.0

ONE_BY_ONE_S: Final = 3_600.0
"""How long nothing is opened ahead where a receiver does not bear it: it may be one of several hosts, or be mended."""


class Ahead:
    """What a lane knows of opening ahead."""

    # Mutable on purpose: it learns.
    def __init__(self) -> None:
        self.dot_s = 0.0
        """How long the receiver takes from content to reply: the longest lately."""
        self._from, self._rest_s = 0.0, REST_S

    def allowed(self, now: float) -> bool:
        """Whether anything may be opened ahead now."""
        return now >= self._from and self.dot_s < OPENED_S

    def dot_took(self, took_s: float) -> None:
        """Take note of the time from a content to the reply to it."""
        self.dot_s = max(took_s, self.dot_s * FADING)

    def let_go(self, now: float) -> None:
        """Take note that the one before it has taken `OPENED_S` by now."""
        self.dot_s = max(self.dot_s, OPENED_S)
        self.came_late(now)

    def came_in_time(self) -> None:
        """Take note that what was opened went on."""
        self._rest_s = max(REST_S, self._rest_s * FADING)

    def came_late(self, now: float) -> None:
        """Open nothing for a while: what costs a connection each time saves nothing. Several at a time are one."""
        if now >= self._from:
            self._from, self._rest_s = now + self._rest_s, min(2 * self._rest_s, MOST_REST_S)

    def not_borne(self, now: float) -> None:
        """Open nothing for long: this receiver does not bear it."""
        self._from = now + ONE_BY_ONE_S
