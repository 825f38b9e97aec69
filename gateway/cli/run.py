"""`gateway run`."""

from __future__ import annotations

import sys
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from gateway.app.brief import Role, Tuning
from gateway.app.exits import Exit
from gateway.app.run import Plan, Ready, run_gateway
from gateway.cli.common import DEFAULTS, Common, UsageError, print_json, say
from gateway.config.strict_toml import nearest
from gateway.telemetry import configure_logging

_ALL: Final = ",".join(Role)


async def run(
    *,
    roles: Annotated[
        str, Parameter(help="What to run: api, dispatch, schedule, listen, separated by commas.")
    ] = _ALL,
    workers: Annotated[
        int | None, Parameter(help="Dispatcher processes; the configuration's dispatch.workers by default.")
    ] = None,
    migrate: Annotated[
        bool, Parameter(negative=(), help="Bring a configured database up to date first. Our own always is.")
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Parameter(help="What the log on stderr holds.")
    ] = "info",
    common: Common = DEFAULTS,
) -> Exit:
    """Run the gateway until SIGTERM or Ctrl-C.

    Without a configured Postgres it runs its own, under database.data_dir. Dispatchers finish what they began
    (dispatch.grace_s); a second signal ends them at once. Changes of its files are taken within two seconds; SIGHUP has them read at
    once, and says what they come to (in a terminal it ends the gateway).

    Example: gateway run --config config/gateway.toml --workers 2

    Example: gateway run --roles api --json
    """
    chosen = _roles(roles)
    config = common.load()
    tuning = Tuning(config, common.load_shaping(), common.load_bounces())
    count = config.dispatch.workers if workers is None else workers
    if not 0 <= count <= 256:
        raise UsageError(f"--workers: {count} is not 0 to 256")
    in_terminal = sys.stderr.isatty()
    configure_logging(log_level, not in_terminal)
    plan = Plan(
        tuning=tuning, files=common.files, roles=chosen, workers=count, migrate=migrate, hangup_ends=in_terminal,
        log_level=log_level, log_json=not in_terminal,
    )  # fmt: skip

    def on_ready(ready: Ready) -> None:
        if common.json:
            print_json({"event": "ready", "api": ready.api, "dsn": ready.dsn, "pids": ready.pids})
        else:
            say(f"ready: {ready.api or ', '.join(ready.pids)} (Ctrl-C ends it)")

    return await run_gateway(plan, on_ready)


def _roles(text: str) -> list[Role]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [role.value for role in Role]
    for name in names:
        if name not in known:
            raise UsageError(f'--roles: no role "{name}"; {nearest(name, known)}')
    if not names:
        raise UsageError(f"--roles: say some of {', '.join(known)}")
    return [role for role in Role if role in names]
