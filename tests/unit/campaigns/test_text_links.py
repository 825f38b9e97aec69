"""Links of a text part are found where readers see them, and left alone where readers may see something else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.campaigns.destination import clean
from gateway.campaigns.links import LINK_LIMIT, Link, compile_links
from gateway.campaigns.pieces import joined
from gateway.campaigns.render import compile_template
from gateway.campaigns.text_links import compile_text_links
from gateway.campaigns.tracked import Urls, mark, shown_blocks, shown_places, spliced_text, track_parts

NO_HTML = compile_links("")
SECRET = "5ec4e7"
VARIABLES = {
    "id": "7", "name": "Ann", "q": "a b", "line": "a\nb", "empty": "", "vip": True, "items": [{"id": 1}, {"id": 2}], "url": "https://v.example/",
}  # fmt: skip


def found(source: str, *, liquid: bool = True) -> list[str]:
    return [link.destination for link in compile_text_links(source, NO_HTML, liquid=liquid).links]


@pytest.mark.parametrize(
    ("source", "destinations"),
    [
        ("https://x.example/a", ["https://x.example/a"]),
        ("HTTP://x.example", ["http://x.example"]),
        ("Shop: https://x.example/?a=1&b=2#c now", ["https://x.example/?a=1&b=2#c"]),
        ("Look at https://x.example/a.", ["https://x.example/a"]),
        ("Have you seen https://x.example/a?!", ["https://x.example/a"]),
        ("(see https://x.example/a), or", ["https://x.example/a"]),
        ("(https://x.example/a_(b))", ["https://x.example/a_(b)"]),
        ("[Shop](https://x.example/a)", ["https://x.example/a"]),
        ("<https://x.example/a>", ["https://x.example/a"]),
        ("\"https://x.example/a\" 'https://x.example/b'", ["https://x.example/a", "https://x.example/b"]),
        ("看https://x.example/a。", ["https://x.example/a"]),
        ("https://x.example/a\nhttps://x.example/b\r\n", ["https://x.example/a", "https://x.example/b"]),
        ("https://x.example/a https://x.example/a", ["https://x.example/a"]),
        ("https://x.example/u/{{ id }}?a=1.", ["https://x.example/u/{{ id }}?a=1"]),
        ("{% if vip %}https://x.example/v{% else %}https://x.example/n{% endif %}", ["https://x.example/v", "https://x.example/n"]),
        ("{%- if vip -%}\nhttps://x.example/v\n{%- else -%}\nhttps://x.example/n\n{%- endif %}\n", ["https://x.example/v", "https://x.example/n"]),
        ("{% for i in items %}{{ i.id }}: https://x.example/{{ i.id }}\n{% endfor %}", ["https://x.example/{{ i.id }}"]),
    ],
)  # fmt: skip
def test_finds_links_as_readers_see_them(source: str, destinations: list[str]) -> None:
    assert found(source) == destinations


@pytest.mark.parametrize(
    "source",
    [
        "", "x.example", "mailto:a@x.example", "ftp://x.example/", "//x.example/a", "xhttps://x.example/a", "git+https://x.example/a", "https://", "http:",
        "https://...", "{{ url }}", "https://{{ id }}/a", "https://x.example{{ id }}", "{{ id }}https://x.example/a", "https://x.example/größe",
        "https://x.example/o\u0308", "https://x.example/a|b", "https://x.example/{a}", "*https://x.example/a*", "_https://x.example/a_", "https://x.example/a-",
        "[https://x.example/a](https://x.example/a)", "https://x.example/a,https://x.example/b", "https://x.example/a\x02",
        "https://x.example/a{% if vip %}?b=1{% endif %}", "https://x.example/a{% if vip %} b{% endif %}",
        "https://x.example/a\n{%- if vip -%}?b=1{% endif %}", "https://x.example/a\n{{- id }}", "{% if vip %}https://x.example/a{% endif %}?b=1",
        "{% if vip %}https://x.example/a{% endif -%}\n?b", "{% for i in items %}https://x.example/a{% endfor %}",
        "{% capture c %}https://x.example/a {% endcapture %}{{ c | upcase }}", "{% raw %}https://x.example/a {% endraw %}",
        "{% comment %}https://x.example/a {% endcomment %}", "{{ 'https://x.example/a ' }}", "{% assign a = 'https://x.example/a ' %}",
    ],
)  # fmt: skip
def test_leaves_alone_what_is_no_link_or_may_be_another_one(source: str) -> None:
    plan = compile_text_links(source, NO_HTML)
    assert (plan.links, plan.source) == ((), source)


def test_a_link_that_the_html_has_too_is_the_same_link() -> None:
    html = compile_links(
        '<a href="https://x.example/?a&amp;b">1</a><a href="https://x.example/?a&amp;b">2</a>'
        '<a href="https://x.example/{{ id }}?a=1&amp;b">3</a><a data-no-track href="https://x.example/no">4</a>'
        '<a data-no-track href="https://x.example/no/{{ id }}">5</a>'
    )
    text = compile_text_links(
        "https://x.example/new https://x.example/?a&b https://x.example/{{ id }}?a=1&b https://x.example/no https://x.example/no/{{ id }}",
        html,
    )
    new, *same = text.links
    assert (new.number, new.destination) == (3, "https://x.example/new")
    assert same == [html.links[0], html.links[2]]
    assert "https://x.example/no https://x.example/no/{{ id }}" in text.source


def test_the_secret_is_in_the_marks_and_nowhere_else() -> None:
    source = "https://x.example/a https://x.example/{{ id }}"
    plan, other = (compile_text_links(source, NO_HTML, secret=secret) for secret in (SECRET, ""))
    assert plan.links == other.links
    assert all(SECRET in sign for sign in plan.marks)


def test_no_more_links_are_tracked_than_a_token_can_name() -> None:
    plan = compile_text_links("\n".join([f"https://x.example/{i}" for i in range(LINK_LIMIT + 3)]), NO_HTML)
    assert [link.number for link in plan.links] == list(range(LINK_LIMIT + 1))


# All with URLs that cleaning leaves as they are.
TEMPLATES = [
    "https://x.example/?a=1&b=2 ", "https://x.example/{{ id }}?a=1 ", "Dear {{ name }},\n", "(https://x.example/a)", "\n", " ", ".", ",", "é", "<", "?b=1",
    "{% if vip %}https://x.example/v{% else %}https://x.example/n{% endif %}", "{% unless vip %}x{% endunless %}", "https://x.example/{{ empty }}",
    "{% for item in items %}https://x.example/{{ item.id }}\n{% endfor %}", "{% assign a = 'x' %}", "{{ a }}", "{{ url }}", "https://x.example/q{{ q }} ",
    "{% capture c %}https://x.example/c {% endcapture %}{{ c | upcase }}", "https://x.example/l/{{ line }}", "{%- if vip -%}", "{%- endif -%}", "https:",
    "https://mail.example/u/{{ id }} ", "https://mail.example/u/own\n", "{% raw %}https://x.example/{{ a }}{% endraw %}", "{{- name -}}", "//x.example",
]  # fmt: skip


def tracked(source: str, urls: Urls, *, whole: bool) -> str | None:
    """The text of one recipient, rendered as a whole by the engine or out of pieces (None where those are the engine's alone)."""
    plans = mark("", source, secret=SECRET)
    template = compile_template("", plans.html.source, plans.text.source)
    if whole:
        return spliced_text(plans.text, template.render(VARIABLES).text, urls)
    values = template.values(VARIABLES)
    if values is None or template.pieces is None:
        return None
    parts = track_parts(plans, template.pieces.parts["html"], template.pieces.parts["text"], len(values))
    shown = shown_blocks(plans, parts, values, urls)
    return joined(parts.text.pieces, shown + shown_places(parts, shown, urls))


def balanced(source: str) -> bool:
    return source.count("{%- if") == source.count("{%- endif") and all(
        head.count("{%- if") >= head.count("{%- endif")
        for head in (source[:at] for at in range(len(source) + 1))
    )


@given(st.lists(st.sampled_from(TEMPLATES), max_size=8).map("".join).filter(balanced))
def test_with_every_url_led_where_it_leads_anyway_nothing_changes(source: str) -> None:
    plain = compile_template("", "", source).render(VARIABLES).text
    same = Urls(click=lambda _, destination: destination, pixel="", own="https://mail.example/")
    assert tracked(source, same, whole=True) == plain
    assert tracked(source, same, whole=False) in (plain, None)


@given(st.lists(st.sampled_from(TEMPLATES), max_size=8).map("".join).filter(balanced))
def test_both_ways_of_making_a_text_track_the_same_links_and_none_of_ours(source: str) -> None:
    def click(link: Link, destination: str) -> str:
        assert not destination.startswith("https://mail.example/")
        assert clean(destination) == destination
        return f"https://t.example/c/{link.number}"

    urls = Urls(click=click, pixel="", own="https://mail.example/")
    assert tracked(source, urls, whole=False) in (tracked(source, urls, whole=True), None)


FRAGMENTS = [
    "https://x.example/", "http://", "https:", "a", "/", ".", ",", "(", ")", "[", "]", "'", '"', "<", ">", "{{ id }}", "{{", "}}", "{%", "%}", "{% if a %}",
    "{% else %}", "{% endif -%}", "{%- endif %}", "{% capture c %}", "{% endcapture %}", "\x02", "\x03", "<\x020\x02", "\x030\x03>", "ü", "\ufdd0", "\ufdd1", " ",
    "\n", "_", "*", "用", "{% raw %}", "{% endraw %}",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=25).map("".join), st.booleans())
