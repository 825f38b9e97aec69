"""What the files say, in a process that follows their changes.

Owns the last word of the supervisor, and who wants to hear the next. Must not know files (`watch` reads them, in the supervisor
alone), nor what a part does with a change.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.app.brief import Tuning
from gateway.config import Config
from gateway.telemetry import Event, log
from gateway.throttle.retune import Follow
from gateway.throttle.shaping import Shaping


class Tunings:
    """The tuning in force in this process."""

    # Mutable on purpose: the one value that changes, and its followers.
    def __init__(self, first: Tuning) -> None:
        self.first = self.now = first
        self._followers: list[Callable[[Tuning], object]] = []

    def follow(self, react: Callable[[Tuning], object]) -> None:
        """Have a function called, on the loop, with each change; at once if there was one before it came."""
        self._followers.append(react)
        if self.now is not self.first:
            _tell(react, self.now)

    def take(self, tuning: Tuning) -> None:
        """Make this the tuning in force, and tell the followers; one that fails is logged, and keeps no other from hearing it."""
        self.now = tuning
        for react in self._followers:
            _tell(react, tuning)

    @property
    def retunes(self) -> Follow:
        """`follow` for parts that know nothing of roles: they are given the configuration and the throttles."""

        def follow(react: Callable[[Config, Shaping], object]) -> None:
            self.follow(lambda tuning: react(tuning.config, tuning.shaping))

        return follow


def _tell(react: Callable[[Tuning], object], tuning: Tuning) -> None:
    try:
        react(tuning)
    except Exception:  # this part goes on with what it had
        log.error(Event.CONFIG_NOT_FOLLOWED, part=getattr(react, "__qualname__", repr(react)), exc_info=True)
