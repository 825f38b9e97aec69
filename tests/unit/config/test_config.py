"""A wrong configuration never starts, and says in one line what to do; the file documents every key."""

from pathlib import Path

import msgspec
import pytest

from gateway.config import Config, load
from gateway.errors import ConfigError

SHIPPED = Path(__file__).parents[3] / "config" / "gateway.toml"


def refuse(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> ConfigError:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, env or {})
    return caught.value


def test_the_shipped_file_holds_the_defaults_of_the_code() -> None:
    assert load(SHIPPED, {}) == load(None, {}) == Config()


def test_every_key_stands_in_the_shipped_file_under_a_comment() -> None:
    lines = SHIPPED.read_text().splitlines()
    for section in msgspec.structs.fields(Config):
        start = lines.index(f"[{section.name}]")
        assert isinstance(section.type, type)
        assert issubclass(section.type, msgspec.Struct)
        for key in msgspec.structs.fields(section.type):
            if (section.name, key.name) == ("route", "domains"):
                at = lines.index("[route.domains]")
            else:
                at = next(
                    i for i, line in enumerate(lines) if i > start and line.startswith(f"{key.name} = ")
                )
            above = lines[at - 1]
            # A port needs no words of its own beside its host.
            assert above.startswith("#") or (key.name == "port" and above.startswith("host = ")), key.name


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("[api]\n\nprt = 1", 3, "api.prt", 'unknown key; did you mean "port"?'),
        ("[dispatch]\nlease_ms = 15000", 2, "dispatch.lease_ms", 'did you mean "lease_s" (in seconds)?'),
        ("[dispach]\nworkers = 2", 1, "dispach", 'did you mean "dispatch"?'),
        ("workers = 2", 1, "workers", "unknown key"),
        ('[dispatch]\nworkers = 1\nlease_s = "15s"', 3, "dispatch.lease_s", "expected float, got str; in seconds"),
        ("[api]\nport = 70000", 2, "api.port", "expected int <= 65535"),
        ('[dispatch]\ntls = "requires"', 2, "dispatch.tls", 'no value "requires"; did you mean "require"?'),
        ('[[api]]\nport = 1\n', 1, "api", "expected object, got array"),
        ("[api]\nport = true", 2, "api.port", "expected int, got bool"),
        ('[api]\npublic_url = "example.com"', 2, "api.public_url", "matching regex"),
        # It would be said to receivers, or stand in a header.
        ('[dispatch]\nhelo_name = "a.example\\n"', 2, "dispatch.helo_name", "matching regex"),
        ('[api]\npublic_url = "https://a.example\\n"', 2, "api.public_url", "matching regex"),
        ('[mail]\nbounce_domain = "a.example\\n"', 2, "mail.bounce_domain", "matching regex"),
        ("api = 3", 1, "api", "expected object, got int"),
        ("api.port = 0", 1, "api.port", "expected int >= 1"),
        ("[retry]\ngreylist_s = [300, -1]", 2, "retry.greylist_s", "expected float >= 0.0"),
        ("[retry]\ngreylist_s = []", 2, "retry.greylist_s", "length >= 1"),
        ('[route]\n[route.domains]\n"a.example" = "b:25"\n"b.example" = "mx"', 4, "route.domains.b.example", "host:port"),
        ('[route.domains]\n"A.example" = "b:25"', 2, "route.domains.A.example", '"a.example"'),
        ("[mx]\nport = 25\nnameservers = ['9.9.9.9', 'dns.example']", 3, "mx.nameservers", '"dns.example" is neither IP address nor ip:port'),
        ("[mx]\nnameservers = ['9.9.9.9:']", 2, "mx.nameservers", "127.0.0.1:5353"),
        ("[mx]\nnameservers = ['[::1]:70000']", 2, "mx.nameservers", "[2001:db8::53]:53"),
        ("[mx]\nnameservers = ['[::1]53']", 2, "mx.nameservers", "neither"),
        ("[mx]\nallow_networks = ['10.1.2.3/8']", 2, "mx.allow_networks", 'did you mean "10.0.0.0/8"?'),
        ("[mx]\nallow_networks = ['localhost']", 2, "mx.allow_networks", 'for example "10.0.0.0/8"'),
        ("[mx]\nallow_network = []", 2, "mx.allow_network", 'did you mean "allow_networks"?'),
        ("[mx]\ntimeout_s = 0", 2, "mx.timeout_s", "expected float > 0.0"),
        ("[mx]\nipv6 = 1", 2, "mx.ipv6", "expected bool, got int"),
        ("[dispatch]\nin_flight = 50", None, "dispatch.urgent_reserve", "below dispatch.in_flight (50)"),
        ("[dispatch]\nlease_s = 1\nheartbeat_s = 0.5", 3, "dispatch.heartbeat_s", "two lost heartbeats"),
        ("[api]\nport = \n", 2, "", "not TOML"),
        ("[api]\nport = 1\n[api]\n", None, "", "not TOML"),
        ('[submission]\nhost = "0.0.0.0"\nrequire_tls = false', 3, "submission.require_tls", "false only on loopback"),
        ('[submission]\ncertificate_file = "c.pem"', None, "submission.key_file", "set both"),
        ("[submission]\ntls_port = 465", 2, "submission.tls_port", "TLS without a certificate"),
        ('[api]\nhost = "open', 2, "", "not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_line_and_key(
    tmp_path: Path, text: str, line: int | None, key: str, says: str
) -> None:
    error = refuse(tmp_path, text)
    assert says in str(error)
    assert str(error).startswith(str(tmp_path / "gateway.toml"))
    assert error.key == key
    if line is not None:
        assert error.line == line


