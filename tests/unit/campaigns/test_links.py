"""Links are found where HTML has them, whatever Liquid stands around; all else stays as it was."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.campaigns.destination import clean, read_attribute
from gateway.campaigns.links import LINK_LIMIT, LinkPlan, compile_links

# What a document may be made of, well-formed or not; none has data-no-track, which alone takes something away.
FRAGMENTS = [
    '<a href="https://x.example/?a=1&amp;b=2">x</a>', "<A HREF='http://x.example/a'\n>x</A>", "<a href=https://x.example/b>x</a>",
    '<a href="https://x.example/{{ id }}?a={{ b | url_encode }}">', "{% if a %}", "{% else %}", "{% endif %}", "{% raw %}", "{% endraw %}",
    "{% comment %}", "{% endcomment %}", "<!--", "-->", "<style>", "</style>", "<a ", "href=", "href", '"', "'", ">", "<", "/", "=", " ", "\n",
    "https://x.example/c", "mailto:a@x.example", "#top", "{{ url }}", "{{", "}}", "{%", "%}", "&amp;", "&", "</body>", "<img src=x>",
    "<!doctype html>", "</", "<?", "<a b", "\x02", "\x03", "<\x020\x02", "\x030\x03>", "<area href='https://x.example/d'>", "ü", "\ufdd0", "\ufdd1",
]  # fmt: skip
DOCUMENTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=25).map("".join)


def found(source: str, *, liquid: bool = True) -> list[str]:
    return [link.destination for link in compile_links(source, liquid=liquid).links]


def unmarked(plan: LinkPlan, instead: str = "", pixel: str = "") -> str:
    opening, closing = map(re.escape, plan.marks)
    source = re.sub(f"{opening}p:{closing}", lambda _: pixel, plan.source)
    return re.sub(f"{opening}[0-9]+:(.*?){closing}", lambda mark: mark[1] or instead, source, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("source", "destinations"),
    [
        ('<a href="https://x.example/a">', ["https://x.example/a"]),
        ("<a href='https://x.example/a'>", ["https://x.example/a"]),
        ("<a href=https://x.example/a>", ["https://x.example/a"]),
        ("<a href=https://x.example/a/>", ["https://x.example/a/"]),
        ('<A CLASS=b HREF = "HTTPS://x.example/a" id=c>', ["https://x.example/a"]),
        ('<a\nhref="https://x.example/a"\n>', ["https://x.example/a"]),
        ('<a/href="https://x.example/a"/>', ["https://x.example/a"]),
        ('<area shape=rect href="https://x.example/a">', ["https://x.example/a"]),
        ('<a title="a > b" href="https://x.example/a">', ["https://x.example/a"]),
        ("<a title=it's href='https://x.example/a'>", ["https://x.example/a"]),
        ('<a href="https://x.example/?a=1&amp;b=2&c=3">', ["https://x.example/?a=1&b=2&c=3"]),
        ('<a href=" https://x.example/a\n">', ["https://x.example/a"]),
        ('<!--[if !mso]><!--><a href="https://x.example/a"><!--<![endif]-->', ["https://x.example/a"]),
        ('<!--> <a href="https://x.example/a">', ["https://x.example/a"]),
        ('<style>a>b{}</style><a href="https://x.example/a">', ["https://x.example/a"]),
        ("<p>1 < 2</p><a href='https://x.example/a'>", ["https://x.example/a"]),
        ("<a href=https://x.example/a>{% raw %}{{{% endraw %}<a href=https://x.example/b>", ["https://x.example/a", "https://x.example/b"]),
    ],
)  # fmt: skip
def test_finds_links_as_html_has_them(source: str, destinations: list[str]) -> None:
    assert found(source) == destinations
    assert [link.static for link in compile_links(source).links] == [True] * len(destinations)


@pytest.mark.parametrize(
    "source",
    [
        '<a href="mailto:a@x.example">', '<a href="tel:+1">', '<a href="#top">', '<a href="data:text/html,x">', '<a href="cid:x">',
        '<a href="javascript:location=\'https://x.example\'">', '<a href="/a">', '<a href="//x.example/a">', '<a href="">', "<a href>",
        "<a href=>", "<a>", '<a href="*|UNSUB|*">', '<a data-href="https://x.example/a">', '<link href="https://x.example/a">',
        '<abbr href="https://x.example/a">', '<base href="https://x.example/">', '<img src="https://x.example/a">', "</a href=https://x.example/a>",
        '<!-- <a href="https://x.example/a"> -->', '<!--[if mso]><a href="https://x.example/a"><![endif]-->', '<!-- <a href="https://x.example/a">',
        '<script>"<a href=https://x.example/a>"</script>', "<title><a href=https://x.example/a></title>", '<style><a href="https://x.example/a">',
        '<a title="<a href=https://x.example/a>">', '<a href="https://x.example/a', '<a href="https://x.example/a>', "<a href=https://x.example/a",
        "{% raw %}<a href='https://x.example/{{ a }}'>{% endraw %}", "{% comment %}<a href='https://x.example/a'>{% endcomment %}",
        "{{ '<a href=https://x.example/a>' }}", "< a href=https://x.example/a>", "<?a href=https://x.example/a>", "<!a href=https://x.example/a>",
        '<a href="mailto:{{ a }}">', '<a href="#{{ a }}">', '<a href="/{{ a }}">', '<a href="httpx{{ a }}">',
        '<a href="https://x.example/{% if a %}b">{% endif %}', '{% if a %}<a href="https://x.example/{% else %}b">{% endif %}',
        "<a href=https://x.example/{% if a %}?b{% endif", "<a href=https://x.example/{% endif %}>",
    ],
)  # fmt: skip
def test_leaves_alone_what_is_no_link_to_http(source: str) -> None:
    plan = compile_links(source)
    assert plan.links == ()
    assert unmarked(plan) == source


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('<a href="https://x.example/{{ id }}?a={{ b | url_encode }}">', "https://x.example/{{ id }}?a={{ b | url_encode }}"),
        ("<a href='{{ url }}'>", "{{ url }}"),
        ("<a href={{ url }}>", "{{ url }}"),
        ("<a href={{ url }} class=a>", "{{ url }}"),
        ('<a href="{{ "https://x.example" | append: "/>" }}">', '{{ "https://x.example" | append: "/>" }}'),
        ('<a href="{% if a %}https://x.example/a{% else %}https://x.example/b{% endif %}">', "{% if a %}https://x.example/a{% else %}https://x.example/b{% endif %}"),
        ("<a href=https://x.example/{% if a %}a{% endif %}>", "https://x.example/{% if a %}a{% endif %}"),
        ('<a href="http{{ s }}://x.example/">', "http{{ s }}://x.example/"),
        ('<a href="https://x.example/{%- if a -%}?{{- b -}}{%- endif -%}">', "https://x.example/{%- if a -%}?{{- b -}}{%- endif -%}"),
    ],
)  # fmt: skip
def test_a_url_with_liquid_in_it_stays_between_marks(source: str, value: str) -> None:
    plan = compile_links(source)
    assert [(link.destination, link.static, link.fingerprint) for link in plan.links] == [(value, False, b"")]
    assert f"{plan.marks[0]}0:{value}{plan.marks[1]}" in plan.source
    assert unmarked(plan) == source


@pytest.mark.parametrize(
    ("source", "destinations"),
    [
        ('{% if a %}<a href="https://x.example/a">{% else %}<a href="https://x.example/b">{% endif %}', "ab"),
        ('<a {% if a %}href="https://x.example/a"{% else %}href="https://x.example/b"{% endif %}>', "ab"),
        ('<a{% if a %} class="b"{% endif %} href="https://x.example/a">', "a"),
        ('<a class="{{ "x>" }}" href="https://x.example/a">', "a"),
        ('<a {{ attributes }} href="https://x.example/a">', "a"),
        ('<p {% if a < b %}x{% endif %}><a href="https://x.example/a">', "a"),
    ],
)
def test_liquid_around_links_does_not_hide_them(source: str, destinations: str) -> None:
    assert found(source) == [f"https://x.example/{path}" for path in destinations]


def test_without_liquid_braces_are_text() -> None:
    source = '<a href="https://x.example/{{a}}">{% raw %}<a href="https://x.example/{%b">'
    assert found(source, liquid=False) == ["https://x.example/{{a}}", "https://x.example/{%b"]


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ('<a href="https://x.example/a" data-no-track>', '<a href="https://x.example/a">'),
        ('<a data-no-track href="https://x.example/a">', '<a href="https://x.example/a">'),
        ('<a\n DATA-NO-TRACK = "1"\n href="https://x.example/a">', '<a\n href="https://x.example/a">'),
        ('<a data-no-track="1"href="https://x.example/a">', '<a href="https://x.example/a">'),
        ("<area data-no-track=yes href=https://x.example/a>", "<area href=https://x.example/a>"),
        ('<a data-no-track/>', "<a/>"),
        ('<a data-no-track href="https://x.example/{{ a }}" data-no-track="">', '<a href="https://x.example/{{ a }}">'),
        ("<p data-no-track>", "<p data-no-track>"),
    ],
)  # fmt: skip
def test_an_element_can_opt_out_and_loses_the_attribute(source: str, left: str) -> None:
    plan = compile_links(source)
    assert plan.links == ()
    assert unmarked(plan) == left


@pytest.mark.parametrize(
    ("source", "marked"),
    [
        ("<body><p>a</p></body></html>", "<body><p>a</p>PIXEL</body></html>"),
        ("<BODY>a</BODY >", "<BODY>aPIXEL</BODY >"),
        ("a</body>b</body>", "a</body>bPIXEL</body>"),
        ("<p>a</p>", "<p>a</p>PIXEL"),
        ("a<!-- </body> -->", "a<!-- </body> -->PIXEL"),
        ("", ""),
    ],
)
def test_the_pixel_stands_before_the_end_of_the_body(source: str, marked: str) -> None:
    plan = compile_links(source)
    assert unmarked(plan, pixel="PIXEL") == marked
    assert plan.has_pixel == bool(source)


@given(DOCUMENTS, st.booleans())
def test_all_but_the_tracked_values_stays_as_it_was(source: str, liquid: bool) -> None:
    plan = compile_links(source, liquid=liquid)
    opening, closing = map(re.escape, plan.marks)
    assert plan.marks[0] not in source
    assert plan.marks[1] not in source
    pattern, numbers, at = "", list[int](), 0
    for mark in re.finditer(f"{opening}([0-9]+|p):(.*?){closing}", plan.source, re.DOTALL):
        pattern += re.escape(plan.source[at : mark.start()])
        at = mark.end()
        if mark[1] != "p":
            numbers.append(int(mark[1]))
            pattern += f"({re.escape(mark[2])})" if mark[2] else "(.*?)"
    same = re.fullmatch(pattern + re.escape(plan.source[at:]), source, re.DOTALL)
    assert same is not None
    assert numbers == list(range(len(plan.links)))
    for link, value in zip(plan.links, same.groups(), strict=True):
        assert link.destination == (clean(read_attribute(value)) if link.static else value)


@given(DOCUMENTS)
def test_the_same_source_gives_the_same_plan(source: str) -> None:
    assert compile_links(source) == compile_links(source)


def test_links_beyond_what_a_token_can_number_are_left_alone() -> None:
    plan = compile_links("<a href=https://x.example/>" * (LINK_LIMIT + 3))
    assert len(plan.links) == LINK_LIMIT + 1
    assert plan.source.count("<a href=https://x.example/>") == 2


@pytest.mark.parametrize(
    "part",
    ['<a href="', "<!--", "{{ ", "<a ", "<style>", "{% raw %}", "<a b='", "<?", "{% if a %}<a href={{b}}>"],
)
def test_hostile_sources_end(part: str) -> None:
    compile_links(part * 20_000)  # a quadratic reader would take minutes
