"""How many connections there may be: in all, and from one peer. Pure.

Owns the counting, and whom an address stands for. Must not know sockets, or what a peer wants.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_address


class Doorkeeper:
    """Who is connected, against the limits for all and for each peer."""

    # Mutable on purpose: it counts.
    def __init__(self, most: int, most_per_peer: int) -> None:
        self._most, self._most_per_peer = most, most_per_peer
        self._by_peer: Counter[str] = Counter()

    def admit(self, peer: str) -> bool:
        """Count a connection from an address in, unless there are too many."""
        seat = counted_as(peer)
        if self._by_peer.total() >= self._most or self._by_peer[seat] >= self._most_per_peer:
            return False
        self._by_peer[seat] += 1
        return True

    def leave(self, peer: str) -> None:
        """Count an admitted connection out."""
        seat = counted_as(peer)
        self._by_peer[seat] -= 1
        if not self._by_peer[seat]:
            del self._by_peer[seat]


def counted_as(address: str) -> str:
    """Return what an address is counted as: itself, or of IPv6 its /64, the least that one customer has (RFC 6177 §2).

    An IPv4-mapped one is its IPv4 address; what is no IP address stands for itself.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"
