"""Connections are counted in and out, for all and for each peer; whoever has a whole network is one peer."""

from __future__ import annotations

import pytest

from gateway.feedback.doorkeeper import Doorkeeper, counted_as
from gateway.submission.penalties import BURST, Penalties


def test_connections_are_counted_in_and_out() -> None:
    doorkeeper = Doorkeeper(most=3, most_per_peer=2)
    assert [doorkeeper.admit(peer) for peer in "aaabb"] == [True, True, False, True, False]
    doorkeeper.leave("a")
    assert doorkeeper.admit("b")


def test_all_addresses_of_one_network_share_its_limit() -> None:
    doorkeeper = Doorkeeper(most=10, most_per_peer=2)
    assert [doorkeeper.admit(f"2001:db8:0:7:{host:x}::1") for host in range(3)] == [True, True, False]
    assert doorkeeper.admit("2001:db8:0:8::1")
    doorkeeper.leave("2001:db8:0:7:ffff::1")
    assert doorkeeper.admit("2001:db8:0:7:abcd::1")


def test_wrong_keys_are_counted_alike() -> None:
    penalties = Penalties()
    for host in range(BURST):
        penalties.note(f"2001:db8::{host:x}", 100.0)
    assert penalties.wait_s("2001:db8::ffff", 100.0) > 0
    assert penalties.wait_s("2001:db8:0:1::1", 100.0) == 0


@pytest.mark.parametrize(
    ("address", "seat"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("/run/socket", "/run/socket"),
    ],
)
def test_an_address_stands_for_its_holder(address: str, seat: str) -> None:
    assert counted_as(address) == seat
