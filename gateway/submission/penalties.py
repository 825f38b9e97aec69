"""How often a peer may show a wrong key. Pure.

Owns the counting. A key has 160 random bits, so that guessing is hopeless: this keeps guesses from costing us look-ups. A key that
was right just now is not looked up again (`auth`), so that a neighbour behind the same address can go on.
"""

from __future__ import annotations

from typing import Final

from gateway.feedback.doorkeeper import counted_as

BURST: Final = 10
PER_S: Final = 1 / 6
_MOST_PEERS: Final = 10_000


class Penalties:
    """A bucket of wrong keys for each peer, as `doorkeeper` counts them; what was spent comes back with time."""

    # Mutable on purpose: the moment at which each peer's bucket is full again, bounded in number.
    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def wait_s(self, peer: str, now: float) -> float:
        """Return for how long a peer may show no further key; 0: it may."""
        owed = max(0.0, self._full_at.get(counted_as(peer), now) - now)
        return max(0.0, owed - (BURST - 1) / PER_S)

    def note(self, peer: str, now: float) -> None:
        """Count a wrong key."""
        if len(self._full_at) >= _MOST_PEERS:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
            if len(self._full_at) >= _MOST_PEERS:
                self._full_at.clear()
        seat = counted_as(peer)
        self._full_at[seat] = max(now, self._full_at.get(seat, now)) + 1 / PER_S
