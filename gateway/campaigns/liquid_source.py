"""A template's source as those read it who look for links in it: Liquid blotted out, and marks that its text cannot hold. Pure.

Owns what counts as Liquid before the engine has seen it. Must not know HTML, links or the engine.

In the copy, two non-characters stand for Liquid, one for each of its characters, so that all places stay the same.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Final

OUTPUT: Final = "\ufdd0"
"""Stands for each character of an output, `{{ … }}`."""
TAG: Final = "\ufdd1"
"""Stands for each character of a tag, `{% … %}`; for raw text and comments as a whole."""
BLOCK_TAG: Final = re.compile(r"\{%-?\s*+(\w++)")
BLOCKS: Final = frozenset(
    {"if", "unless", "case", "for", "tablerow", "capture", "ifchanged", "raw", "comment", "doc"}
)
BRANCHES: Final = frozenset({"else", "elsif", "when"})

_LIQUID: Final = re.compile(r"\{\{|\{%-?\s*+(\w*+)")
_WHOLE: Final = {name: re.compile(rf"\{{%-?\s*+end{name}\b") for name in ("raw", "comment", "doc")}


def blot_out_liquid(source: str) -> str:
    """Return the source with each character of Liquid replaced by `OUTPUT` or `TAG`."""
    pieces: list[str] = []
    at = 0
    while tag := _LIQUID.search(source, at):
        if tag[0] == "{{":
            end = source.find("}}", tag.end()) + 2
        else:
            closing = _WHOLE[tag[1]].search(source, tag.end()) if tag[1] in _WHOLE else tag
            end = source.find("%}", closing.end()) + 2 if closing else 1
        if end == 1:  # does not end: a syntax error, which the compiler tells
            break
        pieces += (source[at : tag.start()], (OUTPUT if tag[0] == "{{" else TAG) * (end - tag.start()))
        at = end
    return "".join([*pieces, source[at:]])


def is_balanced(value: str) -> bool:
    """Whether all blocks that begin in a value end in it."""
    depth = 0
    for tag in BLOCK_TAG.finditer(value):
        if tag[1] in BLOCKS:
            depth += 1
        elif tag[1] in BRANCHES and depth == 0:
            return False
        elif tag[1].startswith("end"):
            depth -= 1
            if depth < 0:
                return False
    return depth == 0


def marks_not_in(source: str, secret: str = "") -> tuple[str, str]:
    """Return how marks begin and end that are not in the source; with a `secret` nobody can write them who does not know it."""
    # Neither is white space, which `{{-` would take away; both hold a control character, which HTML may not.
    for number in count():
        marks = (f"<\x02{secret}{number}\x02", f"\x03{secret}{number}\x03>")
        if marks[0] not in source and marks[1] not in source:
            return marks
    raise AssertionError("numbers do not end")


def replaced(source: str, pieces: list[tuple[int, int, str]]) -> str:
    """Return the source with other text from here to there (from, to, what stands there instead); nothing overlaps."""
    out: list[str] = []
    at = 0
    for start, end, instead in sorted(pieces, key=lambda piece: piece[:2]):
        out += (source[at:start], instead)
        at = end
    return "".join([*out, source[at:]])
