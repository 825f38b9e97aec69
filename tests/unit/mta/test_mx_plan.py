"""From DNS answers to hosts in order, or to the reason why there are none."""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.disposition import BounceClass, Outcome, Scope
from gateway.mta import mx_plan
from gateway.mta.mx_plan import (
    MOST_ADDRESSES,
    MOST_HOSTS,
    Absent,
    Addresses,
    Answer,
    Exchange,
    Found,
    Hosts,
    MxHost,
    NoHosts,
    Plan,
    Policy,
    Unanswered,
    chosen,
    literal,
    ordered,
    planned,
    tries,
)
from gateway.mta.reply import ErrorKind

NODATA = Absent(name_exists=True)
NXDOMAIN = Absent(name_exists=False)
LATE = Unanswered("no answer in 20 s")
V4 = Found(("8.8.8.8",), 300)
V6 = Found(("2607::1",), 300)
BOTH = Policy(ipv6=True)


def dice() -> random.Random:
    return random.Random(4)


def mx(*records: tuple[int, str], ttl_s: int = 300) -> Found[Exchange]:
    return Found(tuple(Exchange(*record) for record in records), ttl_s)


def plan(
    answer: Answer[Exchange], policy: Policy = BOTH, **hosts: tuple[Answer[str], Answer[str]]
) -> Plan | NoHosts:
    """Plan for there.example; hosts by their first label, as pairs of A and AAAA."""
    exchanges = chosen("there.example", answer, dice())
    if isinstance(exchanges, NoHosts):
        return exchanges
    looked_up = {each.name: Addresses(*hosts[each.name.partition(".")[0]]) for each in exchanges}
    return planned("there.example", answer, exchanges, looked_up, policy)


def failed(result: Plan | NoHosts | Hosts | tuple[Exchange, ...]) -> NoHosts:
    assert isinstance(result, NoHosts)
    return result


def good(result: Plan | NoHosts) -> Plan:
    assert isinstance(result, Plan)
    return result


def test_hosts_come_by_preference_and_equals_in_any_order() -> None:
    answer = mx((20, "d.x"), (10, "b.x"), (10, "c.x"), (5, "a.x"))
    result = good(plan(answer, a=(V4, NODATA), b=(V4, NODATA), c=(V4, NODATA), d=(V4, NODATA)))
    rng = dice()
    seen = Counter("".join(host.name[0] for host in ordered(result, rng).mx) for _ in range(200))
    assert set(seen) == {"abcd", "acbd"}
    assert min(seen.values()) > 60


def test_families_take_turns_ipv6_first() -> None:
    result = good(
        plan(
            mx((0, "a.x")),
            a=(Found(("8.8.8.8", "8.8.4.4", "1.1.1.1"), 60), Found(("2607::1", "2607::2"), 60)),
        )
    )
    for _ in range(20):
        addresses = ordered(result, dice()).mx[0].addresses
        assert [":" in address for address in addresses] == [True, False, True, False, False]


def test_without_ipv6_no_ipv6_address_is_used() -> None:
    result = good(plan(mx((0, "a.x")), Policy(), a=(V4, V6)))
    assert ordered(result, dice()).mx[0].addresses == ("8.8.8.8",)
    only = failed(plan(mx((0, "a.x")), Policy(), a=(NODATA, V6)))
    assert only.kind is ErrorKind.NO_ROUTE
    assert only.detail == "a.x [2607::1] is IPv6; [mx] ipv6 = true would allow it"


def test_no_mx_means_the_domain_itself() -> None:
    result = good(plan(NODATA, there=(V4, NODATA)))
    assert ordered(result, dice()) == Hosts(
        "there.example", (MxHost("there.example", 0, ("8.8.8.8",)),), "there.example"
    )