def test_marks_stand_around_urls_and_change_nothing_else(source: str, liquid: bool) -> None:
    plan = compile_text_links(source, NO_HTML, liquid=liquid)
    opening, closing = map(re.escape, plan.marks)
    around = re.compile(f"{opening}([0-9]+):(.*?){closing}", re.DOTALL)
    assert around.sub(lambda one: one[2], plan.source) == source
    for one in around.finditer(plan.source):
        link = plan.links[int(one[1])]
        assert one[2].lower().startswith(("http://", "https://"))
        assert link.destination == (clean(one[2]) if link.static else one[2])
        after = plan.source[one.end() : one.end() + 1]
        assert not (after.isascii() and after.isalnum())


MARKS = compile_text_links("https://x.example/a", NO_HTML, secret=SECRET).marks


@given(
    st.lists(
        st.sampled_from([*MARKS, "0:", "1:", "99999999:", "٣:", "https://y.example/", "a", "\x02"]),
        max_size=9,
    )
)
def test_marks_that_lost_their_order_are_taken_out_and_crash_nothing(parts: list[str]) -> None:
    plan = compile_text_links("https://x.example/a", NO_HTML, secret=SECRET)
    text = spliced_text(plan, "".join(parts), Urls(click=lambda *_: "T", pixel="", own=""))
    assert not any(sign in text for sign in MARKS)


