"""A marked HTML part taken apart further: each tracked link and the pixel become slots of their own. Pure.

Owns the step between a template's pieces (`campaigns/pieces`) and one recipient's URLs, so that what is the same for all recipients is
cut at its marks once a message. Marks that come out of a block's rendering are cut for each recipient (`campaigns/splice`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape

import msgspec

from gateway.campaigns.destination import clean, read_attribute
from gateway.campaigns.links import PIXEL, Link, LinkPlan
from gateway.campaigns.pieces import joined
from gateway.campaigns.splice import PIXEL_HTML, cut, fill


class Place(msgspec.Struct, frozen=True):
    """What stands in a slot: a link of all recipients, one whose URL has variables (`url`, its pieces), or the pixel (no link)."""

    link: Link | None
    url: tuple[str | int, ...] = ()


class Tracked(msgspec.Struct, frozen=True):
    """An HTML part whose places are slots, numbered on from those of its variables."""

    html: tuple[str | int, ...]
    places: tuple[Place, ...]


class Urls(msgspec.Struct, frozen=True):
    """How one recipient's URLs are made: `click(link, destination)`, the pixel's (empty: none), and the base of our own, untracked."""

    click: Callable[[Link, str], str]
    pixel: str
    own: str


def track(plan: LinkPlan, html: Sequence[str | int], slots: int) -> Tracked:
    """Cut pieces at their marks; `slots`: how many there are already. What is not sure stays, for `shown_blocks`."""
    begin, end = map(re.escape, plan.marks)
    mark = re.compile(rf"{begin}([0-9]{{1,5}}|{PIXEL}):|({end})")
    pieces: list[str | int] = []
    places: list[Place] = []
    inside: list[str | int] | None = None  # the URL of the link that is open
    link: Link | None = None
    for piece in html:
        if isinstance(piece, int):
            (pieces if inside is None else inside).append(piece)
            continue
        at = 0
        for found in mark.finditer(piece):
            text, at = piece[at : found.start()], found.end()
            if found[1] is not None and inside is None:
                pieces.append(text)
                inside, link = [], None if found[1] == PIXEL else plan.links[int(found[1])]
            elif found[2] is not None and inside is not None:
                inside.append(text)
                pieces.append(slots + len(places))
                url = tuple(part for part in inside if part != "")
                places.append(Place(link, () if link is None or link.static else url))
                inside = None
            else:  # cannot be: marks come in pairs, and in order
                pieces.append(text)
        rest = piece[at:]
        (pieces if inside is None else inside).append(rest)
    if inside is not None:
        pieces += inside
    return Tracked(tuple(piece for piece in pieces if piece != ""), tuple(places))


def shown_blocks(plan: LinkPlan, shown: list[str], urls: Urls) -> list[str]:
    """Put URLs where marks stand in what blocks have rendered."""
    begin = plan.marks[0]
    return [spliced(plan, text, urls) if begin in text else text for text in shown]


def spliced(plan: LinkPlan, html: str, urls: Urls) -> str:
    """Put URLs into what was rendered for one recipient."""
    return fill(cut(plan, html), urls.click, pixel_url=urls.pixel, own=urls.own)


def shown_places(tracked: Tracked, shown: Sequence[str], urls: Urls) -> list[str]:
    """Return what stands in the places for one recipient; `shown`: what their variables show."""
    found: list[str] = []
    for place in tracked.places:
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
    return found
