"""Templates fill in what they are given, escape it, and cannot run away."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.campaigns.pieces import joined
from gateway.campaigns.render import Rendered, compile_template
from gateway.errors import TemplateError


def html(source: str, **variables: object) -> str:
    return compile_template("", source, "").render(variables).html


def test_variables_are_filled_in_and_escaped_in_html_alone() -> None:
    template = compile_template("Hi {{ name }}", "<p>{{ name }}</p>", "Hi {{ name | upcase }}")
    assert template.render({"name": "<Bob>"}) == Rendered("Hi <Bob>", "<p>&lt;Bob&gt;</p>", "Hi <BOB>")
    assert not template.is_static


@given(st.text().filter(lambda text: "{{" not in text and "{%" not in text))
def test_what_has_no_tags_comes_back_as_it_is(text: str) -> None:
    template = compile_template(text, text, text)
    assert template.is_static
    assert template.render({"name": "x"}) == Rendered(text, text, text)


@given(st.text(max_size=50))
def test_no_variable_breaks_out_of_its_place_in_html(value: str) -> None:
    assert not set(html("{{ v }}", v=value)) & set("<>\"'")


def test_a_variable_may_have_any_name() -> None:
    assert compile_template("", "{{ self }} {{ args }}", "").render({"self": "a", "args": "b"}).html == "a b"


def test_conditions_loops_and_missing_variables() -> None:
    source = "{% if vip %}VIP {% endif %}{% for item in items %}{{ item.name }},{% endfor %}{{ nothing }}"
    assert html(source, vip=True, items=[{"name": "a"}, {"name": "b"}]) == "VIP a,b,"


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("a\n{% if %}", 2, "missing expression"),
        ("{{ x | nofilter }}", 1, "nofilter"),
        ("\n\n{% include 'x' %}", 3, "include"),
        ("{% render '/etc/passwd' %}", 1, "render"),
        ("{{ x | safe }}", 1, "safe"),
        ("{% for %}", 1, ""),
        ("{{ x", None, ""),
    ],
)
def test_a_syntax_error_names_part_and_line(source: str, line: int | None, says: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template("", source, "").render({})
    assert caught.value.part == "html"
    assert says in str(caught.value)
    if line is not None:
        assert caught.value.line == line


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in (1..1000000000) %}x{% endfor %}",
        "{% for i in (1..1000) %}{% for j in (1..1000) %}x{% endfor %}{% endfor %}",
        "{{ (1..1000000000) | join: 'x' }}",
        "{{ (1..100000000000000000000000000000) | size }}",
        "{{ 'aaaaaaaaaa' " + "| replace: 'a', 'aaaaaaaaaa' " * 12 + "}}",
        "{% assign x = 'aaaaaaaaaa' %}{% for i in (1..50) %}{% assign x = x | append: x %}{% endfor %}",
        "{% capture x %}aaaaaaaaaa{% endcapture %}"
        "{% for i in (1..50) %}{% capture x %}{{ x }}{{ x }}{% endcapture %}{% endfor %}",
        "{% assign x = 9999999999 %}{% for i in (1..60) %}{% assign x = x | times: x %}{% endfor %}{{ x }}",
        "{% assign a = 'a,' %}{% for i in (1..16) %}{% assign a = a | append: a %}{% endfor %}"
        "{{ a | split: ',' | join: a }}",
        "{% assign a = 'abcdefghij' %}{% for i in (1..13) %}{% assign a = a | append: a %}{% endfor %}"
        "{% for i in (1..9999) %}{% assign b = a | upcase | escape | downcase %}{% endfor %}",
        "{% for i in (1..9999) %}{{ big }}{% endfor %}",
        "{% if a %}" * 200 + "{% endif %}" * 200,
    ],
)
def test_a_template_that_runs_away_is_stopped_soon(source: str) -> None:
    started = time.process_time()
    with pytest.raises(TemplateError):
        html(source, big="x" * 10_000)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    "source", ["{{ x.__class__ }}", "{{ x.__class__.__mro__ }}", "{{ x.upper }}", "{{ x.secret }}"]
)
def test_no_attribute_can_be_reached(source: str) -> None:
    class Thing:
        secret = "s"

    assert html(source, x="text") == ""
    assert html(source, x=Thing()) == ""


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


SOURCES = (
    "Hello {{ name }}!",
    "{{ name | default: 'friend' }}, {{ a.b }} {{ a.c | default: \"x\" }} {{ n }}",
    "{% if vip %}VIP {{ name }}{% else %}<p>{{ city }}</p>{% endif %} and {{ name }} {{ name }}",
    "{% for x in items %}{{ forloop.index }}{{ x.name }},{% endfor %}{{ items.size }} {{ items[0].name }} {{ items }}",
    "{{ name | upcase | truncate: 3 }}{{ 'word' }}{{ 3 }}{{ nothing.at.all }}{{ true }}",
    "{% assign name = 'other' %}{{ name }}",
    "{% capture x %}{{ name }}{% endcapture %}{{ x }}",
    "{% unless vip %}{{ n }}{% endunless %}{% case n %}{% when 1 %}one{% else %}many{% endcase %}",
    "{% cycle 'a', 'b' %}{{ name }}{% cycle 'a', 'b' %}{% raw %}{{ x }}{% endraw %}{% comment %}{{ y }}{% endcomment %}",
    "{{ now }}{{ a }}{{ size }}{{ a.size }}{{ name.size }}",
    "{% if vip %}{% assign n = 7 %}{% endif %}{{ n }}",
    "{% increment n %}{{ n }}",
    "{% for x in items %}{% break %}{% endfor %}{{ name }}",
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1e3, 1e3), st.text(max_size=8), st.sampled_from(["<b>", "", "&"]),
    st.lists(st.text(max_size=3), max_size=2), st.fixed_dictionaries({"b": st.text(max_size=3), "c": st.none()}),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SOURCES),
    st.fixed_dictionaries(
        {"name": VALUES, "city": VALUES, "n": VALUES, "a": VALUES, "vip": st.booleans()},
        optional={"items": st.lists(st.fixed_dictionaries({"name": st.text(max_size=3)}), max_size=3)},
    ),
)
def test_pieces_and_the_engine_say_the_same(source: str, variables: dict[str, object]) -> None:
    template = compile_template(source, source, source)
    try:
        wanted = template.render(variables)
    except TemplateError:
        return
    shown = template.values(variables)
    if shown is not None and "now" not in source:
        assert template.pieces is not None
        got = {name: joined(part, shown) for name, part in template.pieces.parts.items()}
        # The engine's buffer makes every line end a LF, which MIME does too.
        assert Rendered(**{name: _lines(text) for name, text in got.items()}) == wanted


@pytest.mark.parametrize(
    ("source", "by_pieces"),
    [(SOURCES[0], True), (SOURCES[1], True), (SOURCES[2], True), (SOURCES[5], False), (SOURCES[10], False)],
)
def test_what_sets_no_variable_is_taken_apart(source: str, by_pieces: bool) -> None:
    variables: dict[str, object] = {"name": "Ann", "a": {"b": "x"}, "n": 3, "vip": True, "city": "Oslo"}
    assert (compile_template("", source, "").values(variables) is not None) == by_pieces


def test_blocks_share_the_limits_of_a_whole_rendering() -> None:
    block = "{% for i in (1..100) %}{{ 'x' | append: long | size }}{% endfor %}"
    with pytest.raises(TemplateError, match="too much"):
        compile_template("", block * 20, "").values({"long": "y" * 20_000})
    many = "{% for i in (1..10) %}{{ long }}{% endfor %}"
    assert (
        compile_template("", many * 20, "").values({"long": "y" * 20_000}) is None
    )  # the engine says how it ends
