"""Limits by destination: `config/throttles.toml`, where the most specific rule wins, key by key.

Owns the rules' shape and precedence. Must not know lanes, buckets or MX look-ups: who knows a domain's MX hosts and site
name passes them in. Pure but for `load_throttles`, which reads one file.

From general to specific: default, provider, mx_suffix (longer wins), site_name, domain. A later rule overrides only the
keys that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.config.strict_toml import Document, KeyPath, convert_all, nearest, read_toml
from gateway.errors import ConfigError

Rate = Annotated[float, Meta(gt=0.0, le=100_000.0)]
Burst = Annotated[int, Meta(ge=1, le=100_000)]
Connections = Annotated[int, Meta(ge=1, le=10_000)]
Messages = Annotated[int, Meta(ge=1, le=100_000)]
Idle = Annotated[float, Meta(ge=0.0, le=3_600.0)]

_KINDS: Final = ("provider", "mx_suffix", "site_name", "domain")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one destination takes; the `[default]` table, key for key."""

    rate_per_s: Rate = 100.0
    """Deliveries per second over the whole fleet."""
    burst: Burst = 20
    """Deliveries that may leave at once after a pause."""
    max_connections: Connections = 10
    """Open connections over the whole fleet."""
    max_per_dispatcher: Connections = 5
    """Open connections of one dispatcher."""
    messages_per_connection: Messages = 100
    """Messages after which a connection is closed."""
    idle_connection_s: Idle = 5.0
    """How long an idle connection is kept."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Some of the limits, for some destinations. Only providers have `domains` and `mx_suffixes`."""

    rate_per_s: Rate | UnsetType = UNSET
    burst: Burst | UnsetType = UNSET
    max_connections: Connections | UnsetType = UNSET
    max_per_dispatcher: Connections | UnsetType = UNSET
    messages_per_connection: Messages | UnsetType = UNSET
    idle_connection_s: Idle | UnsetType = UNSET


class Provider(Rule, frozen=True):
    """A rule for one provider, wherever its domains or its MX hosts are met."""

    domains: tuple[str, ...] = ()
    mx_suffixes: tuple[str, ...] = ()


class Origin(msgspec.Struct, frozen=True):
    """A limit and the rule that gave it: `default`, or for example `provider.google`."""

    value: float
    rule: str


class Shaping(msgspec.Struct, frozen=True):
    """All rules of one file."""

    default: Limits = Limits()
    provider: Mapping[str, Provider] = {}
    mx_suffix: Mapping[str, Rule] = {}
    site_name: Mapping[str, Rule] = {}
    domain: Mapping[str, Rule] = {}

    def for_domain(self, domain: str, *, site_name: str = "", mx_hosts: Sequence[str] = ()) -> Limits:
        """Return the limits of a recipient domain (lower case, A-labels); MX hosts and site name where they are known."""
        changes: dict[str, Any] = {}
        for _, rule in self._matching(domain, site_name, mx_hosts):
            changes.update(_set_keys(rule))
        return msgspec.structs.replace(self.default, **changes) if changes else self.default

    def explain(self, domain: str, *, site_name: str = "", mx_hosts: Sequence[str] = ()) -> dict[str, Origin]:
        """Return for each limit its value and the rule that gave it."""
        origins = {key: Origin(getattr(self.default, key), "default") for key in Limits.__struct_fields__}
        for name, rule in self._matching(domain, site_name, mx_hosts):
            origins.update({key: Origin(value, name) for key, value in _set_keys(rule).items()})
        return origins

    def rules_for(self, domain: str, *, site_name: str = "", mx_hosts: Sequence[str] = ()) -> list[str]:
        """Return the names of the rules that hold for a domain, from general to specific."""
        return ["default", *(name for name, _ in self._matching(domain, site_name, mx_hosts))]

    @property
    def goes_by_hosts(self) -> bool:
        """Whether any rule holds by MX hosts or site name, which only a look-up tells."""
        by_suffix = any(provider.mx_suffixes for provider in self.provider.values())
        return bool(self.mx_suffix or self.site_name or by_suffix)

    def has_own_limits(self, domain: str) -> bool:
        """Say whether a domain has a rule by its own name, and so a lane of its own."""
        return domain in self.domain

    def _matching(self, domain: str, site_name: str, mx_hosts: Sequence[str]) -> Iterator[tuple[str, Rule]]:
        hosts = [host.lower().rstrip(".") for host in mx_hosts]
        for name, provider in self.provider.items():
            if domain in provider.domains or any(_under(hosts, suffix) for suffix in provider.mx_suffixes):
                yield f"provider.{name}", provider
        for suffix in sorted(self.mx_suffix, key=len):
            if _under(hosts, suffix):
                yield f"mx_suffix.{suffix}", self.mx_suffix[suffix]
        if rule := self.site_name.get(site_name):
            yield f"site_name.{site_name}", rule
        if rule := self.domain.get(domain):
            yield f"domain.{domain}", rule


