"""How often one key may ask: a token bucket (GCRA) for each key, in the memory of this process.

Owns the buckets, and the fields that tell of them (draft-ietf-httpapi-ratelimit-headers-10). Must not know a route. Behind several
processes each has its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from gateway.clock import Clock
from gateway.errors import RateLimited

_KEPT: Final = 10_000
_TINY: Final = 1e-6


class Rates:
    """How often each key may ask."""

    # Mutable on purpose: one number a key, bounded.
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tats: dict[int, float] = {}
        self._limits = (0.0, 0)

    def take(self, key_id: int, rate_per_s: float, burst: int) -> Mapping[str, str]:
        """Count a request of a key; return the fields that say how many more may come now, and in how many seconds all may again.

        Raises:
            RateLimited: it comes too early, and is not counted; says when the next one will be taken.
        """
        if self._limits != (rate_per_s, burst):  # what was owed at another rate is owed no more
            self._limits = (rate_per_s, burst)
            self._tats.clear()
        now = self._clock.monotonic()
        tat = max(self._tats.get(key_id, now), now)
        early_s = tat - now - (burst - 1) / rate_per_s
        if early_s > _TINY:
            raise RateLimited(early_s, f"more than {rate_per_s:g} requests a second with this key")
        if len(self._tats) >= _KEPT:
            self._tats = {key: at for key, at in self._tats.items() if at > now}
        tat += 1 / rate_per_s
        self._tats[key_id] = tat
        return fields(rate_per_s, burst, int(burst - (tat - now) * rate_per_s + _TINY), tat - now)


def fields(rate_per_s: float, burst: int, remaining: int, reset_s: float) -> Mapping[str, str]:
    """Make the fields of an answer: `burst` requests in the time in which as many come back; `remaining` of them now."""
    window_s = max(1, math.ceil(burst / rate_per_s))
    return {
        "ratelimit-policy": f'"key";q={burst};w={window_s}',
        "ratelimit": f'"key";r={max(0, remaining)};t={math.ceil(reset_s)}',
    }
