"""What was marked before rendering gets its URLs after it, in loops and conditions too."""

from __future__ import annotations

from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.campaigns.links import Link, compile_links
from gateway.campaigns.render import compile_template
from gateway.campaigns.splice import cut, fill
from gateway.errors import TemplateError

VARIABLES = {
    "id": "a b&c", "url": "https://y.example/?a=1&b=2", "vip": True, "items": [{"id": 1}, {"id": 2}], "bad": "javascript:alert(1)",
}  # fmt: skip
# All with URLs that cleaning leaves as they are.
TEMPLATES = [
    '<a href="https://x.example/?a=1&amp;b=2">x</a>', "<a href='https://x.example/{{ id | url_encode }}?a=1'>x</a>", "<a href={{ url }}>x</a>",
    "{% if vip %}<a href=https://x.example/v>v</a>{% else %}<a href=https://x.example/n>n</a>{% endif %}",
    '{% for item in items %}<a href="https://x.example/{{ item.id }}">{{ item.id }}</a>{% endfor %}',
    '{% assign base = "https://x.example" %}<a href="{{ base }}/b">b</a>',
    "{% capture button %}<a href='https://x.example/{{ id | url_encode }}'>c</a>{% endcapture %}{{ button }}{{ button }}",
    '<a href="{%- if vip -%}https://x.example/v{%- else -%}https://x.example/n{%- endif -%}">x</a>', '<a href="{{ bad }}">x</a>',
    '<a href="{{ nothing }}">x</a>', '<a href="mailto:{{ id }}">x</a>', "{% raw %}<a href='https://x.example/{{ a }}'>{% endraw %}",
    "<!-- {{ id }} <a href=https://x.example/> -->", "{{ id }}", "<p>ü</p>\r\n<p>", "{% comment %}<a href='https://x.example/'>{% endcomment %}",
    '<a {% if vip %}href="https://x.example/v"{% else %}href="https://x.example/n"{% endif %}>x</a>', "<style>{{ id }}</style>",
]  # fmt: skip


def urls(source: str, own: str = "", **variables: object) -> tuple[str, list[tuple[int, str]]]:
    """The HTML with `T<number>` for each URL, and the destinations asked for."""
    plan = compile_links(source)
    asked: list[tuple[int, str]] = []

    def click_url(link: Link, destination: str) -> str:
        asked.append((link.number, destination))
        return f"T{link.number}"

    rendered = compile_template("", plan.source, "").render(variables).html
    return fill(cut(plan, rendered), click_url, own=own), asked


@given(st.lists(st.sampled_from(TEMPLATES), max_size=8).map("".join))
def test_with_every_url_led_where_it_leads_anyway_nothing_changes(source: str) -> None:
    plan = compile_links(source)
    plain = compile_template("", source, "").render(VARIABLES).html
    marked = compile_template("", plan.source, "").render(VARIABLES).html
    assert fill(cut(plan, marked), lambda _, destination: escape(destination)) == plain


def test_static_and_personal_links_get_their_urls() -> None:
    source = '<a href="https://x.example/?a&amp;b">a</a><a href="https://x.example/{{ id }}?c={{ c }}">b</a>'
    assert urls(source, id="7", c="<&'") == (
        '<a href="T0">a</a><a href="T1">b</a>',
        [(0, "https://x.example/?a&b"), (1, "https://x.example/7?c=%3C&'")],
    )


def test_a_link_in_a_loop_has_one_number_and_many_destinations() -> None:
    html, asked = urls(TEMPLATES[4], items=[{"id": 1}, {"id": 2}])
    assert html == '<a href="T0">1</a><a href="T0">2</a>'
    assert asked == [(0, "https://x.example/1"), (0, "https://x.example/2")]


def test_a_link_that_was_not_taken_asks_for_no_url() -> None:
    assert urls(TEMPLATES[3], vip=False) == ("<a href=T1>n</a>", [(1, "https://x.example/n")])


@pytest.mark.parametrize(
    "value", ["", "javascript:alert(1)", "mailto:a@x.example", "#x", "https://\x02x/", "/a"]
)
def test_a_rendered_url_that_is_none_of_http_stays(value: str) -> None:
    html, asked = urls('<a href="{{ url }}">a</a>', url=value)
    assert html.replace("\x02", "") == f'<a href="{value}">a</a>'.replace("\x02", "")
    assert asked == []


def test_our_own_urls_are_not_tracked() -> None:
    own = "https://t.example/"
    html, asked = urls('<a href="{{ url }}">a</a>', own=own, url=own + "u/token?a&b")
    assert html == '<a href="https://t.example/u/token?a&amp;b">a</a>'
    assert asked == []


@given(st.text(st.sampled_from("<>\x02\x030:p\"'&ab"), max_size=30))
def test_no_variable_forges_a_mark(value: str) -> None:
    html, asked = urls("<p>{{ v }}</p>", v=value)
    assert asked == []
    assert not set(html.removeprefix("<p>").removesuffix("</p>")) & set("<>")
    forged = "<\x020\x020:https://evil.example/\x030\x03>"
    assert urls("<p>{{ v }}</p><a href=https://x.example/a>", v=forged)[1] == [(0, "https://x.example/a")]


@pytest.mark.parametrize("length", [*range(11), *range(13, 60)])  # the mark begins at 9
def test_a_mark_whose_url_is_cut_short_by_a_filter_is_taken_out(length: int) -> None:
    source = f"{{% capture a %}}<a href='https://x.example/{{{{ id }}}}'>{{% endcapture %}}{{{{ a | slice: 0, {length} }}}}."
    html, _ = urls(source, id="1")
    assert "\x02" not in html
    assert html.endswith(".")


def test_the_pixel_goes_where_it_was_marked_or_nowhere() -> None:
    plan = compile_links("<body>a</body>")
    parts = cut(plan, plan.source)
    assert fill(parts, lambda *_: "") == "<body>a</body>"
    html = fill(parts, lambda *_: "", pixel_url="https://t.example/o/x.gif")
    assert html.startswith('<body>a<img src="https://t.example/o/x.gif" width="1" height="1" alt="" style=')
    assert html.endswith("></body>")


def test_what_was_cut_once_is_filled_for_each_recipient() -> None:
    plan = compile_links("<a href=https://x.example/a>a</a>")
    parts = cut(plan, plan.source)
    assert [fill(parts, lambda *_, who=who: f"https://t.example/{who}") for who in "ab"] == [
        "<a href=https://t.example/a>a</a>",
        "<a href=https://t.example/b>a</a>",
    ]


def test_a_marked_source_still_tells_its_errors() -> None:
    plan = compile_links('<a href="https://x.example/{{ a | nofilter }}">\n')
    with pytest.raises(TemplateError, match="nofilter"):
        compile_template("", plan.source, "").render({})