@pytest.mark.parametrize(
    ("answer", "hosts", "kind", "says"),
    [
        (NXDOMAIN, {}, ErrorKind.NO_DOMAIN, "there.example"),
        (mx((0, "")), {}, ErrorKind.NULL_MX, "there.example"),
        (mx((10, "")), {}, ErrorKind.NULL_MX, "there.example"),
        (LATE, {}, ErrorKind.DNS_TEMPORARY, "MX of there.example: no answer"),
        (NODATA, {"there": (NODATA, NODATA)}, ErrorKind.NO_DOMAIN, "neither MX nor address"),
        (NODATA, {"there": (NODATA, LATE)}, ErrorKind.DNS_TEMPORARY, "addresses of there.example: no answer"),
        (mx((5, "a.x"), (6, "b.x")), {"a": (NXDOMAIN, NXDOMAIN), "b": (NODATA, NODATA)}, ErrorKind.NO_ROUTE, "no MX host of there.example"),
        (mx((5, "a.x"), (6, "b.x")), {"a": (NXDOMAIN, NXDOMAIN), "b": (LATE, NODATA)}, ErrorKind.DNS_TEMPORARY, "addresses of b.x"),
        (mx((5, "a.x"), (6, "b.x")), {"a": (Found(("10.0.0.1",), 9), NODATA), "b": (LATE, LATE)}, ErrorKind.DNS_TEMPORARY, "of b.x"),
        (mx((5, "a b.x")), {}, ErrorKind.NO_ROUTE, "holds a host name"),
    ],
)  # fmt: skip
def test_a_failure_says_whether_it_is_for_good(
    answer: Answer[Exchange], hosts: dict[str, tuple[Answer[str], Answer[str]]], kind: ErrorKind, says: str
) -> None:
    result = failed(plan(answer, **hosts))
    assert result.kind is kind
    assert says in result.detail


@pytest.mark.parametrize(
    ("kind", "outcome", "enhanced", "scope"),
    [
        (ErrorKind.NO_DOMAIN, Outcome.BOUNCED, "5.1.2", Scope.RECIPIENT),
        (ErrorKind.NULL_MX, Outcome.BOUNCED, "5.1.10", Scope.RECIPIENT),
        (ErrorKind.DNS_TEMPORARY, Outcome.DEFERRED, "4.4.3", Scope.LANE),
        (ErrorKind.NO_ROUTE, Outcome.DEFERRED, "4.4.4", Scope.LANE),
    ],
)
def test_a_failure_is_a_disposition(kind: ErrorKind, outcome: Outcome, enhanced: str, scope: Scope) -> None:
    disposition = NoHosts("there.example", kind, "why").disposition
    assert (disposition.outcome, disposition.enhanced, disposition.scope) == (outcome, enhanced, scope)
    assert disposition.bounce_class in (BounceClass.INVALID, BounceClass.CONNECTION)
    assert disposition.text.endswith(": why")


def test_a_host_that_cannot_be_resolved_is_left_out() -> None:
    answer = mx((5, "a.x"), (6, "b.x"), (7, "c.x"))
    result = good(plan(answer, a=(LATE, LATE), b=(NXDOMAIN, NXDOMAIN), c=(V4, LATE)))
    assert [host.name for host in ordered(result, dice()).mx] == ["c.x"]


def test_the_root_beside_other_hosts_is_ignored() -> None:
    result = good(plan(mx((0, ""), (10, "a.x")), a=(V4, NODATA)))
    assert [host.name for host in ordered(result, dice()).mx] == ["a.x"]


def test_refused_addresses_are_told_with_the_key_that_would_allow_them() -> None:
    answer = mx((5, "a.x"), (6, "b.x"))
    hosts = {"a": (Found(("127.0.0.1",), 60), NODATA), "b": (Found(("10.0.0.9",), 60), NODATA)}
    result = failed(plan(answer, **hosts))
    assert result.kind is ErrorKind.NO_ROUTE
    assert (
        "a.x [127.0.0.1] is loopback; a network in [mx] allow_networks would allow it, and 1 more"
        in result.detail
    )
    allowed = good(plan(answer, Policy(allowed=(ip_network("10.0.0.0/8"),)), **hosts))
    assert [(host.name, host.addresses) for host in ordered(allowed, dice()).mx] == [("b.x", ("10.0.0.9",))]


def test_a_refused_address_beside_a_public_one_is_left_out() -> None:
    result = good(plan(mx((5, "a.x")), a=(Found(("127.0.0.1", "8.8.8.8"), 60), NODATA)))
    assert ordered(result, dice()).mx[0].addresses == ("8.8.8.8",)


def test_a_host_named_twice_counts_once_with_its_best_preference() -> None:
    exchanges = chosen("there.example", mx((20, "a.x"), (15, "b.x"), (10, "a.x")), dice())
    assert exchanges == (Exchange(10, "a.x"), Exchange(15, "b.x"))


def test_five_hundred_records_cost_a_bounded_number_of_look_ups_and_the_best_are_kept() -> None:
    answer = mx(*((500 - n, f"mx{n}.x") for n in range(500)))
    exchanges = chosen("there.example", answer, dice())
    assert isinstance(exchanges, tuple)
    assert [each.preference for each in exchanges] == list(range(1, MOST_HOSTS + 1))


