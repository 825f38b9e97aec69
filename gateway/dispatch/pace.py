"""When the deliveries of one lane are begun in this process, and when their content leaves.

What a receiver counts is the message, which is there with its final dot. Between MAIL and the dot lies the receiver's 354, and it
answers several at once when it had no processor for a while; so a transaction is begun a little early, and its content waits for
its moment. Both follow the plan of the lane's grants (`throttle/bucket.py`); what comes late moves what is behind it.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from gateway.clock import Clock
from gateway.throttle.bucket import Pacer

SLACK_S: Final = 0.001
"""How late a timer may be without the pace paying for it: at 1,000/s the loop's millisecond timers lost a third of the rate."""

LEAD_S: Final = 0.003
"""How long before its content a transaction is begun: on a loopback with busy processors 354 comes within it in 99 of 100."""


class LanePace:
    """The two moments of each delivery. Ask `earliest`, wait, tell `begun`; then `content_turn`, or `ended` where it never came."""

    # Mutable on purpose, like the pacers: the hottest state of a lane.
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limits = (1.0, 1)
        self._begin: Pacer | None = None
        self._content: Pacer | None = None
        self._open: set[int] = set()  # ids: begun, and their content has not left
        self._line = asyncio.Lock()

    def set_limits(self, rate_per_s: float, burst: int) -> None:
        """Take the limits of a grant. What left before keeps its weight."""
        if (rate_per_s, burst) == self._limits and self._begin is not None:
            return
        self._limits = (rate_per_s, burst)
        if self._begin is None or self._content is None:
            self._begin, self._content = Pacer(rate_per_s, burst), Pacer(rate_per_s, burst)
        else:
            now = self._clock.monotonic()
            self._begin.set_limits(rate_per_s, burst, now)
            self._content.set_limits(rate_per_s, burst, now)

    def earliest(self, planned_at: float) -> float:
        """Return the moment of a delivery that is planned for `planned_at`; it may be begun LEAD_S before."""
        assert self._begin is not None, "no limits yet"
        return self._begin.earliest(planned_at)

    def content_at(self, at: float) -> float:
        """Return when the content of a delivery begun for `at` will leave, behind that of those begun before it."""
        assert self._content is not None, "no limits yet"
        return max(at, self._content.earliest(-math.inf) + len(self._open) / self._limits[0])

    def begun(self, delivery_id: int, at: float) -> None:
        """Note that a delivery was begun for `at`."""
        assert self._begin is not None, "no limits yet"
        self._begin.sent(at)
        self._open.add(delivery_id)

    def ended(self, delivery_id: int) -> None:
        """Note that a delivery came to its end, with or without content."""
        self._open.discard(delivery_id)

    async def content_turn(self, delivery_id: int, at: float) -> None:
        """Wait until content that is meant for `at` may leave; it then counts as having left."""
        pacer, now = self._content, self._clock.monotonic()
        assert pacer is not None, "no limits yet"
        if now < pacer.earliest(at) or self._line.locked():
            async with self._line:
                while (now := self._clock.monotonic()) < (earliest := pacer.earliest(at)):
                    await self._clock.sleep(earliest - now)
        pacer.sent(max(pacer.earliest(at), now - SLACK_S))
        self._open.discard(delivery_id)
