"""How long a regular expression may take, at worst, before it is ever run.

Owns reading a pattern's repeats and choices, so that a receiver's text cannot make a rule of `bounces.toml` cost seconds.
Knows only the syntax that such rules need, and refuses the rest. Must not know rules or replies. Pure.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from gateway.mta.reply import TEXT_LIMIT

MOST_STEPS: Final = 20_000
"""Most steps that a pattern may take at one place of a text; at all 1,024 places, that is 0.3 s at worst (2026-11)."""

_GROUP_STARTS: Final = ("?:", "?=", "?!", "?<=", "?<!")
_COUNTED: Final = re.compile(r"\{(\d*)(?:(,)(\d*))?\}")


class PatternRefused(ValueError):
    """A pattern that is wrong or could take too long; the text says what would be right."""


class _Cost(NamedTuple):
    """At most so many steps, and so many ways to have gone through: what stands behind is tried once for each."""

    steps: int = 1
    ways: int = 1


def require_cheap(pattern: str) -> None:
    """Check that a pattern is a regular expression and bounded in time.

    Raises:
        PatternRefused: what is wrong with it.
    """
    try:
        re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternRefused(f"no regular expression: {error}") from error
    if _Reader(pattern).alternatives().steps > MOST_STEPS:
        raise PatternRefused(
            "could take too long: repeats multiply; write narrow bounds, such as .{0,20} for .* and \\d{1,9} for \\d+"
        )


class _Reader:
    """One walk over a pattern that `re` has accepted."""

    # Mutable on purpose: the place in the pattern.
    def __init__(self, pattern: str) -> None:
        self._pattern, self._at = pattern, 0

    def alternatives(self) -> _Cost:
        """What stands up to the end or the closing bracket. Alternatives add up, pieces in a row multiply."""
        steps, ways, branch = 0, 0, _Cost(0, 1)
        while self._at < len(self._pattern) and self._pattern[self._at] != ")":
            if self._pattern[self._at] == "|":
                self._at += 1
                steps, ways, branch = steps + branch.steps, ways + branch.ways, _Cost(0, 1)
            else:
                piece = self._piece()
                branch = _Cost(branch.steps + branch.ways * piece.steps, branch.ways * piece.ways)
        return _Cost(steps + branch.steps, ways + branch.ways)

    def _piece(self) -> _Cost:
        """One character, class or group, with its repeat."""
        once = self._atom()
        least, most = self._repeat()
        if most <= 1:
            return _Cost(once.steps, once.ways + (1 - least))
        if once.ways > 1:
            # (a+)+ and (a|aa)*: the ways grow by a power, not by a product.
            raise PatternRefused(
                "repeats a group that has repeats or alternatives of its own, which could take for ever; "
                "write it without the outer repeat"
            )
        return _Cost(once.steps * most, most - least + 1)

    def _atom(self) -> _Cost:
        first = self._pattern[self._at]
        self._at += 1
        if first == "\\":
            self._at += 1
        elif first == "[":
            self._skip_class()
        elif first == "(":
            if self._pattern.startswith("?", self._at):
                start = next((s for s in _GROUP_STARTS if self._pattern.startswith(s, self._at)), None)
                if start is None:
                    raise PatternRefused(
                        "of the groups that begin with (? only (?:…), (?=…), (?!…), (?<=…) and (?<!…) may be used"
                    )
                self._at += len(start)
            inside = self.alternatives()
            self._at += 1  # the bracket that closes it
            return inside
        return _Cost()

    def _skip_class(self) -> None:
        if self._pattern.startswith("^", self._at):
            self._at += 1
        first = self._at
        while self._pattern[self._at] != "]" or self._at == first:
            self._at += 2 if self._pattern[self._at] == "\\" else 1
        self._at += 1

    def _repeat(self) -> tuple[int, int]:
        """How often the piece before may stand, at least and at most; passes the sign and what makes it lazy or possessive."""
        sign = self._pattern[self._at : self._at + 1]
        counted = _COUNTED.match(self._pattern, self._at)
        if sign == "?":
            self._at, least, most = self._at + 1, 0, 1
        elif sign in ("*", "+"):
            self._at, least, most = self._at + 1, 0, TEXT_LIMIT
        elif counted and counted[0] != "{}":
            self._at = counted.end()
            least = min(int(counted[1] or 0), TEXT_LIMIT)
            most = least if not counted[2] else min(int(counted[3] or TEXT_LIMIT), TEXT_LIMIT)
        else:
            return 1, 1
        if self._pattern[self._at : self._at + 1] in ("?", "+"):
            self._at += 1
        return least, most
