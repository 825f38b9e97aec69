"""`config/bounces.toml`: what receivers' replies mean, as rules that come before the built-in tables.

Owns the rules' shape, their bounds and which one a reply meets; what a rule may not change is `reply.classify`'s. Must not know
sockets, lanes or retries. Pure but for `load_bounces`, which reads one file. The first rule that fits a reply judges it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from gateway.config.strict_toml import Document, KeyPath, convert_all, nearest, read_toml
from gateway.errors import ConfigError
from gateway.model.disposition import BounceClass, Disposition, Scope, Stage
from gateway.mta.pattern_cost import PatternRefused, require_cheap
from gateway.mta.reply import Reply, Ruling, classify

MOST_RULES: Final = 200
"""Rules of one file; each is tried on every refusal."""

# The text of a reply that is matched has neither code; a pattern copied from a log begins with them and would never match.
_BEGINS_WITH_CODE: Final = re.compile(r"\^\(*(?:\?:)?(?:[245]\d\d|\\d\{3\}|\[\d+\]\\d|[245]\\?\.\d)")


class BounceRule(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"bounce_class": "class"}
):
    """One `[[rule]]`. It fits a reply where all that it names fits; an empty list fits any.

    Attributes:
        pattern: regular expression, found anywhere in the reply's text, in upper or lower case.
        bounce_class: what the reply means (key `class`).
        why: whose reply it is, the source and its date.
        codes: reply codes, 400 to 599.
        enhanced: enhanced codes as the receiver gives them.
        stage: where in the session.
        scope: whom a deferral concerns; None leaves it to the built-in judgement.
    """

    pattern: Annotated[str, Meta(min_length=1, max_length=200)]
    bounce_class: BounceClass
    why: Annotated[str, Meta(min_length=1, max_length=300)]
    codes: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = ()
    enhanced: tuple[Annotated[str, Meta(pattern=r"^[45]\.\d{1,3}\.\d{1,3}$")], ...] = ()
    stage: tuple[Stage, ...] = ()
    scope: Scope | None = None


class BounceRules(msgspec.Struct, frozen=True):
    """The rules of one file, in its order."""

    rule: tuple[BounceRule, ...] = ()

    def match(self, reply: Reply, stage: Stage) -> int | None:
        """Return the place (from 0) of the first rule that fits a refusal, or None."""
        if reply.code < 400:
            return None
        return next((place for place, rule in enumerate(self.rule) if _fits(rule, reply, stage)), None)

    def judge(self, reply: Reply, stage: Stage) -> Disposition:
        """Judge a reply by the first rule that fits, else as `classify` does by itself."""
        place = self.match(reply, stage)
        if place is None:
            return classify(reply, stage)
        rule = self.rule[place]
        return classify(reply, stage, Ruling(rule.bounce_class, rule.scope))


class RuledJudge:
    """A `reply.Judge` whose rules can be replaced while sessions hold it."""

    # Mutable on purpose: the rules in force in this process.
    def __init__(self, rules: BounceRules) -> None:
        self.rules = rules

    def __call__(self, reply: Reply, stage: Stage) -> Disposition:
        """Judge by the rules in force now."""
        return self.rules.judge(reply, stage)


def load_bounces(path: Path) -> BounceRules:
    """Read a file of rules.

    Raises:
        ConfigError: file, line, key and what would be right.
    """
    return parse_bounces(read_toml(path))


def parse_bounces(document: Document) -> BounceRules:
    """Turn a file as read into rules.

    Raises:
        ConfigError: as `load_bounces`; the first where there are several.
    """
    rules, errors = check_bounces(document)
    if errors:
        raise ConfigError.first_of(errors)
    return rules


def check_bounces(document: Document) -> tuple[BounceRules, list[ConfigError]]:
    """Turn a file as read into rules, and tell every mistake in it, by line; the rules are all right where there is none."""
    errors = [
        document.error("unknown table", (name,), nearest(name, ("rule",)))
        for name in document.data
        if name != "rule"
    ]
    tables = document.data.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        hint = "write [[rule]], with two brackets, above each"
        return BounceRules(), [*errors, document.error("expected rules", ("rule",), hint)]
    if len(tables) > MOST_RULES:
        hint = f"at most {MOST_RULES}; join some with |"
        return BounceRules(), [*errors, document.error(f"{len(tables)} rules", ("rule",), hint)]
    rules: list[BounceRule] = []
    for number, table in enumerate(tables, 1):
        key = ("rule", str(number))
        rule, mistakes = convert_all(table, BounceRule, document.errors_below(key))
        if rule is not None and not mistakes and (error := _mistake(document, key, rule)):
            mistakes = [error]
        errors += mistakes
        if rule is not None:
            rules.append(rule)
    errors.sort(key=lambda error: error.line or 0)
    return BounceRules(tuple(rules)), errors


def _mistake(document: Document, key: KeyPath, rule: BounceRule) -> ConfigError | None:
    """What the types cannot say."""
    at_pattern, at_class = (*key, "pattern"), (*key, "class")
    try:
        require_cheap(rule.pattern)
    except PatternRefused as error:
        return document.error(str(error), at_pattern)
    if _BEGINS_WITH_CODE.match(rule.pattern):
        hint = 'write codes = [550] or enhanced = ["5.7.1"] beside the pattern'
        return document.error(
            "would never match: the text that it is tried on has no codes", at_pattern, hint
        )
    if not (rule.codes or rule.enhanced) and _compiled(rule.pattern).search(""):
        return document.error(
            "matches every reply", at_pattern, "name codes or enhanced, or words of the text"
        )
    if rule.bounce_class is BounceClass.OK:
        return document.error(
            '"ok" is what was delivered', at_class, 'a refusal that says nothing is "unknown"'
        )
    if rule.bounce_class is BounceClass.INVALID and not _permanent_only(rule):
        return document.error(
            '"invalid" suppresses addresses: the rule has to name codes or enhanced codes, permanent ones only',
            at_class,
            'for example codes = [550] or enhanced = ["5.1.1"]',
        )
    return None


def _permanent_only(rule: BounceRule) -> bool:
    named = [*map(str, rule.codes), *rule.enhanced]
    return bool(named) and all(code.startswith("5") for code in named)


def _fits(rule: BounceRule, reply: Reply, stage: Stage) -> bool:
    return (
        (not rule.codes or reply.code in rule.codes)
        and (not rule.enhanced or reply.enhanced in rule.enhanced)
        and (not rule.stage or stage in rule.stage)
        and _compiled(rule.pattern).search(reply.text) is not None
    )


@lru_cache(maxsize=2 * MOST_RULES)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)