@pytest.mark.parametrize("whole", [True, False])
def test_no_variable_forges_a_mark(whole: bool) -> None:
    """Whoever fills in a form would get a signed link to anywhere."""
    plans = mark("", "Dear {{ name }}, https://x.example/a {% if name %}{{ name }}{% endif %}", secret=SECRET)
    template = compile_template("", "", plans.text.source)
    name = "<\x020\x020:https://evil.example/\x030\x03>"
    urls = Urls(click=lambda _, destination: f"T({destination})", pixel="", own="")
    if whole:
        text = spliced_text(plans.text, template.render({"name": name}).text, urls)
    else:
        values = template.values({"name": name})
        assert values is not None
        assert template.pieces is not None
        parts = track_parts(plans, (), template.pieces.parts["text"], len(values))
        shown = shown_blocks(plans, parts, values, urls)
        text = joined(parts.text.pieces, shown + shown_places(parts, shown, urls))
    assert text == f"Dear {name}, T(https://x.example/a) {name}"


def test_a_url_that_a_variable_broke_stays_as_it_is() -> None:
    urls = Urls(click=lambda *_: "T", pixel="", own="")
    for source in ("https://x.example/{{ q }}", "https://x.example/{{ line }}"):
        plain = compile_template("", "", source).render(VARIABLES).text
        assert tracked(source, urls, whole=True) == tracked(source, urls, whole=False) == plain


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("last", ["a", "-", "_"])
def test_a_tracked_url_ends_so_that_every_reader_sees_its_end(last: str, whole: bool) -> None:
    urls = Urls(click=lambda *_: f"https://t.example/c/AQ{last}", pixel="", own="")
    text = tracked("(https://x.example/{{ id }}).", urls, whole=whole)
    assert text == f"(https://t.example/c/AQ{last}{'?t' if last in '-_' else ''})."


@pytest.mark.parametrize(
    "part",
    [
        "https://x.example/a", "https://x.example/a ", "https://", "(", ")", "https://x/)))))", "{% else %}", "https://x.example/a{% else %}", "{% if a %}",
        "https://x.example/a\n\n\n", "{% capture c %}", "https://x.example/a{% endif %}", "{{", "h", "https://x.example/[",
    ],
)  # fmt: skip
def test_any_text_is_read_in_time(part: str) -> None:
    compile_text_links(part * 20_000, NO_HTML)  # a quadratic reader would take minutes
    compile_text_links("https://x.example/" + part * 20_000 + " " * 100_000, NO_HTML)
