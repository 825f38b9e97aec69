"""What holds for a destination, and the line that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from gateway.cli.effective import Held, held, table_name
from gateway.config.load import read
from gateway.config.strict_toml import read_toml
from gateway.throttle.shaping import Shaping, parse_throttles

THROTTLES = """\
[default]
rate_per_s = 10
max_per_dispatcher = 50

[provider.big]
domains = ["big.example"]
mx_suffixes = ["mx.example"]
messages_per_connection = 500

[domain."big.example"]
burst = 3
"""


def effective(
    folder: Path, domain: str, *, config: str = "", env: Mapping[str, str] = {}, mx_hosts: Sequence[str] = ()
) -> dict[str, Held]:
    (folder / "t.toml").write_text(THROTTLES)
    (folder / "g.toml").write_text(config)
    document = read_toml(folder / "t.toml")
    loaded = read(folder / "g.toml", env)
    found = held(domain, parse_throttles(document), document, loaded, mx_hosts=mx_hosts)
    return {each.limit: each for each in found}


def test_each_limit_names_the_line_and_the_table(tmp_path: Path) -> None:
    throttles = tmp_path / "t.toml"
    found = effective(tmp_path, "big.example")
    assert found["rate_per_s"] == Held("rate_per_s", 10.0, f"{throttles}:2", "[default]")
    assert found["burst"] == Held("burst", 3, f"{throttles}:11", '[domain."big.example"]')
    assert found["max_connections"] == Held("max_connections", 10, "default", "")
    assert found["idle_connection_s"] == Held("idle_connection_s", 5.0, "default", "")


def test_where_the_other_file_says_less_it_holds_and_what_it_replaces_is_named(tmp_path: Path) -> None:
    throttles, config = tmp_path / "t.toml", tmp_path / "g.toml"
    found = effective(
        tmp_path,
        "a.example",
        config="[dispatch]\nmessages_per_connection = 30",
        env={"GATEWAY__DISPATCH__CONNECTIONS_PER_LANE": "7"},
        mx_hosts=["one.mx.example"],
    )
    assert found["messages_per_connection"] == Held(
        "messages_per_connection", 30, f"{config}:2", "[dispatch] messages_per_connection", f"500 {throttles}:8 [provider.big]"
    )  # fmt: skip
    assert found["max_per_dispatcher"] == Held(
        "max_per_dispatcher", 7, "environment GATEWAY__DISPATCH__CONNECTIONS_PER_LANE", "[dispatch] connections_per_lane",
        f"50 {throttles}:3 [default]",
    )  # fmt: skip


def test_a_built_in_default_that_is_smaller_holds_too(tmp_path: Path) -> None:
    found = effective(tmp_path, "a.example")["max_per_dispatcher"]
    assert (found.value, found.source) == (5, "default")
    assert found.rule == "[dispatch] connections_per_lane"
    assert found.instead_of == f"50 {tmp_path / 't.toml'}:3 [default]"


def test_without_a_file_all_is_default(tmp_path: Path) -> None:
    found = list(held("a.example", Shaping(), None, read(None, {})))
    assert {each.source for each in found} == {"default"}
    assert {each.rule for each in found} == {""}


@pytest.mark.parametrize(
    ("rule", "written"),
    [("default", "[default]"), ("provider.google", "[provider.google]"), ("domain.a.example", '[domain."a.example"]'),
     ("site_name.(a|b).mx.example", '[site_name."(a|b).mx.example"]')],
)  # fmt: skip
def test_a_table_is_written_as_it_stands_in_the_file(rule: str, written: str) -> None:
    assert table_name(rule) == written
