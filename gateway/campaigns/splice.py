"""Puts one recipient's URLs where the marks of a link plan came out. Pure.

Owns the cut: text, link, text, link, text. What was not rendered for each recipient is cut once a message; a rendered part
once a delivery, 0.8 µs a link. Must not know how a URL is made: the caller gives a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from html import escape
from typing import Final

import msgspec

from gateway.campaigns.destination import clean, read_attribute
from gateway.campaigns.links import PIXEL, Link, LinkPlan

PIXEL_HTML: Final = (
    '<img src="{}" width="1" height="1" alt="" style="display:block;width:1px;height:1px;border:0">'
)
"""The pixel, around its URL."""


class Slot(msgspec.Struct, frozen=True, gc=False):
    """A place for a URL: which of the pieces, which link (None: the pixel), and where it leads."""

    piece: int
    link: Link | None
    destination: str


class Cut(msgspec.Struct, frozen=True):
    """Marked HTML, cut at its marks; a piece with a slot holds what stands there when the link is not tracked."""

    pieces: tuple[str, ...]
    slots: tuple[Slot, ...]


def cut(plan: LinkPlan, html: str) -> Cut:
    """Cut a plan's source, or what was rendered from it.

    A rendered URL that leads nowhere it may be tracked to stays in its place. A mark that lost its end to a filter, or that
    has control characters in its URL, is taken out, and what was between stays.
    """
    whole, remains = _patterns(plan.marks)
    parts = whole.split(html)
    links = plan.links
    pieces = [_cleaned(parts[0], remains)]
    slots: list[Slot] = []
    for at in range(1, len(parts), 3):
        what, inside, after = parts[at : at + 3]
        if what == PIXEL:
            slots.append(Slot(len(pieces), None, ""))
        elif int(what) < len(links):
            link = links[int(what)]
            destination = link.destination if link.static else clean(read_attribute(inside))
            if destination:
                slots.append(Slot(len(pieces), link, destination))
        pieces.append(inside)
        pieces.append(_cleaned(after, remains))
    return Cut(tuple(pieces), tuple(slots))


def fill(cut: Cut, click_url: Callable[[Link, str], str], *, pixel_url: str = "", own: str = "") -> str:
    """Return the HTML with a URL of `click_url(link, destination)` in each place, and the pixel unless it has no URL.

    URLs of the caller's making stand in attributes as they are, also in unquoted ones: none of `&<>"'` and no space.
    What begins with `own`, the base of our URLs, is not tracked: an unsubscribe link in the text leads straight there.
    """
    pieces = list(cut.pieces)
    for slot in cut.slots:
        if slot.link is None:
            if pixel_url:
                pieces[slot.piece] = PIXEL_HTML.format(pixel_url)
        elif own and slot.destination.startswith(own):
            pieces[slot.piece] = escape(slot.destination)
        else:
            pieces[slot.piece] = click_url(slot.link, slot.destination)
    return "".join(pieces)


@lru_cache(64)
def _patterns(marks: tuple[str, str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    opening, closing = map(re.escape, marks)
    what = rf"([0-9]{{1,5}}|{PIXEL}):"
    whole = rf"{opening}{what}([^\x02\x03]*+){closing}"
    return re.compile(whole), re.compile(rf"{opening}(?:{what})?|{closing}")


def _cleaned(text: str, remains: re.Pattern[str]) -> str:
    return remains.sub("", text) if "\x02" in text or "\x03" in text else text