def test_a_missing_or_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nowhere.toml", {})
    (tmp_path / "latin1.toml").write_bytes(b"# \xfc")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "latin1.toml", {})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[api]\nport = 1\n[database]\ndsn = "postgresql://file"\n')
    config = load(
        path,
        {
            "GATEWAY_DSN": "postgresql://env",
            "GATEWAY_DATA_DIR": "/srv/data",
            "GATEWAY__API__PORT": "9000",
            "GATEWAY__API__HOST": "127.0.0.2",
            "GATEWAY__DISPATCH__LEASE_S": "3.5",
            "GATEWAY__RETRY__GREYLIST_S": "[1, 2]",
            "GATEWAY__ROUTE__DEFAULT": "127.0.0.1:2525",
            "GATEWAY__MAIL__BOUNCE_DOMAIN": "b.example",
            "PATH": "/bin",
        },
    )
    assert (config.database.dsn, config.data_dir) == ("postgresql://env", Path("/srv/data"))
    assert (config.api.port, config.api.host, config.dispatch.lease_s) == (9000, "127.0.0.2", 3.5)
    assert config.retry.greylist_s == (1.0, 2.0)
    assert config.route.host_port("example.org") == ("127.0.0.1", 2525)
    assert config.mail.bounce_domain == "b.example"
    assert config.master_key_path == Path("/srv/data/master.key")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("GATEWAY__API__PRT", "1", 'did you mean "port"?'),
        ("GATEWAY__APY__PORT", "1", 'did you mean "api"?'),
        ("GATEWAY__API__PORT", "many", "expected int, got str"),
        ("GATEWAY__API__PORT", "0", "expected int >= 1"),
        ("GATEWAY__DATABASE__DSN_FILE", "/nowhere/dsn", "cannot be read"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value})
    assert str(caught.value).startswith(f"environment: {name}: ")
    assert says in str(caught.value)


def test_a_dsn_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://u:secret@h/d\n")
    config = load(None, {"GATEWAY__DATABASE__DSN_FILE": str(tmp_path / "dsn")})
    assert config.database.dsn == "postgresql://u:secret@h/d"
    assert "secret" not in repr(config)


def test_routes_name_hosts_ports_and_ipv6(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text('[route.domains]\n"a.example" = "[::1]:25"\n')
    route = load(path, {}).route
    assert route.host_port("a.example") == ("::1", 25)
    assert route.host_port("b.example") is None


def test_name_servers_and_networks_may_be_of_both_families(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    nameservers = ("9.9.9.9", "127.0.0.1:5353", "2620:fe::fe", "[2620:fe::fe]", "[::1]:5353")
    path.write_text(
        f"[mx]\nnameservers = {list(nameservers)}\nallow_networks = ['127.0.0.0/8', 'fd00::/8', '10.9.8.7']\n"
    )
    mx = load(path, {}).mx
    assert mx.nameservers == nameservers
    assert [str(network) for network in mx.allowed] == ["127.0.0.0/8", "fd00::/8", "10.9.8.7/32"]
