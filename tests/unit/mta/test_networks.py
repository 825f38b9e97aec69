"""Mail goes to public addresses alone, in whichever form the others come, unless a network is allowed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mta.networks import refusal

SIX_TO_FOUR = IPv6Network("2002::/16")
NAT64 = IPv6Network("64:ff9b::/96")


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "shared"),
        ("169.254.169.254", "link-local"),
        ("192.0.2.1", "documentation"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("198.18.0.1", "benchmarks"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fd00::1", "private"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("2001:0:1::1", "reserved"),
        ("::ffff:127.0.0.1", "IPv4-mapped"),
        ("::ffff:8.8.8.8", "IPv4-mapped"),
        ("::127.0.0.1", "reserved"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b:1::8.8.8.8", "reserved"),
        ("2002:7f00:1::", "loopback"),
        ("2002:c0a8:101::1", "private"),
        ("fec0::1", "reserved"),
    ],
)
def test_what_is_not_public_is_refused_by_name(address: str, word: str) -> None:
    assert word in refusal(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "172.32.0.1", "100.128.0.1", "2607:f8b0::1", "2a00:1450:4001::1a", "2002:808:808::1", "64:ff9b::8.8.8.8",
    ],
)  # fmt: skip
def test_a_public_address_is_not_refused(address: str) -> None:
    assert refusal(address) == ""


@pytest.mark.parametrize(
    ("address", "network"),
    [("127.0.0.2", "127.0.0.0/8"), ("fd00::1", "fd00::/8"), ("64:ff9b::10.0.0.1", "10.0.0.0/8"), ("::ffff:10.0.0.1", "::ffff:0:0/96")],
)  # fmt: skip
def test_an_allowed_network_is_not_refused(address: str, network: str) -> None:
    assert refusal(address)
    assert refusal(address, (ip_network(network),)) == ""
    assert refusal("192.168.0.1", (ip_network(network),)) == "private"


@given(st.ip_addresses())
def test_nothing_passes_that_python_knows_to_be_not_public(address: IPv4Address | IPv6Address) -> None:
    if isinstance(address, IPv6Address) and (address in SIX_TO_FOUR or address in NAT64):
        return
    if not address.is_global or address.is_multicast:
        assert refusal(str(address))