def load_throttles(path: Path) -> Shaping:
    """Read a throttles file.

    Raises:
        ConfigError: file, line, key and what would be right.
    """
    return parse_throttles(read_toml(path))


def parse_throttles(document: Document) -> Shaping:
    """Turn a file as read into rules.

    Raises:
        ConfigError: as `load_throttles`; the first where there are several.
    """
    shaping, errors = check_throttles(document)
    if errors:
        raise ConfigError.first_of(errors)
    return shaping


def check_throttles(document: Document) -> tuple[Shaping, list[ConfigError]]:
    """Turn a file as read into rules, and tell every mistake in it, by line; the rules are all right where there is none."""
    known = ("default", *_KINDS)
    errors: list[ConfigError] = []
    tables: dict[str, dict[str, Any]] = {}
    for name, table in document.data.items():
        if name not in known:
            errors.append(document.error("unknown table", (name,), nearest(name, known)))
        elif not isinstance(table, dict):
            errors.append(document.error("expected a table", (name,), f"write [{name}]"))
        else:
            tables[name] = table
    rules: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    for kind in _KINDS:
        for name, table in tables.get(kind, {}).items():
            key = (kind, name)
            # [domain.a.example] without quotes is a table "example" inside a table "a".
            if not isinstance(table, dict) or any(isinstance(value, dict) for value in table.values()):
                hint = f'write [{kind}."example.com"]; are the quotes missing?'
                errors.append(document.error("expected a table of limits", key, hint))
                continue
            rule, mistakes = convert_all(
                table, Provider if kind == "provider" else Rule, document.errors_below(key)
            )
            errors += mistakes
            if kind != "provider":
                errors += _name_errors(document, key, name)
            rules[kind][name] = rule
    errors += _provider_errors(document, rules["provider"])
    default, mistakes = convert_all(tables.get("default", {}), Limits, document.errors_below(("default",)))
    errors += mistakes
    errors.sort(key=lambda error: error.line or 0)
    found = Shaping(
        default or Limits(), rules["provider"], rules["mx_suffix"], rules["site_name"], rules["domain"]
    )
    return found, errors


def _provider_errors(document: Document, providers: Mapping[str, Provider]) -> list[ConfigError]:
    errors: list[ConfigError] = []
    claimed: dict[str, str] = {}
    for name, provider in providers.items():
        key = ("provider", name)
        lists = [field for field in ("domains", "mx_suffixes") if getattr(provider, field)]
        if not lists and not any(document.has((*key, field)) for field in ("domains", "mx_suffixes")):
            hint = "say domains = […] or mx_suffixes = […]"
            errors.append(document.error("holds nowhere", key, hint))
        for field in lists:
            for match in getattr(provider, field):
                errors += _name_errors(document, (*key, field), match)
                if (other := claimed.setdefault(match, name)) != name:
                    problem = f'"{match}" belongs to provider.{other} already'
                    errors.append(document.error(problem, key, "name it once"))
    return errors


def _name_errors(document: Document, key: KeyPath, name: str) -> list[ConfigError]:
    right = name.lower().strip(".")
    if name == right and name.isascii():
        return []
    if not name.isascii():
        return [document.error(f'"{name}" is not ASCII', key, "write the domain with its A-labels (xn--…)")]
    return [document.error(f'"{name}" would never match', key, f'write "{right}"')]


def _set_keys(rule: Rule) -> dict[str, Any]:
    return {key: value for key in Rule.__struct_fields__ if (value := getattr(rule, key)) is not UNSET}


def _under(hosts: Sequence[str], suffix: str) -> bool:
    return any(host == suffix or host.endswith(f".{suffix}") for host in hosts)
