"""Which IP addresses mail may go to: the public ones, unless a network is allowed by name.

Owns the table of refused networks, after the IANA registries of special-purpose addresses (RFC 6890), and looks through the
IPv6 forms that carry an IPv4 address. Pure. A table of our own, because what `ipaddress.is_global` says differs between Python
releases. Must not know DNS or why somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network

_V4: Final = tuple(
    (IPv4Network(network), word)
    for network, word in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),  # RFC 6598
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "reserved"),  # RFC 7526: relays that are gone
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_V6: Final = tuple(
    (IPv6Network(network), word)
    for network, word in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "an IPv4-mapped address"),  # it would pass by whoever looks at IPv4 addresses alone
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),  # Teredo, ORCHID, benchmarks: none of them receives mail
        ("2001:db8::/32", "for documentation"),
        ("3fff::/20", "for documentation"),  # RFC 9637
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def refusal(address: str, allowed: Sequence[Network] = ()) -> str:
    """Return why mail may not go to an address ("private", "loopback" …), or an empty text when it may.

    Raises:
        ValueError: no IP address.
    """
    return _refusal(ip_address(address), allowed)


def _refusal(address: IPv4Address | IPv6Address, allowed: Sequence[Network]) -> str:
    if any(address in network for network in allowed):
        return ""
    if isinstance(address, IPv4Address):
        return next((word for network, word in _V4 if address in network), "")
    if (inner := _carried(address)) is not None:
        return _refusal(inner, allowed)
    word = next((word for network, word in _V6 if address in network), "")
    return word or ("" if address in _GLOBAL_V6 else "reserved")


def _carried(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address to which packets would go in the end: 6to4 (RFC 3056), NAT64 (RFC 6052)."""
    if address.sixtofour is not None:
        return address.sixtofour
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None
