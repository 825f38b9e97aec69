"""Marked parts taken apart further: each tracked link and the pixel become slots of their own. Pure.

Owns the step between a template's pieces (`campaigns/pieces`) and one recipient's URLs, so that what is the same for all recipients is
cut at its marks once a message. Marks that come out of a block's rendering are cut for each recipient (`campaigns/splice` for HTML).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

import msgspec

from gateway.campaigns.destination import clean, read_attribute
from gateway.campaigns.links import PIXEL, Link, LinkPlan, compile_links
from gateway.campaigns.pieces import joined
from gateway.campaigns.splice import PIXEL_HTML, cut, fill
from gateway.campaigns.text_links import compile_text_links, is_one_url

_PLACE: Final = re.compile(r"[0-9]{1,5}")
_DOUBTFUL: Final = ("-", "_")  # of base64url


class Plans(msgspec.Struct, frozen=True):
    """The marked sources of a message's HTML and text."""

    html: LinkPlan
    text: LinkPlan

    @property
    def links(self) -> tuple[Link, ...]:
        """All links of the message; one that stands in both parts comes twice."""
        return self.html.links + self.text.links


class Place(msgspec.Struct, frozen=True):
    """What stands in a slot: a link, around the pieces of its URL (none where HTML has a link of all recipients), or the pixel (no link)."""

    link: Link | None
    url: tuple[str | int, ...] = ()


class Tracked(msgspec.Struct, frozen=True):
    """A part whose places are slots, numbered on from those before; `whole`: no mark is left for `shown_blocks`."""

    pieces: tuple[str | int, ...]
    places: tuple[Place, ...]
    whole: bool


class TrackedParts(msgspec.Struct, frozen=True):
    """HTML and text whose places are slots, first those of the HTML."""

    html: Tracked
    text: Tracked

    @property
    def slots(self) -> int:
        """How many slots they add."""
        return len(self.html.places) + len(self.text.places)


class Urls(msgspec.Struct, frozen=True):
    """How one recipient's URLs are made: `click(link, destination)`, the pixel's (empty: none), and the base of our own, untracked."""

    click: Callable[[Link, str], str]
    pixel: str
    own: str


def mark(html: str, text: str, *, liquid: bool = True, secret: str = "") -> Plans:
    """Mark the links of both parts; `secret` is for the marks of the text (`campaigns/text_links`)."""
    plan = compile_links(html, liquid=liquid)
    return Plans(plan, compile_text_links(text, plan, liquid=liquid, secret=secret))


def track_parts(
    plans: Plans, html: Sequence[str | int], text: Sequence[str | int], slots: int
) -> TrackedParts:
    """Cut the pieces of both parts at their marks; `slots`: how many there are already."""
    tracked = track(plans.html, html, slots)
    return TrackedParts(tracked, track(plans.text, text, slots + len(tracked.places)))


def track(plan: LinkPlan, part: Sequence[str | int], slots: int) -> Tracked:
    """Cut pieces at their marks; `slots`: how many there are already. What is not sure stays, for `shown_blocks`."""
    begin, end = map(re.escape, plan.marks)
    marks = re.compile(rf"{begin}([0-9]{{1,5}}|{PIXEL}):|({end})")
    pieces: list[str | int] = []
    places: list[Place] = []
    inside: list[str | int] | None = None  # the URL of the link that is open
    link: Link | None = None
    for piece in part:
        if isinstance(piece, int):
            (pieces if inside is None else inside).append(piece)
            continue
        at = 0
        for found in marks.finditer(piece):
            text, at = piece[at : found.start()], found.end()
            if found[1] is not None and inside is None:
                pieces.append(text)
                inside, link = [], None if found[1] == PIXEL else plan.links[int(found[1])]
            elif found[2] is not None and inside is not None:
                inside.append(text)
                pieces.append(slots + len(places))
                places.append(Place(link, tuple(part for part in inside if part != "")))
                inside = None
            else:  # cannot be: marks come in pairs, and in order
                pieces.append(text)
        rest = piece[at:]
        (pieces if inside is None else inside).append(rest)
    if inside is not None:
        pieces += inside
    return Tracked(
        tuple(piece for piece in pieces if piece != ""),
        tuple(places),
        whole=len(places) == plan.source.count(plan.marks[0]),
    )


def shown_blocks(plans: Plans, parts: TrackedParts, shown: list[str], urls: Urls) -> list[str]:
    """Put URLs where marks stand in what blocks have rendered."""
    if not parts.html.whole:
        begin = plans.html.marks[0]
        shown = [spliced(plans.html, value, urls) if begin in value else value for value in shown]
    if not parts.text.whole:
        begin = plans.text.marks[0]
        shown = [spliced_text(plans.text, value, urls) if begin in value else value for value in shown]
    return shown


def shown_places(parts: TrackedParts, shown: Sequence[str], urls: Urls) -> list[str]:
    """Return what stands in the places for one recipient; `shown`: what their variables show."""
    found: list[str] = []
    for place in parts.html.places:
        link = place.link
        if link is None:
            found.append(PIXEL_HTML.format(urls.pixel) if urls.pixel else "")
            continue
        raw = joined(place.url, shown)
        destination = link.destination if link.static else clean(read_attribute(raw))
        if not destination:
            found.append(raw)
        elif urls.own and destination.startswith(urls.own):
            found.append(escape(destination))
        else:
            found.append(urls.click(link, destination))
    for place in parts.text.places:
        raw = joined(place.url, shown)
        found.append(raw if place.link is None else _in_text(place.link, raw, urls))
    return found


def spliced(plan: LinkPlan, html: str, urls: Urls) -> str:
    """Put URLs into what HTML was rendered for one recipient."""
    return fill(cut(plan, html), urls.click, pixel_url=urls.pixel, own=urls.own)


def spliced_text(plan: LinkPlan, text: str, urls: Urls) -> str:
    """Put URLs into what text was rendered for one recipient. Marks that lost their order to a filter go, and what was between stays."""
    first, *others = text.split(plan.marks[0])
    pieces = [first]
    for other in others:
        inside, closing, after = other.partition(plan.marks[1])
        place, _, raw = inside.partition(":")
        link = plan.links[int(place)] if _PLACE.fullmatch(place) and int(place) < len(plan.links) else None
        pieces += (_in_text(link, raw, urls) if closing and link is not None else inside, after)
    return "".join(pieces).replace(plan.marks[1], "")


def _in_text(link: Link, raw: str, urls: Urls) -> str:
    """The URL of a link in a text part; `raw` is what stands there when it is not tracked."""
    destination = link.destination if link.static else clean(raw) if is_one_url(raw) else ""
    if not destination or (urls.own and destination.startswith(urls.own)):
        return raw
    url = urls.click(link, destination)
    # A token may end as no word does, and then some readers leave its last character out; a query does not change where it leads.
    return url + "?t" if url.endswith(_DOUBTFUL) else url
