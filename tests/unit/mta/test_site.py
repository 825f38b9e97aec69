"""A site name: one for one set of MX hosts, in whatever order they come, and never too long."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mta.site import LIMIT, site_name

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
# Few labels, so that names share parts and lie above one another.
HOSTS = st.lists(st.sampled_from(["a", "b", "mx1", "mx2", "net"]), min_size=1, max_size=4).map(".".join)
SETS = st.frozensets(HOSTS, max_size=8)


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        (["mx.example.org"], "mx.example.org"),
        (["MX.Example.org.", "mx.example.org"], "mx.example.org"),
        (["mta5.am0.yahoodns.net", "mta7.am0.yahoodns.net", "mta6.am0.yahoodns.net"], "(mta5|mta6|mta7).am0.yahoodns.net"),
        (
            ["gmail-smtp-in.l.google.com", *(f"alt{n}.gmail-smtp-in.l.google.com" for n in (4, 2, 3, 1))],
            "(alt1|alt2|alt3|alt4)?.gmail-smtp-in.l.google.com",
        ),
        (
            ["aspmx.l.google.com", "alt1.aspmx.l.google.com", "alt2.aspmx.l.google.com", "aspmx2.googlemail.com", "aspmx3.googlemail.com"],
            "((alt1|alt2)?.aspmx.l.google|(aspmx2|aspmx3).googlemail).com",
        ),
        (["example-org.mail.protection.outlook.com"], "example-org.mail.protection.outlook.com"),
        (["mx.a.example", "mx.b.test"], "(mx.a.example|mx.b.test)"),
        (["a.x.example", "b.y.example"], "(a.x|b.y).example"),
        (["a.y.example", "b.x.example"], "(a.y|b.x).example"),
        (["b.example", "a.b.example"], "(a)?.b.example"),
        ([], ""),
    ],
)  # fmt: skip
def test_a_set_of_hosts_is_rolled_up(hosts: list[str], name: str) -> None:
    assert site_name(hosts) == name


@given(st.lists(HOSTS, max_size=8), st.randoms())
def test_order_case_and_repetition_do_not_matter(hosts: list[str], rng: random.Random) -> None:
    mixed = [host.upper() + "." for host in hosts] + hosts
    rng.shuffle(mixed)
    assert site_name(mixed) == site_name(hosts)


@given(SETS, SETS)
def test_two_sets_never_share_a_name(one: frozenset[str], other: frozenset[str]) -> None:
    assert (site_name(one) == site_name(other)) is (one == other)


@given(st.lists(st.lists(LABELS, min_size=1, max_size=20).map(".".join), max_size=60))
def test_a_name_has_a_bounded_length(hosts: list[str]) -> None:
    assert len(site_name(hosts)) <= LIMIT


def test_very_many_hosts_become_a_number_a_hash_and_what_they_share() -> None:
    many = [f"mx{n}.big.example" for n in range(500)]
    name = site_name(many)
    assert re.fullmatch(r"\(500 hosts [0-9a-f]{16}\)\.big\.example", name)
    assert site_name(reversed(many)) == name
    assert site_name(many[1:]) != name


def test_a_hash_keeps_of_a_long_shared_part_what_there_is_room_for() -> None:
    shared = ".".join(["l" * 60] * 4)
    name = site_name([f"a.{shared}", f"b.{shared}"])
    assert name.startswith("(2 hosts ")
    assert len(name) <= LIMIT
    assert name.endswith("l" * 60)
