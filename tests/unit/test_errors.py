"""Errors say what was wrong, where, and what would be right."""

from pathlib import Path

import pytest

from gateway import errors


def test_config_error_names_file_line_key_and_hint() -> None:
    error = errors.ConfigError(
        "unknown key", path=Path("g.toml"), line=7, key="api.prt", hint='did you mean "port"?'
    )
    assert str(error) == 'g.toml:7: api.prt: unknown key; did you mean "port"?'
    assert (error.path, error.line, error.key) == (Path("g.toml"), 7, "api.prt")


def test_config_error_without_a_file_speaks_of_the_environment() -> None:
    assert str(errors.ConfigError("not a number", key="GATEWAY__API__PORT")) == (
        "environment: GATEWAY__API__PORT: not a number"
    )


def test_every_problem_has_a_type_of_its_own() -> None:
    types = [problem.type for problem in errors.Problem.__subclasses__()]
    assert len(types) == len(set(types)) == 17


def test_invalid_transition_names_the_allowed_ones() -> None:
    error = errors.InvalidTransition("draft", "sending", ["scheduled", "cancelled"])
    assert str(error) == "cannot go from draft to sending; from draft it may go to scheduled, cancelled"
    assert "it has ended" in str(errors.InvalidTransition("completed", "sending", []))


@pytest.mark.parametrize("kind", [errors.RateLimited, errors.Unavailable])
def test_retry_after_is_part_of_the_error(kind: type[errors.RateLimited] | type[errors.Unavailable]) -> None:
    assert kind(2.5).retry_after_s == 2.5
    assert "2.5 s" in str(kind(2.5))


def test_invalid_lists_each_pointer() -> None:
    assert str(errors.Invalid([("/to/0", "no @"), ("", "empty")])) == "/to/0: no @; empty"
