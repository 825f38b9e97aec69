"""`gateway config show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from gateway.cli.common import DEFAULTS, Common, UsageError, print_json, print_table, say
from gateway.cli.effective import held, table_name
from gateway.clock import SystemClock
from gateway.config import Loaded, MxConfig
from gateway.config.shown import Value, text_of, values
from gateway.config.strict_toml import Document, read_toml
from gateway.errors import ConfigError
from gateway.model.address import AddressError, parse
from gateway.mta.bounce_rules import BounceRules, parse_bounces
from gateway.mta.mx import resolver_of
from gateway.mta.mx_plan import NoHosts
from gateway.throttle.shaping import Shaping, parse_throttles

config = App(name="config", help="The configuration in force: each value, and where it is from.")


@config.command
async def show(
    *,
    effective: Annotated[
        str | None, Parameter(help="A recipient domain: the limits that hold for it, each with its rule.")
    ] = None,
    look_up: Annotated[
        bool,
        Parameter(help="With --effective: ask DNS for the domain's MX hosts, which rules may go by."),
    ] = True,
    common: Common = DEFAULTS,
) -> None:
    """Show every value in force, and which line, environment variable or default it is from.

    The column "change" says whether a change of the file is taken while the gateway runs ("live") or by its next start.
    Passwords are masked. With --effective, the limits of one destination: which table of throttles.toml gave each, and
    where gateway.toml says less.

    Example: gateway config show

    Example: gateway config show --effective gmail.com

    Example: gateway config show --effective example.org --no-look-up --json
    """
    loaded = common.read()
    if loaded.errors:
        raise ConfigError.first_of(loaded.errors)
    throttles = read_toml(common.throttles_path) if common.throttles_path else None
    shaping = parse_throttles(throttles) if throttles else Shaping()
    if effective is not None:
        await _show_effective(_domain(effective), loaded, shaping, throttles, common, look_up=look_up)
        return
    rules = parse_bounces(read_toml(common.bounces_path)) if common.bounces_path else BounceRules()
    _show_all(values(loaded), _files(common, shaping, rules), common)


def _files(common: Common, shaping: Shaping, rules: BounceRules) -> list[tuple[str, Path | None, int]]:
    tables = (shaping.provider, shaping.mx_suffix, shaping.site_name, shaping.domain)
    return [
        ("throttles", common.throttles_path, sum(map(len, tables))),
        ("bounces", common.bounces_path, len(rules.rule)),
    ]


def _show_all(found: list[Value], files: list[tuple[str, Path | None, int]], common: Common) -> None:
    if common.json:
        document: dict[str, object] = {"values": [msgspec.to_builtins(value) for value in found]}
        for name, path, count in files:
            document[name] = {"file": str(path) if path else None, "rules": count}
        print_json(document)
        return
    print_table(
        ["key", "value", "source", "change"],
        [
            (value.key, text_of(value.value), value.source, "live" if value.live else "restart")
            for value in found
        ],
    )
    for name, path, count in files:
        say(f"{name}: {f'{path}, {count} rules beside the default' if path else '(built-in defaults)'}")


async def _show_effective(
    domain: str,
    loaded: Loaded,
    shaping: Shaping,
    throttles: Document | None,
    common: Common,
    *,
    look_up: bool,
) -> None:
    route = loaded.config.route.host_port(domain)
    hosts, site_name, trouble = [], "", ""
    if look_up and route is None:
        hosts, site_name, trouble = await _hosts_of(domain, loaded.config.mx)
    limits = list(held(domain, shaping, throttles, loaded, site_name=site_name, mx_hosts=hosts))
    rules = [table_name(rule) for rule in shaping.rules_for(domain, site_name=site_name, mx_hosts=hosts)]
    goes = f"{route[0]}:{route[1]}" if route else None
    if common.json:
        print_json(
            {
                "domain": domain, "limits": [msgspec.to_builtins(limit) for limit in limits], "rules": rules, "route": goes,
                "mx_hosts": hosts, "site_name": site_name or None, "look_up": trouble or None,
            }
        )  # fmt: skip
        return
    columns = ["limit", "value", "source", "rule"]
    rows = [[each.limit, text_of(each.value), each.source, each.rule] for each in limits]
    if any(each.instead_of for each in limits):
        columns.append("instead of")
        rows = [[*row, each.instead_of] for row, each in zip(rows, limits, strict=True)]
    print_table(columns, rows)
    say(f"rules, from general to specific: {', '.join(rules)}")
    if goes is not None:
        say(f"goes to: {goes} ([route])")
    elif not look_up:
        say("goes to: its MX, which was not asked for; rules that go by MX hosts or site name are left out")
    elif trouble:
        say(f"goes to: its MX ({trouble}); rules that go by MX hosts or site name are left out")
    else:
        say(f"goes to: {', '.join(hosts)} (site name {site_name})")


async def _hosts_of(domain: str, mx: MxConfig) -> tuple[list[str], str, str]:
    """MX hosts, site name, and why there are none."""
    resolver = resolver_of(mx, SystemClock())
    try:
        found = await resolver.resolve(domain)
    finally:
        await resolver.close()
    if isinstance(found, NoHosts):
        return [], "", found.disposition.text
    return sorted(host.name for host in found.mx), found.site_name, ""


def _domain(text: str) -> str:
    try:
        return parse(f"postmaster@{text.rstrip('.')}").domain
    except AddressError as error:
        raise UsageError(f'--effective: "{text}" is no domain; say it as in example.org') from error
