"""Who lives: our own proof of it, and what we make of our peers' counters.

Owns two small rules. Ours: a heartbeat that Postgres confirmed proves the lease for less than a peer would wait before
calling us dead, counted from when it was sent. Theirs: a peer is dead when its counter stood still for a whole lease on *our*
monotonic clock, while we were connected all along; after an outage of the database nobody looks dead. Must not know SQL.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.store.fleet import Incarnation

PROVEN_SHARE: Final = 0.75
"""Of the lease, how long a heartbeat proves it; the rest is the margin against a peer's verdict."""

JOURNAL_GRACE_S: Final = 30.0
"""How long a dead incarnation is left to its own host, which has the journal."""


class Fenced(GatewayError):
    """We were declared dead, or the database went back: what we held is not ours now. The process ends and begins a new life."""


class LeaseUnproven(GatewayError):
    """No dot may be written now: the last confirmed heartbeat is too old."""


class Lease:
    """Our own proof of life."""

    # Mutable on purpose: asked before each final dot.
    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock, self._lease_s = clock, lease_s
        self._until = clock.monotonic()
        self._renewed_at = -math.inf

    def renew(self, sent_at: float) -> None:
        """Take a confirmed heartbeat that was sent at `sent_at` (monotonic)."""
        self._until = max(self._until, sent_at + self._lease_s * PROVEN_SHARE)
        self._renewed_at = max(self._renewed_at, sent_at)

    def renewed_since(self, moment: float) -> bool:
        """Whether a heartbeat that was sent after `moment` (monotonic) was confirmed."""
        return self._renewed_at > moment

    @property
    def proven(self) -> bool:
        """Whether no peer can have called us dead yet."""
        return self._clock.monotonic() < self._until

    def require(self) -> None:
        """Raise LeaseUnproven unless the lease is proven."""
        if not self.proven:
            raise LeaseUnproven("the lease is not proven: no confirmed heartbeat in time")


class Watch:
    """What one observer has seen of its peers."""

    # Mutable on purpose: a memory of counters.
    def __init__(self, ours: int, host_key: str, lease_s: float) -> None:
        self._ours, self._host_key, self._lease_s = ours, host_key, lease_s
        self._seen: dict[int, tuple[int, float]] = {}  # id → counter, since when it stands there
        self._dead_since: dict[int, float] = {}
        self.alive: list[int] = [ours]

    def forget(self) -> None:
        """Start observing anew: we were not connected all along."""
        self._seen.clear()

    def given_up(self, peer: int, now: float) -> bool:
        """Whether a dead peer's journal has not turned up in JOURNAL_GRACE_S."""
        return now - self._dead_since.get(peer, now) >= JOURNAL_GRACE_S

    def observe(
        self, peers: Iterable[Incarnation], now: float
    ) -> tuple[list[Incarnation], list[tuple[Incarnation, bool]]]:
        """Take one look at the fleet.

        Returns:
            Live peers whose counter stood still for a lease (to be declared dead); and dead ones that we should rescue now,
            with whether their journal is on this host.
        """
        silent: list[Incarnation] = []
        rescues: list[tuple[Incarnation, bool]] = []
        alive = [self._ours]
        present: set[int] = set()
        for peer in peers:
            present.add(peer.id)
            if peer.id == self._ours:
                continue
            if peer.status == "dead":
                self._dead_since.setdefault(peer.id, now)
                here = peer.host_key == self._host_key
                if here or self.given_up(peer.id, now):
                    rescues.append((peer, here))
                continue
            alive.append(peer.id)
            counter, since = self._seen.get(peer.id, (-1, now))
            if counter != peer.counter:
                self._seen[peer.id] = (peer.counter, now)
            elif now - since >= self._lease_s:
                silent.append(peer)
        for gone in self._seen.keys() - present:
            del self._seen[gone]
        for gone in self._dead_since.keys() - present:
            del self._dead_since[gone]
        self.alive = alive
        return silent, rescues
