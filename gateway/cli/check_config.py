"""`gateway check-config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from gateway.cli.common import DEFAULTS, Common, UsageError, print_json, print_table, say
from gateway.config import Config
from gateway.config.strict_toml import read_toml
from gateway.feedback.policy import suppresses
from gateway.model.disposition import Stage
from gateway.mta.bounce_rules import BounceRules, load_bounces
from gateway.mta.reply import ReplyMalformed, parse_reply
from gateway.throttle.shaping import Shaping

_StageName = Literal["banner", "ehlo", "starttls", "mail", "rcpt", "data", "dot"]


def check_config(
    *,
    effective: Annotated[
        str | None,
        Parameter(help="A recipient domain: show each limit that holds for it, and the rule it is from."),
    ] = None,
    reply: Annotated[
        str | None,
        Parameter(
            help="A receiver's reply, as in a log: show what it is taken for, and the rule that says so."
        ),
    ] = None,
    stage: Annotated[_StageName, Parameter(help="What the reply answers; dot is the end of the message.")] = (
        "rcpt"
    ),
    bounces: Annotated[
        Path | None, Parameter(help="A file to check and to try instead of bounces.toml, before it is.")
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Check gateway.toml, the environment, throttles.toml and bounces.toml, changing nothing.

    Limits by MX host or site name are only known after a look-up; --effective shows those of the name alone.
    A rule for replies can be tried before it is in force, in a copy of bounces.toml that --bounces names.

    Example: gateway check-config --effective gmail.com

    Example: gateway check-config --reply "550 5.7.1 blocked, see example.com" --stage dot

    Example: gateway check-config --bounces new.toml --reply "421 4.7.0 try later"
    """
    config = common.load()
    shaping = common.load_shaping()
    rules_path = bounces or common.bounces_path
    rules = load_bounces(rules_path) if rules_path else BounceRules()
    paths = (common.path, common.throttles_path, rules_path)
    files = [str(path) for path in paths if path] or ["(built-in defaults)"]
    if effective is not None and reply is not None:
        raise UsageError("--effective and --reply: one of them at a time")
    if effective is not None:
        _show_limits(effective.lower().rstrip("."), config, shaping, common)
    elif reply is not None:
        _show_judgement(reply, Stage(stage), rules, rules_path, common)
    elif common.json:
        print_json({"ok": True, "files": files})
    else:
        say(f"ok: {', '.join(files)}")


def _show_limits(domain: str, config: Config, shaping: Shaping, common: Common) -> None:
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


def _show_judgement(
    line: str, stage: Stage, rules: BounceRules, rules_path: Path | None, common: Common
) -> None:
    try:
        reply = parse_reply([part.encode() for part in line.splitlines()])
    except ReplyMalformed as error:
        raise UsageError(f"--reply: {error}") from error
    disposition = rules.judge(reply, stage)
    place = rules.match(reply, stage)
    rule = why = None
    if place is not None and rules_path is not None:
        at = read_toml(rules_path).line_of(("rule", str(place + 1)))
        rule, why = f"{rules_path}:{at}", rules.rule[place].why
    document = {
        "outcome": disposition.outcome.value,
        "class": disposition.bounce_class.value,
        "scope": disposition.scope.value,
        "suppresses": suppresses(disposition) is not None,
        "rule": rule,
        "why": why,
        "code": reply.code,
        "enhanced": reply.enhanced,
        "text": reply.text,
        "stage": stage.value,
    }
    if common.json:
        print_json(document)
        return
    shown = {
        "outcome": document["outcome"],
        "class": document["class"],
        "scope": document["scope"],
        "suppresses": "yes, the address" if document["suppresses"] else "no",
        "rule": f"{rule} ({why})" if rule else "(built-in)",
        "matched text": reply.text,
    }
    for name, value in shown.items():
        say(f"{name}: {value}")
