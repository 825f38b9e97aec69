"""Real newsletter templates: the links that Python's HTML parser sees are those that are tracked, and nothing else changes."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.campaigns.destination import clean
from gateway.campaigns.links import compile_links
from gateway.campaigns.splice import cut, fill

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "html" / "templates.tar.xz"
SAMPLE = """<!DOCTYPE html><html><head><title>News</title><style>a>b{color:red}</style></head><BODY bgcolor=#fff>
<!--[if mso]><v:roundrect href="https://x.example/button"><![endif]--><table><tr><td>
<A class=button style='color:red' HREF="https://x.example/?utm_source=mail&amp;utm_medium=b">Shop &rarr;</A>
<a href='mailto:help@x.example'>Help</a> <a href=#top>Top</a> <a href="*|UNSUB|*">Unsubscribe</a>
</table></BODY></html>"""


class Parsed(HTMLParser):
    """All `href` of `a` and `area`, and all other tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.rest: list[object] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        is_link = tag in ("a", "area")
        self.links += [value for name, value in attrs if is_link and name == "href" and value]
        self.rest.append((tag, [pair for pair in attrs if not is_link or pair[0] != "href"]))

    def handle_endtag(self, tag: str) -> None:
        self.rest.append(tag)

    def handle_data(self, data: str) -> None:
        self.rest.append(data)

    def handle_comment(self, data: str) -> None:
        self.rest.append(("!", data))


def templates() -> Iterator[tuple[str, str]]:
    with tarfile.open(CORPUS) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                yield member.name, file.read().decode("utf-8", "replace")


def check(name: str, html: str) -> int:
    plan = compile_links(html, liquid=False)
    before = Parsed(html)
    assert [link.destination for link in plan.links] == [
        url for link in before.links if (url := clean(link))
    ], name

    parts = cut(plan, plan.source)
    tracked = Parsed(fill(parts, lambda link, _: f"https://t.example/{link.number}"))
    numbers = iter(range(len(plan.links)))
    assert tracked.links == [
        f"https://t.example/{next(numbers)}" if clean(link) else link for link in before.links
    ], name
    assert tracked.rest == before.rest, name
    # Octet by octet, but for the spelling of ampersands in what is tracked.
    same = fill(parts, lambda _, destination: escape(destination, quote=False))
    assert re.sub("&(?:amp;)?", "&", same) == re.sub("&(?:amp;)?", "&", html), name
    return len(plan.links)


def test_sample() -> None:
    assert check("sample", SAMPLE) == 1


@pytest.mark.skipif(not CORPUS.exists(), reason="the shared corpus is not here")
def test_corpus() -> None:
    links = [check(name, html) for name, html in templates()]
    assert len(links) > 30
    assert sum(links) > 50


@pytest.mark.skipif(not CORPUS.exists(), reason="the shared corpus is not here")
def test_corpus_with_its_own_tags_taken_as_liquid_changes_nothing_but_links() -> None:
    for name, html in templates():
        plan = compile_links(html)
        opening, closing = map(re.escape, plan.marks)
        pieces = re.split(f"{opening}(?:[0-9]+|p):(.*?){closing}", plan.source, flags=re.DOTALL)
        at = 0
        for piece in pieces:
            found = html.find(piece, at)
            assert found >= 0, name
            at = found + len(piece)
