"""Finds the links of a template's text part, and marks them as `campaigns/links` marks those of its HTML. Pure.

Owns where a URL begins and ends in plain text, and which ones are tracked. Runs once a message, on the source, before Liquid compiles it.
Must not know tokens or recipients.

Tracked: what begins with `http://` or `https://`, up to white space, `<`, `>`, `"` or a backtick, less the punctuation that ends a sentence
or closes a bracket which was opened before. It may hold outputs of Liquid behind its host. Whoever reads plain text takes for a URL what
looks like one, so a link is left alone wherever that might be more or less than we see: where a block begins inside it or text that a
condition brings might follow at once, where letters beyond ASCII follow, in `capture` (its text may go through filters), and where the
HTML has the same link with `data-no-track`. A link that leads where one of the HTML's does *is* that link, with its number.

Variables are not escaped in text, so that a contact's data could hold a mark, and would get a signed link to anywhere: marks of a text
part need a secret.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from gateway.campaigns.destination import clean, fingerprint, read_attribute
from gateway.campaigns.links import LINK_LIMIT, Link, LinkPlan
from gateway.campaigns.liquid_source import (
    BLOCK_TAG,
    BLOCKS,
    BRANCHES,
    OUTPUT,
    TAG,
    blot_out_liquid,
    marks_not_in,
    replaced,
)

# What RFC 3986 §2 has in a URL, and Liquid's outputs.
_URL: Final = re.compile(
    rf"(?<![A-Za-z0-9_+.\-{OUTPUT}])https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%{OUTPUT}]+",
    re.IGNORECASE | re.ASCII,
)
_HOST: Final = re.compile(r"https?://[A-Za-z0-9.\-]+(?::[0-9]+)?[/?#]", re.IGNORECASE | re.ASCII)
_ENDS: Final = frozenset('<>"`')
_SENTENCE: Final = frozenset(".,;:!?'")
_OPENING: Final = {")": "(", "]": "["}
_EMPHASIS: Final = ("*", "_", "~", "-")
"""Some readers take these at the end of a URL for its part, some for mark-up or a dash."""
_CAPTURE: Final = re.compile(r"\{%-?\s*+(end)?capture\b")
_SECOND: Final = re.compile(r"[,;]https?://", re.IGNORECASE | re.ASCII)
_SPACE: Final = re.compile(r"\s*")
_CLOSERS: Final = frozenset({"endif", "endunless", "endcase"})
"""Ends of blocks behind which the text goes on wherever the block is left; a loop might begin anew."""
_BLOCK_LIMIT: Final = 2_000
"""Characters that are looked through for the end of a block."""


def compile_text_links(
    text_source: str, html: LinkPlan, *, liquid: bool = True, secret: str = ""
) -> LinkPlan:
    """Mark the links of a text part; `html` is the plan of the same message's HTML, `secret` goes into the marks.

    The same source gives the same links, whatever the secret. `liquid=False` is for content that is not rendered. A mark holds a place in
    `links` and the URL, as it is or as it renders; a link's own number goes on from those of the HTML.
    """
    marks = marks_not_in(text_source, secret)
    known = {_lead(link): link for link in reversed(html.links)}
    following = len(html.links)
    places: dict[Link, int] = {}
    pieces: list[tuple[int, int, str]] = []
    for start, end, static in _urls(text_source, liquid=liquid):
        lead = (clean(text_source[start:end]) if static else text_source[start:end], static)
        if not lead[0] or lead[0] in html.untracked:
            continue
        if (link := known.get(lead)) is None:
            if following > LINK_LIMIT:
                continue
            link = known[lead] = Link(following, *lead, fingerprint=fingerprint(lead[0]) if static else b"")
            following += 1
        place = places.setdefault(link, len(places))
        pieces += ((start, start, f"{marks[0]}{place}:"), (end, end, marks[1]))
    return LinkPlan(replaced(text_source, pieces), tuple(places), marks, has_pixel=False)


def is_one_url(rendered: str) -> bool:
    """Whether a URL that variables have filled is still one for whoever reads it; else it stays as it is."""
    return not any(char in _ENDS or char.isspace() or not char.isprintable() for char in rendered)


def _lead(link: Link) -> tuple[str, bool]:
    """Where a link of the HTML leads, as text would spell it."""
    return (link.destination if link.static else read_attribute(link.destination), link.static)


def _urls(source: str, *, liquid: bool) -> Iterator[tuple[int, int, bool]]:
    """Yield from where to where URLs stand that may be tracked, and whether they are the same for all recipients."""
    text = blot_out_liquid(source) if liquid else source
    captures = [(tag.start(), -1 if tag[1] else 1) for tag in _CAPTURE.finditer(source)] if liquid else []
    depth = seen = 0
    for url in _URL.finditer(text):
        while seen < len(captures) and captures[seen][0] < url.start():
            depth += captures[seen][1]
            seen += 1
        end = _end(text, url.start(), url.end())
        if depth > 0 or not end or not _is_over(source, text, url.end()):
            continue
        static = OUTPUT not in text[url.start() : end]
        if static or _HOST.match(text, url.start(), end):
            yield url.start(), end, static


def _end(text: str, start: int, end: int) -> int:
    """Where a URL ends: before what closes the sentence, or a bracket that was opened before it; 0: readers may not agree."""
    surplus = {
        closing: text.count(closing, start, end) - text.count(opening, start, end)
        for closing, opening in _OPENING.items()
    }
    while (last := text[end - 1]) in _SENTENCE or surplus.get(last, 0) > 0:
        if last in surplus:
            surplus[last] -= 1
        end -= 1
    agreed = last not in _EMPHASIS and max(surplus.values()) <= 0 and not _SECOND.search(text, start, end)
    return end if agreed else 0


def _is_over(source: str, text: str, at: int) -> bool:
    """Whether what ends at `at` goes on nowhere, whichever way Liquid goes from there."""
    while True:
        space = _SPACE.match(text, at)
        rest = space.end() if space else at
        joined = source.startswith("-", rest + 2)  # `{%-` and `{{-` take away the white space before them
        if joined and text[rest : rest + 1] == OUTPUT:
            return False
        if joined and text[rest : rest + 1] == TAG:
            at = rest
        if text[at : at + 1] != TAG:
            break
        following = _behind(source, at)
        if following <= at or source[following - 3 : following] == "-%}":  # … and `-%}` that behind it
            return False
        at = following
    char = text[at : at + 1]
    if char.isascii():
        return not char or char.isspace() or char in _ENDS
    return char != OUTPUT and not char.isalnum() and not unicodedata.combining(char)


def _behind(source: str, at: int) -> int:
    """Where the text goes on behind a tag that ends a block or one of its branches; 0: it is no such tag, or that is not near."""
    tag = BLOCK_TAG.match(source, at)
    if tag is None:
        return 0
    if tag[1] in _CLOSERS:
        return source.find("%}", at) + 2
    if tag[1] not in BRANCHES:
        return 0
    depth = 0
    for inner in BLOCK_TAG.finditer(source, at + 1, at + _BLOCK_LIMIT):
        if inner[1] in BLOCKS:
            depth += 1
        elif inner[1].startswith("end"):
            depth -= 1
            if depth < 0:
                return source.find("%}", inner.end()) + 2 if inner[1] in _CLOSERS else 0
    return 0
