"""Who is to live, how long to wait before the next try, and what a process's end means."""

from __future__ import annotations

import pytest

from gateway.app.brief import Brief, Role, Tuning, decode, decode_tuning, encode
from gateway.app.exits import Exit, exit_code
from gateway.app.supervisor import LONGEST_PAUSE_S, Member, members, pause_s
from gateway.config import Config, DatabaseConfig, RouteConfig
from gateway.dispatch.lease import Fenced
from gateway.errors import ConfigError, GatewayError, StoreUnavailable
from gateway.model.disposition import BounceClass, Scope, Stage
from gateway.mta.bounce_rules import BounceRule, BounceRules
from gateway.throttle.shaping import Limits, Provider, Rule, Shaping


def test_one_process_a_role_and_as_many_dispatchers_as_wanted() -> None:
    found = members([Role.API, Role.DISPATCH, Role.LISTEN], 2)
    assert [member.name for member in found] == ["api", "dispatch-1", "dispatch-2", "listen"]
    assert members([Role.DISPATCH], 0) == []
    assert Member(Role.API).name == "api"


def test_pauses_double_up_to_a_limit() -> None:
    pauses = [pause_s(n) for n in range(1, 40)]
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.CONFIG),
        (StoreUnavailable("x"), Exit.TEMPORARY),
        (GatewayError("x"), Exit.FAILED),
        (Fenced("x"), Exit.FAILED),  # its role makes TEMPORARY of it
        (ValueError("x"), Exit.BUG),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: Exit) -> None:
    assert exit_code(error) == code


TUNING = Tuning(
    Config(
        database=DatabaseConfig(dsn="postgresql://u:p@h/d"), route=RouteConfig(domains={"a.test": "h:25"})
    ),
    Shaping(
        Limits(rate_per_s=7.5),
        {"p": Provider(burst=3, domains=("a.test",))},
        {},
        {},
        {"b.test": Rule(rate_per_s=1.0)},
    ),
    BounceRules(
        (
            BounceRule(
                pattern="x", bounce_class=BounceClass.SPAM, why="y", stage=(Stage.DOT,), scope=Scope.LANE
            ),
        )
    ),
)


def test_a_brief_and_a_tuning_survive_the_pipe_whole() -> None:
    brief = Brief(Role.DISPATCH, "postgresql://u:p@h/d", TUNING, "debug", False)
    line = encode(brief)
    assert line.count(b"\n") == 1
    assert decode(line) == brief
    line = encode(TUNING)
    assert line.count(b"\n") == 1
    assert decode_tuning(line) == TUNING
