"""`gateway check-config`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from gateway.cli.common import DEFAULTS, Common, print_json, print_table, say


def check_config(
    *,
    effective: Annotated[
        str | None,
        Parameter(help="A recipient domain: show each limit that holds for it, and the rule it is from."),
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Check gateway.toml, the environment and throttles.toml, changing nothing.

    Limits by MX host or site name are only known after a look-up; --effective shows those of the name alone.

    Example: gateway check-config --effective gmail.com
    """
    config = common.load()
    shaping = common.load_shaping()
    files = [str(path) for path in (common.path, common.throttles_path) if path] or ["(built-in defaults)"]
    if effective is None:
        if common.json:
            print_json({"ok": True, "files": files})
        else:
            say(f"ok: {', '.join(files)}")
        return
    domain = effective.lower().rstrip(".")
    origins = shaping.explain(domain)
    route = config.route.host_port(domain)
    if common.json:
        limits = {key: msgspec.to_builtins(origin) for key, origin in origins.items()}
        print_json({"domain": domain, "limits": limits, "route": route and f"{route[0]}:{route[1]}"})
        return
    print_table(
        ["limit", "value", "rule"],
        [(key, f"{origin.value:g}", origin.rule) for key, origin in origins.items()],
    )
    say(f"route: {f'{route[0]}:{route[1]}' if route else 'its MX'}")