def test_a_host_with_very_many_addresses_keeps_some_of_both_families() -> None:
    v4 = Found(tuple(f"8.8.{n // 250}.{n % 250}" for n in range(500)), 60)
    v6 = Found(tuple(f"2607::{n:x}" for n in range(1, 500)), 60)
    addresses = ordered(good(plan(mx((5, "a.x")), a=(v4, v6))), dice()).mx[0].addresses
    assert len(addresses) == MOST_ADDRESSES
    assert sum(":" in address for address in addresses) == MOST_ADDRESSES // 2


@pytest.mark.parametrize(
    ("ttls", "kept_s"), [((300, 900, 900), 300.0), ((3_600, 90, 900), 90.0), ((0, 0, 0), 60.0), ((86_400,) * 3, 3_600.0)]
)  # fmt: skip
def test_an_answer_is_kept_for_its_least_ttl_within_bounds(ttls: tuple[int, int, int], kept_s: float) -> None:
    answer = mx((5, "a.x"), ttl_s=ttls[0])
    result = plan(answer, a=(Found(("8.8.8.8",), ttls[1]), Found(("2607::1",), ttls[2])))
    assert mx_plan.keep_s(result) == kept_s


def test_what_may_soon_be_otherwise_is_kept_for_a_short_time() -> None:
    part = plan(mx((5, "a.x"), (6, "b.x")), a=(LATE, NODATA), b=(V4, NODATA))
    assert mx_plan.keep_s(part) == 60.0
    assert 10.0 <= mx_plan.keep_s(plan(LATE)) <= 30.0
    assert mx_plan.keep_s(plan(NXDOMAIN)) == 60.0


@pytest.mark.parametrize(
    ("domain", "policy", "expected"),
    [
        ("[8.8.8.8]", Policy(), "8.8.8.8"),
        ("[IPv6:2607::1]", BOTH, "2607::1"),
        ("[ipv6:2607:0:0::1]", BOTH, "2607::1"),
        ("[IPv6:2607::1]", Policy(), ErrorKind.NO_ROUTE),
        ("[127.0.0.1]", Policy(), ErrorKind.NO_ROUTE),
        ("[127.0.0.1]", Policy(allowed=(ip_network("127.0.0.0/8"),)), "127.0.0.1"),
        ("[IPv6:::ffff:10.0.0.1]", BOTH, ErrorKind.NO_ROUTE),
        ("[IPv6:8.8.8.8]", BOTH, ErrorKind.NO_DOMAIN),
        ("[2607::1]", BOTH, ErrorKind.NO_DOMAIN),
        ("[IPv6:2607::1%eth0]", BOTH, ErrorKind.NO_DOMAIN),
        ("[mx.example]", BOTH, ErrorKind.NO_DOMAIN),
        ("[8.8.8.8", BOTH, ErrorKind.NO_DOMAIN),
    ],
)
def test_a_literal_names_its_address(domain: str, policy: Policy, expected: str | ErrorKind) -> None:
    result = literal(domain, policy, 2525)
    if isinstance(expected, ErrorKind):
        assert failed(result).kind is expected
    else:
        assert isinstance(result, Hosts)
        assert (result.mx, result.port) == ((MxHost(domain, 0, (expected,)),), 2525)


def test_the_site_name_is_of_the_whole_set_whatever_is_up() -> None:
    answer = mx((5, "a.x"), (6, "b.x"))
    assert good(plan(answer, a=(LATE, LATE), b=(V4, NODATA))).site_name == "(a|b).x"


def test_two_addresses_of_each_host_are_tried_before_the_rest() -> None:
    hosts = Hosts(
        "d", (MxHost("a", 5, ("1", "2", "3")), MxHost("b", 6, ("4",)), MxHost("c", 7, ("5", "6", "7"))), "d"
    )
    assert "".join(address for _, address in tries(hosts)) == "12456" + "37"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([f"h{n}.x" for n in range(6)])), min_size=1),
    st.randoms(use_true_random=False),
)
def test_no_host_is_lost_and_none_comes_before_a_better_one(
    records: list[tuple[int, str]], rng: random.Random
) -> None:
    exchanges = chosen("there.example", mx(*records), rng)
    assert isinstance(exchanges, tuple)
    assert {each.name for each in exchanges} == {name for _, name in records}
    answers = {each.name: Addresses(V4, V6) for each in exchanges}
    hosts = ordered(good(planned("there.example", mx(*records), exchanges, answers, BOTH)), rng)
    preferences = [host.preference for host in hosts.mx]
    assert preferences == sorted(preferences)
    assert all(host.preference == min(p for p, name in records if name == host.name) for host in hosts.mx)
