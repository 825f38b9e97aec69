"""Finds the links of a template's HTML, and marks where each one's tracked URL and the pixel will stand. Pure.

Owns which links are tracked and their numbers; where one may lead says `campaigns/destination`. Runs once a message, on the
source, before Liquid compiles it: what is marked goes through rendering untouched, also in loops and conditions, and
`campaigns/splice` puts each recipient's URLs where the marks come out. Must not know tokens or recipients.

Tracked: `href` of `a` and `area` that leads to http(s). Left as it is, octet by octet: all other schemes, `#anchors`, relative
URLs, comments (with Outlook's conditional ones), `style`, `script` and their kin, `{% raw %}` and `{% comment %}`, and elements with
`data-no-track`, which loses only that attribute. A URL with Liquid in it stays in place, between marks.

Reads HTML as the standard's tokenizer does, on a copy in which Liquid is blotted out: an output counts as characters, a tag
as white space, except in values. Where a block begins inside a value and ends outside, that link is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from gateway.campaigns.destination import WHITE_SPACE, clean, fingerprint, read_attribute
from gateway.campaigns.liquid_source import (
    OUTPUT,
    TAG,
    blot_out_liquid,
    is_balanced,
    marks_not_in,
    replaced,
)

LINK_LIMIT: Final = 32_767
"""Most links of one message that are tracked: a number has 15 bits in a token."""
PIXEL: Final = "p"
"""Stands in a mark in place of a link's number."""

_MARKUP: Final = re.compile(
    r"<(?:(?P<close>/?)(?P<name>[A-Za-z][^ \t\n\f\r/>\ufdd1]*+)|(?P<comment>!--)|[!?/])"
)
_COMMENT_END: Final = re.compile(r"--!?>")
_ATTRIBUTE: Final = re.compile(
    r"""(?P<gap>[ \t\n\f\r/\ufdd1]*+)
    (?:(?P<end>>)
      |(?P<name>[^ \t\n\f\r/>\ufdd1][^ \t\n\f\r/>=\ufdd1]*+)
       (?:[ \t\n\f\r]*+=[ \t\n\f\r]*+
          (?:"(?P<double>[^"]*+)"|'(?P<single>[^']*+)'|(?P<unclosed>["'])|(?P<bare>[^ \t\n\f\r>][^ \t\n\f\r>]*+)|(?=>))
       )?+
    )""",
    re.VERBOSE,
)
_NO_TAGS_INSIDE: Final = {
    name: re.compile(rf"</{name}(?=[ \t\n\f\r/>])", re.IGNORECASE)
    for name in ("iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp")
}


class Link(msgspec.Struct, frozen=True):
    """One tracked link. `destination` is the URL, or, where it has Liquid in it (not `static`), the source of the value."""

    number: int
    destination: str
    static: bool
    fingerprint: bytes
    """Of the destination, for its tokens; empty where that is not known before rendering."""


class LinkPlan(msgspec.Struct, frozen=True):
    """A source with marks, and what they stand for.

    A mark is `marks[0]`, the number or `p`, a colon, the URL as it renders (empty for a static link), `marks[1]`. Both begin or
    end with an angle bracket, which no variable can put out in HTML: a contact's data forge no mark (a text's hold a secret instead).
    """

    source: str
    links: tuple[Link, ...]
    marks: tuple[str, str]
    has_pixel: bool
    untracked: frozenset[str] = frozenset()
    """Destinations of links that opted out; a text part that names them leaves them alone, too."""


class _Element(msgspec.Struct, frozen=True):
    """A tag: where it begins and ends, and its attributes: name, and from where to where name and value stand."""

    name: str
    start: int
    end: int
    attributes: tuple[tuple[str, tuple[int, int], tuple[int, int] | None], ...]


