"""Every mistake is told at once, each value knows where it is from, and nearly our variables are refused."""

from pathlib import Path

import pytest

from gateway.config.load import load, read
from gateway.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


def test_every_mistake_is_told_by_line_and_the_environments_last(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[api]\nprt = 1\nport = "x"\n[dispach]\n[dispatch]\nlease_s = -1\ntls = "tls"\n[mx]\nnameservers = ["dns.example"]\n',
    )
    loaded = read(path, {"GATEWAY__API__HST": "x", "GATEWAY__RETRY__JITTER_RATIO": "7"})
    assert [(error.line, error.key) for error in loaded.errors] == [
        (2, "api.prt"),
        (3, "api.port"),
        (4, "dispach"),
        (6, "dispatch.lease_s"),
        (7, "dispatch.tls"),
        (9, "mx.nameservers"),
        (None, "GATEWAY__RETRY__JITTER_RATIO"),
        (None, "GATEWAY__API__HST"),
    ]
    with pytest.raises(
        ConfigError, match=r"gateway.toml:2: api.prt: .*\(and 7 more: gateway check-config"
    ) as caught:
        load(path, {"GATEWAY__API__HST": "x", "GATEWAY__RETRY__JITTER_RATIO": "7"})
    assert caught.value.problem == "unknown key"


def test_what_a_mistake_left_at_its_default_accuses_nobody_else(tmp_path: Path) -> None:
    path = write(tmp_path, "[dispatch]\nin_flight = 5_000_000\nurgent_reserve = 600\n")
    assert [error.key for error in read(path, {}).errors] == ["dispatch.in_flight"]


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("[api]\nport = 8025", None, "listen.port", "8025 is the API's port too"),
        ('[api]\nhost = "0.0.0.0"\n[listen]\nport = 8080', 4, "listen.port", "another one than [api] port"),
        ('[mail]\nplatform_domain = "p.example"', 1, "mail.platform_key_file", "platform_domain is set"),
        ('[mail]\nplatform_key_file = "key.pem"', 1, "mail.platform_domain", "needs both"),
    ],
)
def test_what_values_mean_together_is_checked(
    tmp_path: Path, text: str, line: int | None, key: str, says: str
) -> None:
    [error] = read(write(tmp_path, text), {}).errors
    assert (error.line, error.key) == (line, key)
    assert says in str(error)


def test_two_sockets_may_have_one_port_on_two_addresses(tmp_path: Path) -> None:
    assert not read(write(tmp_path, '[api]\nport = 8025\nhost = "127.0.0.2"'), {}).errors


def test_each_value_knows_where_it_is_from(tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("postgresql://file")
    path = write(
        tmp_path,
        f'[database]\ndsn_file = "{secret}"\n\n[api]\nport = 1\n[route.domains]\n"a.example" = "b:25"\n',
    )
    loaded = read(path, {"GATEWAY__API__HOST": "127.0.0.2"})
    assert loaded.source(("api", "port")) == f"{path}:5"
    assert loaded.source(("api", "host")) == "environment GATEWAY__API__HOST"
    assert loaded.source(("route", "domains", "a.example")) == f"{path}:7"
    assert loaded.source(("dispatch", "workers")) == "default"
    assert loaded.source(("database", "dsn")) == f"{secret}, as {path}:2 says"


def test_a_short_name_wins_over_the_long_one() -> None:
    env = {"GATEWAY_DSN": "postgresql://short", "GATEWAY__DATABASE__DSN": "postgresql://long"}
    loaded = read(None, env)
    assert loaded.config.database.dsn == "postgresql://short"
    assert loaded.source(("database", "dsn")) == "environment GATEWAY_DSN"


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("GATEWAY_API_PORT", "GATEWAY__API__PORT"),
        ("GATEWAY_API__PORT", "GATEWAY__API__PORT"),
        ("GATEWAY__API_PORT", "GATEWAY__API__PORT"),
        ("GATEWAY_DNS", "GATEWAY_DSN"),
        ("GATEWAY_DATADIR", "GATEWAY_DATA_DIR"),
        ("GATEWAY_DISPATCH_WORKER", "GATEWAY__DISPATCH__WORKERS"),
    ],
)
def test_a_variable_that_is_nearly_ours_is_refused(name: str, right: str) -> None:
    [error] = read(None, {name: "1"}).errors
    assert error.key == name
    assert error.hint == f'did you mean "{right}"?'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_TEST_DSN", "postgresql://t"),
        ("GATEWAY_COLOUR", "red"),
        ("GATEWAY_SERVICE_HOST", "10.0.0.7"),
        ("GATEWAY_API_SERVICE_PORT", "8080"),
        ("GATEWAY_API_SERVICE_PORT_HTTP", "8080"),
        ("GATEWAY_API_PORT", "tcp://10.0.0.7:8080"),
        ("GATEWAY_API_PORT_8080_TCP_PORT", "8080"),
        ("MY_GATEWAY_DSN", "x"),
    ],
)
def test_a_stranger_and_what_kubernetes_makes_of_services_are_left_alone(name: str, value: str) -> None:
    assert not read(None, {name: value}).errors


def test_the_environment_can_set_a_table() -> None:
    loaded = read(None, {"GATEWAY__ROUTE__DOMAINS": '{"example.org" = "127.0.0.1:2525"}'})
    assert not loaded.errors
    assert loaded.config.route.domains == {"example.org": "127.0.0.1:2525"}


def test_a_folder_is_told_to_be_one_and_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").touch()
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, {})
    assert (caught.value.problem, caught.value.hint) == (
        "is a folder",
        f"name the file in it, {tmp_path / 'gateway.toml'}",
    )
