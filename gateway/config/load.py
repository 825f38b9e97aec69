"""File, then environment: how a `Config` comes about, and where each value is from.

Order, later wins: the defaults of `sections`, the file, `GATEWAY__SECTION__KEY` for any key, then the short names
`GATEWAY_DSN` and `GATEWAY_DATA_DIR`. Secrets come by `*_file` or by the environment, never on a command line. What the values
mean together is `consistency`'s.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import msgspec

from gateway.config.consistency import inconsistencies
from gateway.config.sections import Config
from gateway.config.strict_toml import (
    Document,
    KeyPath,
    MakeError,
    convert_all,
    known_keys,
    nearest,
    read_toml,
)
from gateway.errors import ConfigError

_PREFIX: Final = "GATEWAY__"
_DSN_FILE: Final[KeyPath] = ("database", "dsn_file")
_SHORT_NAMES: Final[dict[str, KeyPath]] = {
    "GATEWAY_DSN": ("database", "dsn"),
    "GATEWAY_DATA_DIR": ("database", "data_dir"),
}
_FOR_TESTS: Final = "GATEWAY_TEST_"
# What Kubernetes puts into the environment for a Service whose name begins with "gateway".
_SERVICE_LINK: Final = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)$")
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")
_NEAR: Final = 0.9
"""From this likeness on (of difflib) a variable of nearly our name is taken for a mistake."""


class Loaded(msgspec.Struct, frozen=True):
    """A configuration as read: `config` is right wherever `errors` name nothing else.

    Attributes:
        errors: every mistake, in the order of the file's lines; those of the environment come last.
        document: the file; an empty one where there is none.
        from_env: keys that the environment gives, with the variable's name.
    """

    config: Config
    errors: tuple[ConfigError, ...]
    document: Document
    from_env: Mapping[KeyPath, str]

    def source(self, key: KeyPath) -> str:
        """Say where a value is from: `environment NAME`, `file:line`, or `default`."""
        if key in self.from_env:
            return f"environment {self.from_env[key]}"
        if key == ("database", "dsn") and self.config.database.dsn and not self.document.has(key):
            return f"{self.config.database.dsn_file}, as {self.source(_DSN_FILE)} says"
        if self.document.has(key):
            return f"{self.document.path}:{self.document.line_of(key)}"
        return "default"


def load(path: Path | None, env: Mapping[str, str]) -> Config:
    """Read the configuration; without a path the defaults and the environment alone.

    Raises:
        ConfigError: with file and line, or the environment variable, that has to be mended; the first where there are several.
    """
    loaded = read(path, env)
    if loaded.errors:
        raise ConfigError.first_of(loaded.errors)
    return loaded.config


def read(path: Path | None, env: Mapping[str, str]) -> Loaded:
    """Read the configuration with every mistake in it, and where each value is from.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    return read_document(read_toml(path) if path is not None else Document(Path(), "", {}), env)


def read_document(document: Document, env: Mapping[str, str]) -> Loaded:
    """As `read`, of a file that was parsed before."""
    data: dict[str, Any] = {
        name: dict(table) if isinstance(table, dict) else table for name, table in document.data.items()
    }
    from_env: dict[KeyPath, str] = {}
    strangers: list[ConfigError] = []
    # The short names last: they win.
    for name, raw in sorted(env.items(), key=lambda item: (item[0] in _SHORT_NAMES, item[0])):
        try:
            key = _SHORT_NAMES.get(name) or _key_of(name, raw)
        except ConfigError as error:
            strangers.append(error)
            continue
        if key is None or (name in _SHORT_NAMES and not raw):
            continue
        from_env[key] = name
        table = data.setdefault(key[0], {})
        if isinstance(table, dict):
            table[key[1]] = _value(raw, key)

    def error_at(problem: str, key: KeyPath, hint: str) -> ConfigError:
        if key in from_env:
            return ConfigError(problem, key=from_env[key], hint=hint)
        if (
            document.path == Path()
        ):  # there is no file: the value is a default that does not go with the environment
            return ConfigError(problem, key=".".join(key), hint=hint)
        return document.error(problem, key, hint)

    config, errors = convert_all(data, Config, error_at)
    config = config or Config()
    wrong = {error.key for error in errors}
    for key, problem, hint in inconsistencies(config):
        # What a mistake left at its default says nothing about the values around it.
        if not any(name.startswith(f"{key[0]}.") or name == key[0] for name in wrong):
            errors.append(error_at(problem, key, hint))
    try:
        config = _with_dsn_of_file(config, error_at)
    except ConfigError as error:
        errors.append(error)
    errors.sort(key=lambda error: error.line or (0 if error.path else 1 << 30))
    return Loaded(config, (*errors, *strangers), document, from_env)


def _key_of(name: str, raw: str) -> KeyPath | None:
    """Return the key that a variable gives, or None: it is not ours.

    Raises:
        ConfigError: it is meant to be ours, and names no key.
    """
    section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
    if not name.startswith(_PREFIX) or not key:
        _require_no_near_miss(name, raw)
    if not name.startswith(_PREFIX):
        return None
    sections = known_keys(Config)
    if section not in sections:
        raise ConfigError(f'no section "{section}"', key=name, hint=nearest(section, sections))
    keys = known_keys(Config, (section,))
    if key not in keys:
        raise ConfigError(f'no key "{key}" in section "{section}"', key=name, hint=nearest(key, keys))
    return section, key


def _require_no_near_miss(name: str, raw: str) -> None:
    """Refuse `GATEWAY_API_PORT` for `GATEWAY__API__PORT`; leave alone what only begins like our names."""
    if not name.startswith("GATEWAY_") or name.startswith(_FOR_TESTS):
        return
    if _SERVICE_LINK.search(name) or _SERVICE_URL.match(raw):
        return
    ours = dict(zip(_SHORT_NAMES, _SHORT_NAMES, strict=True))
    for section in known_keys(Config):
        for key in known_keys(Config, (section,)):
            variable = f"{_PREFIX}{section}__{key}".upper()
            ours[variable.replace("__", "_")] = variable
    if close := difflib.get_close_matches(name.upper().replace("__", "_"), ours, n=1, cutoff=_NEAR):
        raise ConfigError("no variable of the gateway", key=name, hint=f'did you mean "{ours[close[0]]}"?')


def _value(raw: str, key: KeyPath) -> object:
    """Read an environment value as the key wants it: text as it stands, everything else as TOML."""
    section = next(field.type for field in msgspec.structs.fields(Config) if field.name == key[0])
    wanted = next(field.type for field in msgspec.structs.fields(section) if field.name == key[1])
    # A text with bounds is Annotated[str, …]; the str in dict[str, str] is that of its keys.
    if wanted is str or (get_origin(wanted) is not dict and str in get_args(wanted)[:1]):
        return raw
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw  # of the wrong type: the conversion says which is right


def _with_dsn_of_file(config: Config, error_at: MakeError) -> Config:
    name = config.database.dsn_file
    if config.database.dsn or not name:
        return config
    try:
        dsn = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise error_at(f"{name} cannot be read", _DSN_FILE, "a file that holds the DSN alone") from error
    return msgspec.structs.replace(config, database=msgspec.structs.replace(config.database, dsn=dsn))
