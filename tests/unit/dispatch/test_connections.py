"""Of the two files the smaller value holds, and MX hosts count once they are known."""

from __future__ import annotations

from gateway.config import DispatchConfig
from gateway.dispatch.connections import ConnectionRules, Connections
from gateway.mta.mx_plan import Candidate, Plan
from gateway.throttle.shaping import Limits, Provider, Rule, Shaping

CONFIG = DispatchConfig(connections_per_lane=4, messages_per_connection=50, idle_connection_s=5.0)


def test_the_smaller_value_holds() -> None:
    shaping = Shaping(
        Limits(max_per_dispatcher=10, messages_per_connection=20, idle_connection_s=9.0),
        domain={"a.example": Rule(max_per_dispatcher=2, idle_connection_s=1.0)},
    )
    rules = ConnectionRules(CONFIG, shaping)
    assert rules.of("b.example") == Connections(4, 20, 5.0)
    assert rules.of("a.example") == Connections(2, 20, 1.0)


def test_without_throttles_the_configuration_decides() -> None:
    assert ConnectionRules(CONFIG).of("a.example") == Connections(4, 50, 5.0)


def test_rules_by_mx_hosts_and_site_name_hold_once_those_are_known() -> None:
    plans: dict[str, Plan] = {}
    shaping = Shaping(
        provider={"p": Provider(mx_suffixes=("mx.example",), messages_per_connection=3)},
        site_name={"s": Rule(max_per_dispatcher=1)},
    )
    rules = ConnectionRules(CONFIG, shaping, plans.get)
    assert rules.of("a.example") == Connections(4, 50, 5.0)
    plans["a.example"] = Plan("a.example", (Candidate("one.mx.example", 1, ("192.0.2.1",), ()),), "s", 60.0)
    assert rules.of("a.example") == Connections(1, 3, 5.0)


def test_a_change_holds_at_once() -> None:
    rules = ConnectionRules(CONFIG, Shaping())
    assert rules.of("a.example").messages == 50
    rules.retune(DispatchConfig(messages_per_connection=9), Shaping(Limits(max_per_dispatcher=3)))
    assert rules.of("a.example") == Connections(3, 9, 5.0)