def compile_links(html_source: str, *, liquid: bool = True) -> LinkPlan:
    """Mark the links and the place of the pixel: before the last `</body>`, else at the end; nothing in an empty source.

    The same source gives the same plan. `liquid=False` is for content that is not rendered.
    """
    marks = marks_not_in(html_source)
    if not html_source:
        return LinkPlan("", (), marks, has_pixel=False)
    text = blot_out_liquid(html_source) if liquid else html_source
    links: list[Link] = []
    untracked: set[str] = set()
    pieces: list[tuple[int, int, str]] = []
    pixel_at = len(html_source)
    for element in _elements(text):
        if element.name == "/body":
            pixel_at = element.start
        elif element.name in ("a", "area"):
            pieces += _track(element, html_source, text, links, untracked, marks)
    pieces.append((pixel_at, pixel_at, f"{marks[0]}{PIXEL}:{marks[1]}"))
    source = replaced(html_source, pieces)
    return LinkPlan(source, tuple(links), marks, has_pixel=True, untracked=frozenset(untracked))


def _track(
    element: _Element,
    source: str,
    text: str,
    links: list[Link],
    untracked: set[str],
    marks: tuple[str, str],
) -> Iterator[tuple[int, int, str]]:
    opted_out = [where for name, where, _ in element.attributes if name == "data-no-track"]
    if opted_out:
        for start, end in opted_out:
            # An attribute that follows at once needs the space in between.
            if text[end] not in f"{WHITE_SPACE}/>":
                start += len(text[start:end]) - len(text[start:end].lstrip(WHITE_SPACE))
            yield start, end, ""
        for name, _, value in element.attributes:
            if name == "href" and value is not None:
                url = read_attribute(source[slice(*value)])
                untracked.add(url if OUTPUT in text[slice(*value)] else clean(url))
        return
    # All of them, not only the first, which alone counts in HTML: `{% if %}` may let one or the other through.
    for name, _, value in element.attributes:
        if name != "href" or value is None or len(links) > LINK_LIMIT:
            continue
        start, end = value
        if OUTPUT in text[start:end] or TAG in text[start:end]:
            if _may_lead_to_http(text[start:end]) and is_balanced(source[start:end]):
                yield start, start, f"{marks[0]}{len(links)}:"
                yield end, end, marks[1]
                links.append(Link(len(links), source[start:end], static=False, fingerprint=b""))
        elif destination := clean(read_attribute(source[start:end])):
            yield start, end, f"{marks[0]}{len(links)}:{marks[1]}"
            links.append(Link(len(links), destination, static=True, fingerprint=fingerprint(destination)))


def _elements(text: str) -> Iterator[_Element]:
    """Yield the tags in their order, end tags with a slash before their name; stops where one does not end."""
    at = 0
    while markup := _MARKUP.search(text, at):
        if markup["comment"]:
            at = _end_of_comment(text, markup.end())
        elif name := (markup["name"] or "").lower():
            element = _element(text, markup.start(), markup.end(), markup["close"] + name)
            if element is None:
                return
            yield element
            at = element.end
            if element.name in _NO_TAGS_INSIDE:
                closing = _NO_TAGS_INSIDE[element.name].search(text, at)
                at = closing.start() if closing else len(text)
        else:
            at = text.find(">", markup.end()) + 1 or len(text)


def _element(text: str, start: int, at: int, name: str) -> _Element | None:
    attributes: list[tuple[str, tuple[int, int], tuple[int, int] | None]] = []
    while attribute := _ATTRIBUTE.match(text, at):
        if attribute["end"]:
            return _Element(name, start, attribute.end(), tuple(attributes))
        if attribute["unclosed"]:
            return None
        kind = next((k for k in ("double", "single", "bare") if attribute[k] is not None), None)
        # With the white space before it, so that taking the attribute out leaves none behind.
        gap = attribute["gap"]
        from_ = attribute.start("name") - (len(gap) - len(gap.rstrip(WHITE_SPACE)))
        attributes.append(
            (attribute["name"].lower(), (from_, attribute.end()), attribute.span(kind) if kind else None)
        )
        at = attribute.end()
    return None


def _end_of_comment(text: str, at: int) -> int:
    for short in (">", "->"):  # `<!-->` and `<!--->` are comments already
        if text.startswith(short, at):
            return at + len(short)
    end = _COMMENT_END.search(text, at)
    return end.end() if end else len(text)


def _may_lead_to_http(value: str) -> bool:
    """Whether what stands before the first Liquid leaves http or https possible."""
    literal = re.split(f"[{OUTPUT}{TAG}]", value, maxsplit=1)[0].lstrip(WHITE_SPACE).lower()
    return any(literal.startswith(http) or http.startswith(literal) for http in ("http://", "https://"))
