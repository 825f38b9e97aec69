"""`gateway check-config`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cyclopts import Parameter

from gateway.app.exits import Exit
from gateway.cli.common import DEFAULTS, Common, UsageError, print_json, say
from gateway.config import Config
from gateway.config.strict_toml import Document, read_toml
from gateway.dispatch.signers import platform_signer
from gateway.errors import ConfigError
from gateway.feedback.policy import suppresses
from gateway.model.disposition import Stage
from gateway.mta.bounce_rules import BounceRules, check_bounces
from gateway.mta.keys import load_or_create_master_key
from gateway.mta.reply import ReplyMalformed, parse_reply
from gateway.throttle.shaping import check_throttles

T = TypeVar("T")

_StageName = Literal["banner", "ehlo", "starttls", "mail", "rcpt", "data", "dot"]


def check_config(
    *,
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
) -> Exit:
    """Check gateway.toml, the environment, throttles.toml, bounces.toml and the key files they name, changing nothing.

    Every mistake is told, each in a line, with what would be right; the exit code is then 78. What holds in the end, and why,
    shows `gateway config show`. A rule for replies can be tried before it is in force, in a copy of bounces.toml that --bounces names.

    Example: gateway check-config

    Example: gateway check-config --reply "550 5.7.1 blocked, see example.com" --stage dot

    Example: gateway check-config --bounces new.toml --reply "421 4.7.0 try later"
    """
    errors: list[ConfigError] = []
    try:
        loaded = common.read()
        errors += loaded.errors or _wrong_key_files(loaded.config)
    except ConfigError as error:
        errors.append(error)
    rules_path = bounces or common.bounces_path
    _checked(common.throttles_path, check_throttles, errors)
    rules = _checked(rules_path, check_bounces, errors) or BounceRules()
    paths = (common.path, common.throttles_path, rules_path)
    files = [str(path) for path in paths if path] or ["(built-in defaults)"]
    if errors:
        _tell(errors, files, common)
        return Exit.CONFIG
    if reply is not None:
        _show_judgement(reply, Stage(stage), rules, rules_path, common)
    elif common.json:
        print_json({"ok": True, "files": files, "errors": []})
    else:
        say(f"ok: {', '.join(files)}")
    return Exit.OK


def _checked(
    path: Path | None,
    check: Callable[[Document], tuple[T, Sequence[ConfigError]]],
    errors: list[ConfigError],
) -> T | None:
    """What a file says, if there is one; its mistakes are added to `errors`."""
    if path is None:
        return None
    try:
        value, found = check(read_toml(path))
    except ConfigError as error:
        errors.append(error)
        return None
    errors += found
    return value


def _wrong_key_files(config: Config) -> list[ConfigError]:
    """What is wrong with the keys that the configuration names; the envelope key may yet have to be made."""
    errors: list[ConfigError] = []
    try:
        platform_signer(config.mail)
    except ConfigError as error:
        errors.append(error)
    try:
        if config.master_key_path.exists():
            load_or_create_master_key(config.master_key_path)
    except ConfigError as error:
        errors.append(error)
    return errors


def _tell(errors: Sequence[ConfigError], files: Sequence[str], common: Common) -> None:
    if not common.json:
        sys.stderr.writelines(f"gateway: {' '.join(str(error).split())}\n" for error in errors)
        return
    told = [
        {
            "file": str(error.path) if error.path else None,
            "line": error.line,
            "key": error.key or None,
            "problem": error.problem,
            "hint": error.hint or None,
        }
        for error in errors
    ]
    print_json({"ok": False, "files": files, "errors": told})


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
