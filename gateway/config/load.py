"""File, then environment: how a `Config` comes about.

Order, later wins: the defaults of `sections`, the file, `GATEWAY__SECTION__KEY` for any key, then the short names
`GATEWAY_DSN` and `GATEWAY_DATA_DIR`. Secrets come by `*_file` or by the environment, never on a command line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from gateway.config.sections import Config, MxConfig, SubmissionConfig
from gateway.config.strict_toml import Document, KeyPath, explain, known_keys, nearest, read_toml
from gateway.errors import ConfigError

_PREFIX: Final = "GATEWAY__"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_SHORT_NAMES: Final[dict[str, KeyPath]] = {
    "GATEWAY_DSN": ("database", "dsn"),
    "GATEWAY_DATA_DIR": ("database", "data_dir"),
}


def load(path: Path | None, env: Mapping[str, str]) -> Config:
    """Read the configuration; without a path the defaults and the environment alone.

    Raises:
        ConfigError: with file and line, or the environment variable, that has to be mended.
    """
    document = read_toml(path) if path is not None else Document(Path(), "", {})
    data: dict[str, Any] = {
        name: dict(table) if isinstance(table, dict) else table for name, table in document.data.items()
    }
    from_env: dict[KeyPath, str] = {}
    for name, raw in sorted(env.items()):
        key = _SHORT_NAMES.get(name) or _key_of(name)
        if key is None or (name in _SHORT_NAMES and not raw):
            continue
        from_env[key] = name
        table = data.setdefault(key[0], {})
        if isinstance(table, dict):
            table[key[1]] = _value(raw, key)
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        key, problem, hint = explain(error, Config)
        raise _error(document, from_env, key, problem, hint) from error
    for key, problem, hint in _inconsistencies(config):
        raise _error(document, from_env, key, problem, hint)
    return _with_dsn_of_file(config, document, from_env)


def _error(
    document: Document, from_env: Mapping[KeyPath, str], key: KeyPath, problem: str, hint: str
) -> ConfigError:
    if key in from_env:
        return ConfigError(problem, key=from_env[key], hint=hint)
    return document.error(problem, key, hint)


def _key_of(name: str) -> KeyPath | None:
    if not name.startswith(_PREFIX):
        return None
    section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
    sections = known_keys(Config)
    if section not in sections:
        raise ConfigError(f'no section "{section}"', key=name, hint=nearest(section, sections))
    keys = known_keys(Config, (section,))
    if key not in keys:
        raise ConfigError(f'no key "{key}" in section "{section}"', key=name, hint=nearest(key, keys))
    return section, key


def _value(raw: str, key: KeyPath) -> object:
    """Read an environment value as the key wants it: text as it stands, everything else as TOML."""
    section = next(field.type for field in msgspec.structs.fields(Config) if field.name == key[0])
    wanted = next(field.type for field in msgspec.structs.fields(section) if field.name == key[1])
    if wanted is str or str in get_args(wanted)[:1]:
        return raw
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw  # of the wrong type: the conversion says which is right


def _inconsistencies(config: Config) -> list[tuple[KeyPath, str, str]]:
    """What no single key's bounds can say."""
    found: list[tuple[KeyPath, str, str]] = []
    dispatch, route = config.dispatch, config.route
    if dispatch.urgent_reserve >= dispatch.in_flight:
        found.append(
            (
                ("dispatch", "urgent_reserve"),
                f"{dispatch.urgent_reserve} leaves nothing for other deliveries",
                f"below dispatch.in_flight ({dispatch.in_flight})",
            )
        )
    if dispatch.heartbeat_s * 3 > dispatch.lease_s:
        found.append(
            (
                ("dispatch", "heartbeat_s"),
                f"{dispatch.heartbeat_s:g} is too long for a lease of {dispatch.lease_s:g} s",
                f"at most {dispatch.lease_s / 3:g}, so that two lost heartbeats do no harm",
            )
        )
    targets = {("route", "default"): route.default} if route.default else {}
    targets |= {("route", "domains", domain): target for domain, target in route.domains.items()}
    for key, target in targets.items():
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
            found.append((key, f'"{target}" is not host:port', 'for example "127.0.0.1:2525"'))
        if key[-1] != key[-1].lower():
            found.append((key, "not lower case", f'"{key[-1].lower()}"'))
    return found + _wrong_addresses(config.mx) + _unsafe_submission(config.submission)


def _unsafe_submission(submission: SubmissionConfig) -> list[tuple[KeyPath, str, str]]:
    """A key that could be read on the way, and half a certificate."""
    found: list[tuple[KeyPath, str, str]] = []
    if not submission.require_tls and submission.host not in _LOOPBACK:
        found.append(
            (
                ("submission", "require_tls"),
                f"keys could be read on the way to {submission.host or 'every address'}",
                "false only on loopback (127.0.0.1, ::1, localhost)",
            )
        )
    if bool(submission.certificate_file) != bool(submission.key_file):
        missing = "key_file" if submission.certificate_file else "certificate_file"
        found.append(
            (("submission", missing), "a certificate and its key go together", "set both, or neither")
        )
    if submission.tls_port and not submission.certificate_file:
        found.append(
            (("submission", "tls_port"), "TLS without a certificate", "set submission.certificate_file")
        )
    return found


def _wrong_addresses(mx: MxConfig) -> list[tuple[KeyPath, str, str]]:
    """What is no address of a name server, or no network."""
    found: list[tuple[KeyPath, str, str]] = []
    for nameserver in mx.nameservers:
        if not _is_ip_port(nameserver):
            hint = 'for example "192.0.2.53", "127.0.0.1:5353" or "[2001:db8::53]:53"'
            found.append((("mx", "nameservers"), f'"{nameserver}" is neither IP address nor ip:port', hint))
    for network in mx.allow_networks:
        try:
            ip_network(network)
        except ValueError as error:
            hint = 'for example "10.0.0.0/8" or "fd00::/8"'
            with suppress(ValueError):
                hint = f'did you mean "{ip_network(network, strict=False)}"?'
            found.append((("mx", "allow_networks"), f'"{network}" is no network: {error}', hint))
    return found


def _is_ip_port(text: str) -> bool:
    """Whether text is an IP address, alone or with a port; an IPv6 address with a port stands in brackets."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest:
            port = rest.removeprefix(":") if rest.startswith(":") else ""
        if ":" not in host:
            return False
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ip_address(host)
    except ValueError:
        return False
    return port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535


def _with_dsn_of_file(config: Config, document: Document, from_env: Mapping[KeyPath, str]) -> Config:
    name = config.database.dsn_file
    if config.database.dsn or not name:
        return config
    try:
        dsn = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        key = ("database", "dsn_file")
        raise _error(
            document, from_env, key, f"{name} cannot be read", "a file that holds the DSN alone"
        ) from error
    return msgspec.structs.replace(config, database=msgspec.structs.replace(config.database, dsn=dsn))
