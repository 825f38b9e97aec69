"""Whether this process stood still for a while: stopped, swapped out, or kept from its processor.

Owns one question, asked before a final dot: has there been a standstill since the delivery left? Its token was for that moment,
and the receiver has meanwhile seen what others sent in its place. A receiver that takes its time is no standstill: then the loop
turns. Must not know lanes or leases.
"""

from __future__ import annotations

import math
from typing import Final

from gateway.clock import Clock
from gateway.errors import GatewayError

TICK_S: Final = 0.05
STALL_S: Final = 0.25
"""A loop that did not turn for so long stood still; a full one takes 0.1 s at most."""


class TurnPassed(GatewayError):
    """The process stood still between the delivery's leaving and its final dot; it goes back."""


class Stalls:
    """Notices standstills by a tick that comes late."""

    # Mutable on purpose: it is asked before each final dot.
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ticked_at = clock.monotonic()
        self._ended_at = -math.inf

    async def watch(self) -> None:
        """Tick until cancelled."""
        while True:
            self._look()
            await self._clock.sleep(TICK_S)

    def since(self, moment: float) -> bool:
        """Whether a standstill ended after `moment` (monotonic)."""
        self._look()
        return self._ended_at > moment

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._ticked_at > STALL_S:
            self._ended_at = now
        self._ticked_at = now
