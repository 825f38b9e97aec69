"""The most specific rule wins key by key, and a wrong file says what to do."""

from pathlib import Path

import msgspec
import pytest

from gateway.config.strict_toml import parse_toml
from gateway.errors import ConfigError
from gateway.throttle.shaping import Limits, Origin, Provider, Shaping, check_throttles, load_throttles

SHIPPED = Path(__file__).parents[3] / "config" / "throttles.toml"

FILE = """
[default]
rate_per_s = 10
[provider.big]
domains = ["big.example"]
mx_suffixes = ["mx.big.example"]
rate_per_s = 20
burst = 2
max_connections = 2
[mx_suffix."big.example"]
rate_per_s = 30
[mx_suffix."eu.mx.big.example"]
rate_per_s = 40
[site_name."s1"]
burst = 5
[domain."vip.example"]
max_connections = 50
"""


def shaping(tmp_path: Path, text: str) -> Shaping:
    path = tmp_path / "throttles.toml"
    path.write_text(text)
    return load_throttles(path)


def test_the_most_specific_rule_wins_key_by_key(tmp_path: Path) -> None:
    rules = shaping(tmp_path, FILE)
    assert rules.for_domain("other.example") == Limits(rate_per_s=10.0)
    assert rules.for_domain("big.example") == Limits(rate_per_s=20.0, burst=2, max_connections=2)
    hosts = ["A.EU.mx.big.example."]
    assert rules.for_domain("hosted.example", mx_hosts=hosts) == Limits(
        rate_per_s=40.0, burst=2, max_connections=2
    )
    assert rules.for_domain("vip.example", mx_hosts=hosts, site_name="s1") == Limits(
        rate_per_s=40.0, burst=5, max_connections=50
    )
    assert (
        rules.for_domain("x.example", mx_hosts=["notmx.big.example.evil", "xbig.example"]).rate_per_s == 10.0
    )
    assert (rules.has_own_limits("vip.example"), rules.has_own_limits("big.example")) == (True, False)


def test_explain_names_the_rule_of_each_value(tmp_path: Path) -> None:
    why = shaping(tmp_path, FILE).explain("vip.example", mx_hosts=["a.mx.big.example"], site_name="s1")
    assert why["rate_per_s"] == Origin(30.0, "mx_suffix.big.example")
    assert why["burst"] == Origin(5, "site_name.s1")
    assert why["max_connections"] == Origin(50, "domain.vip.example")
    assert why["messages_per_connection"] == Origin(100, "default")


def test_the_shipped_file_loads_and_holds_the_default_of_the_code() -> None:
    rules = load_throttles(SHIPPED)
    assert rules.default == Limits()
    assert rules.for_domain("gmail.com") == rules.for_domain("w.example", mx_hosts=["aspmx.l.google.com"])
    assert (
        rules.for_domain("t.example", mx_hosts=["t-example.mail.protection.outlook.com"]).max_connections == 5
    )


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("[defualt]\nburst = 1", 1, "defualt", 'did you mean "default"?'),
        ("[default]\nrate_per_m = 1", 2, "default.rate_per_m", 'did you mean "rate_per_s" (per second)?'),
        ('[domain."a.example"]\nburst = 5\nrate = 1', 3, "domain.a.example.rate", 'did you mean "rate_per_s"'),
        ('[domain."a.example"]\nburst = 0', 2, "domain.a.example.burst", "expected int >= 1"),
        ("[domain.a.example]\nburst = 1", 1, "domain.a", "are the quotes missing?"),
        ('[domain]\n"a.example" = 5', 2, "domain.a.example", "are the quotes missing?"),
        ('[domain."A.example"]\nburst = 1', 1, "domain.A.example", 'write "a.example"'),
        ('[mx_suffix.".a.example"]\nburst = 1', 1, "mx_suffix..a.example", 'write "a.example"'),
        ('[domain."bücher.example"]\nburst = 1', 1, "domain.bücher.example", "A-labels"),
        ('[provider.p]\ndomains = ["x.example"]\n[provider.q]\nmx_suffixes = ["x.example"]', 3, "provider.q", "already"),
        ('[domain."a.example"]\ndomains = ["x"]', 2, "domain.a.example.domains", "unknown key"),
        ('[provider.p]\nburst = 1', 1, "provider.p", "holds nowhere; say domains"),
        ('[provider.p]\nburst = 1\ndomains = ["A.example"]', 3, "provider.p.domains", 'write "a.example"'),
        ("default = 1", 1, "default", "expected a table"),
        ("[default", 1, "", "not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_line_and_key(
    tmp_path: Path, text: str, line: int, key: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        shaping(tmp_path, text)
    assert says in str(caught.value)
    assert (caught.value.line, caught.value.key) == (line, key)


def test_every_mistake_is_told_by_line() -> None:
    text = '[defualt]\nx = 1\n[default]\nburst = 0\nrate = 1\n[provider.p]\nburst = "x"\n[domain."A.example"]\nidle_connection_s = -1\n'
    rules, errors = check_throttles(parse_toml(Path("t.toml"), text))
    assert [(error.line, error.key) for error in errors] == [
        (1, "defualt"),
        (4, "default.burst"),
        (5, "default.rate"),
        (6, "provider.p"),
        (7, "provider.p.burst"),
        (8, "domain.A.example"),
        (9, "domain.A.example.idle_connection_s"),
    ]
    assert rules.default == Limits()


def test_every_key_stands_in_the_head_of_the_shipped_file_and_in_its_default() -> None:
    text = SHIPPED.read_text()
    head = text.split("\n[default]")[0]
    for field in msgspec.structs.fields(Provider):
        assert f"\n#   {field.encode_name} " in head, field.encode_name
    default = text.split("\n[default]")[1].split("\n[")[0]
    for field in msgspec.structs.fields(Limits):  # the values are compared with the code's above
        assert f"\n{field.encode_name} = " in default, field.encode_name


def test_rules_are_named_from_general_to_specific(tmp_path: Path) -> None:
    rules = shaping(tmp_path, FILE)
    assert rules.rules_for("vip.example", mx_hosts=["a.mx.big.example"], site_name="s1") == [
        "default", "provider.big", "mx_suffix.big.example", "site_name.s1", "domain.vip.example"
    ]  # fmt: skip
    assert rules.goes_by_hosts
    assert not shaping(tmp_path, '[provider.p]\ndomains = ["a.example"]\n').goes_by_hosts
