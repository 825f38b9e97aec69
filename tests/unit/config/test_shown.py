"""Values are shown with their source and without secrets; changes are told key by key."""

from pathlib import Path

import pytest

from gateway.config import Config, DatabaseConfig, DispatchConfig, RouteConfig
from gateway.config.load import read
from gateway.config.shown import CHANGES_SHOWN, SECRETS, Value, changes, masked, text_of, told, values
from gateway.config.strict_toml import known_keys
from gateway.throttle.shaping import Limits, Provider, Rule, Shaping

DSN = ("database", "dsn")


def test_every_key_is_shown_once(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text('[route.domains]\n"a.example" = "b:25"\n[api]\nport = 9000\n')
    found = values(read(path, {"GATEWAY_DSN": "postgresql://u:p@h/d"}))
    keys = {f"{section}.{key}" for section in known_keys(Config) for key in known_keys(Config, (section,))}
    assert {value.key for value in found} == keys - {"route.domains"} | {"route.domains.a.example"}
    assert len(found) == len(keys)
    by_key = {value.key: value for value in found}
    assert by_key["api.port"] == Value("api.port", 9000, f"{path}:4", live=False)
    assert by_key["database.dsn"].value == "postgresql://u:…@h/d"
    assert by_key["retry.greylist_s"] == Value(
        "retry.greylist_s", (300.0, 900.0, 1800.0), "default", live=True
    )


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:…@h/d"),
        ("postgresql://u:p@ss:w@h:5432/d", "postgresql://u:…@h:5432/d"),
        ("postgresql://u@h/d?password=p&x=1", "postgresql://u@h/d?password=…&x=1"),
        ("host=h password='p q' user=u", "host=h password=… user=u"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("", ""),
    ],
)
def test_of_a_dsn_all_but_the_password_is_shown(dsn: str, shown: str) -> None:
    assert masked(DSN, dsn) == shown


def test_whatever_may_hold_a_secret_is_masked() -> None:
    words = ("dsn", "password", "secret", "token")
    named = {
        (section, key)
        for section in known_keys(Config)
        for key in known_keys(Config, (section,))
        if any(word in key for word in words) and not key.endswith("_file")
    }
    assert named == SECRETS


def test_changes_are_told_key_by_key_and_without_secrets() -> None:
    before = Config(
        database=DatabaseConfig(dsn="postgresql://u:old@h/d"), route=RouteConfig(domains={"a": "b:25"})
    )
    after = Config(
        database=DatabaseConfig(dsn="postgresql://u:new@h/d"),
        dispatch=DispatchConfig(lease_s=20.5, tls="none"),
        route=RouteConfig(domains={"c": "d:25"}),
    )
    assert [str(change) for change in changes(before, after)] == [
        "database.dsn: postgresql://u:…@h/d → postgresql://u:…@h/d",
        "dispatch.lease_s: 15 → 20.5",
        "dispatch.tls: opportunistic → none",
        "route.domains.a: b:25 → (not set)",
        "route.domains.c: (not set) → d:25",
    ]
    assert changes(after, after) == []
    assert [
        str(change) for change in changes(Config(), Config(route=RouteConfig(domains={"c": "d:25"})))
    ] == ["route.domains.c: (not set) → d:25"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (31_536_000.0, "31536000"),
        (0.25, "0.25"),
        (True, "true"),
        ("", '""'),
        ("a", "a"),
        ((1.0, 2.5), "[1, 2.5]"),
        ([], "[]"),
    ],
)
def test_values_are_written_as_people_read_them(value: object, text: str) -> None:
    assert text_of(value) == text


def test_changes_of_throttles_name_the_table() -> None:
    before = Shaping(provider={"p": Provider(domains=("a",), burst=3)})
    after = Shaping(
        Limits(rate_per_s=50.0), {"p": Provider(domains=("a", "b"))}, domain={"x.example": Rule(burst=1)}
    )
    assert [str(change) for change in changes(before, after)] == [
        "default.rate_per_s: 100 → 50",
        "provider.p.domains: [a] → [a, b]",
        "provider.p.burst: 3 → (not set)",
        "domain.x.example.burst: (not set) → 1",
    ]


def test_many_changes_are_counted() -> None:
    assert told(range(CHANGES_SHOWN)) == [str(i) for i in range(CHANGES_SHOWN)]
    assert told(range(CHANGES_SHOWN + 5))[-1] == "… and 5 more"
