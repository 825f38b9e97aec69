"""Templates fill in what they are given, escape it, and cannot run away."""

import re
import time
import tracemalloc
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.campaigns.pieces import joined
from gateway.campaigns.render import _HTML, Rendered, compile_template  # pyright: ignore[reportPrivateUsage]
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


LETTERS = "{% assign a = 'aaaaaaaaaa' %}{% for i in (1..14) %}{% assign a = a | append: a %}{% endfor %}"
"""Sets `a` to 163,840 letters."""
RUNS_AWAY = {
    "a loop": "{% for i in (1..1000000000) %}x{% endfor %}",
    "nested loops": "{% for i in (1..1000) %}{% for j in (1..1000) %}x{% endfor %}{% endfor %}",
    "loops one after the other": "{% for i in (1..10000) %}{% endfor %}" * 2_000,
    "loops in a loop": "{% for i in (1..100) %}"
    + "{% for j in (1..100) %}{% if j %}{% endif %}{% endfor %}" * 1_000
    + "{% endfor %}",
    "many tags in a loop": "{% for i in (1..10000) %}" + "{% if i %}{% endif %}" * 4_000 + "{% endfor %}",
    "a block that comes twice, in one that comes twice": "{% case 1 %}{% when 1, 1 %}" * 45
    + "{% endcase %}" * 45,
    "a block that comes a thousand times, in one that does": "{% case 1 %}{% when " + "1," * 900 + " 1 %}"
    "{% case 1 %}{% when " + "1," * 900 + " 1 %}x{% endcase %}{% endcase %}",
    "a tablerow": "{% tablerow i in (1..10000) cols: 1 %}{% for j in (1..10000) %}{% endfor %}{% endtablerow %}",
    "an offset": "{% for i in (1..1000000000) offset: 999999990 %}x{% endfor %}",
    "a range backwards": "{% for i in (1..1000000000) reversed limit: 1 %}x{% endfor %}",
    "a range that is looked through": "{% if (1..1000000000) contains 'x' %}x{% endif %}",
    "a range in a name": "{% assign r = (1..1000000000) %}{% if r contains 'x' %}x{% endif %}",
    "a range of text": "{{ (1..1000000000) | join: 'x' }}",
    "a huge range": "{{ (1..100000000000000000000000000000) | size }}",
    "an operand for each letter": "{% for i in (1..10000) %}{% if "
    + "i or " * 700
    + "i %}{% endif %}{% endfor %}",
    "an elsif for each letter, in a loop": "{% for i in (1..10000) %}{% if nothing %}"
    + "{% elsif nothing %}" * 400
    + "{% endif %}{% endfor %}",
    "an elsif for each letter": "{% if a %}" + "{% elsif a %}" * 5_000 + "{% endif %}",
    "growing text": "{% assign x = 'aaaaaaaaaa' %}{% for i in (1..50) %}{% assign x = x | append: x %}{% endfor %}",
    "growing captures": "{% capture x %}aaaaaaaaaa{% endcapture %}"
    "{% for i in (1..50) %}{% capture x %}{{ x }}{{ x }}{% endcapture %}{% endfor %}",
    "growing numbers": "{% assign x = 9999999999 %}{% for i in (1..60) %}{% assign x = x | times: x %}{% endfor %}{{ x }}",
    "growing by replacing": "{{ 'aaaaaaaaaa' " + "| replace: 'a', 'aaaaaaaaaa' " * 12 + "}}",
    "replacing by name": LETTERS + "{{ a | replace: seq: 'a', sub: a }}",
    "joining by name": LETTERS + "{{ big | split: '' | join: separator: a }}",
    "joining with a long text": "{% assign a = 'a,' %}{% for i in (1..16) %}{% assign a = a | append: a %}{% endfor %}"
    "{{ a | split: ',' | join: a }}",
    "a list of the same long text": LETTERS + "{% assign l = a | split: ',' %}"
    "{% for i in (1..13) %}{% assign l = l | concat: l %}{% endfor %}{{ l }}",
    "that list, joined": "{% assign l = big | split: ',' %}{% for i in (1..10) %}{% assign l = l | concat: l %}{% endfor %}{{ l | join }}",
    "that list, as text": "{% assign l = big | split: ',' %}{% for i in (1..10) %}{% assign l = l | concat: l %}{% endfor %}{{ l | upcase }}",
    "filters": "{% assign a = 'abcdefghij' %}{% for i in (1..13) %}{% assign a = a | append: a %}{% endfor %}"
    "{% for i in (1..9999) %}{% assign b = a | upcase | escape | downcase %}{% endfor %}",
    "small filters": "{% for i in (1..10000) %}{{ i" + " | plus: 1" * 300 + " }}{% endfor %}",
    "output": "{% for i in (1..9999) %}{{ big }}{% endfor %}",
    "output that never comes out": "{% for i in (1..9999) %}{% capture x %}{{ big }}{{ big }}{% endcapture %}{% endfor %}",
    "looking for a text": "{% for i in (1..9999) %}{% if big contains 'y' or big contains 'z' %}x{% endif %}{% endfor %}",
    "looking for a text in the template": "{% for i in (1..9999) %}{% if '"
    + "x" * 3_900
    + "' contains 'y' %}x{% endif %}{% endfor %}",
    "comparing lists": "{% assign l = big | split: '' | sort %}{% assign k = big | split: '' | reverse %}"
    "{% for i in (1..9999) %}{% if l == k %}{% endif %}{% endfor %}",
    "each with each": "{% assign l = many | split: ',' %}{% for i in (1..100) %}{% assign x = l | uniq %}{% endfor %}",
    "HTML without end": "{% for i in (1..100) %}{{ tags | strip_html }}{% endfor %}",
    "a long date": "{{ big | date: '%Y' }}",
    "a long format": "{{ 'now' | date: big }}",
    "nesting": "{% if a %}" * 200 + "{% endif %}" * 200,
    "nesting in a liquid tag": "{% liquid\n" + "if a\n" * 200 + "endif\n" * 200 + "%}",
    "tags within a liquid tag": "{% liquid\nfor i in (1..10000)\n" + "echo nothing\n" * 250 + "endfor\n%}",
    "long paths": "{% for i in (1..10000) %}{{ a" + ".b" * 1_900 + " }}{% endfor %}",
    "nested brackets": "{{ " + "a[" * 1_300 + "a" + "]" * 1_300 + " }}",
    "much code": "{{ a }}" * 20_000,
    "a long source": "{{ a }}" + "x" * 1_500_000,
    "output without end": "{{ " * 300_000,
    "tags without end": "{% x " * 200_000,
    "a comment of output without end": "{% comment %}" + "{{ " * 300_000 + "{% endcomment %}",
    "a comment of raw without end": "{% comment %}" + "{% raw %}" * 100_000 + "{% endcomment %}",
    "a comment of tags without end": "{% comment %}" + "{% x " * 200_000,
    "white space without end": "{{" + " " * 999_990,
    "white space in a liquid tag": "{% liquid\n" + ("echo a" + " " * 3_900 + "b\n") * 20 + "%}",
    "brackets and quotes without end": "{{ " + '["a' * 1_200 + " }}" + "{{ " + "(" * 3_900 + " }}",
}


GROWS = tuple(
    name
    for name in RUNS_AWAY
    if re.search("grow|list|replacing|joining|text|captures|output that|each with", name)
)


def run_away(name: str) -> None:
    with pytest.raises(TemplateError) as caught:
        html(
            RUNS_AWAY[name], big="x" * 10_000, many="x,".join(map(str, range(9_000))), tags="<a" * 9_000 + ">"
        )
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", RUNS_AWAY)
def test_a_template_that_runs_away_is_stopped_soon(name: str) -> None:
    started = time.process_time()
    run_away(name)
    assert time.process_time() - started < 5.0, (
        "half a second on a fast machine; without limits minutes, or for ever"
    )


@pytest.mark.parametrize("name", GROWS)
def test_a_template_that_makes_much_of_little_is_stopped_while_it_is_small(name: str) -> None:
    tracemalloc.start()
    try:
        run_away(name)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 32_000_000


def test_what_a_newsletter_needs_is_far_from_the_limits() -> None:
    items = "{% for item in items %}<tr><td>{{ item.name | escape | truncate: 60 }}</td><td>{{ item.price | times: 1.19 | round: 2 }}</td>"
    items += "<td>{% if item.stock > 10 %}plenty{% elsif item.stock > 0 %}few{% else %}none{% endif %}</td></tr>{% endfor %}"
    source = ("<table>" + "static text " * 2_000 + "</table>" + items + "{{ name | default: 'friend' }}") * 5
    shown = html(
        source, items=[{"name": f"Item {i}", "price": i, "stock": i % 20} for i in range(500)], name="Ann"
    )
    assert shown.count("<tr>") == 2_500


ESCAPES = (
    "{{ x.__class__ }}", "{{ x.__class__.__mro__ }}", "{{ x['__class__'] }}", "{{ x[key] }}", "{{ x.upper }}", "{{ x.secret }}",
    "{{ x.format }}", "{{ x | map: '__class__' }}", "{{ x | where: '__class__' }}", "{{ x | find: '__init__' }}", "{{ x | sum: '__class__' }}",
    "{{ x | first }}", "{{ x | last }}", "{{ self }}", "{{ context }}", "{{ environment }}", "{{ globals }}", "{{ locals }}", "{{ template }}",
    "{{ __builtins__ }}", "{{ _ }}", "{{ env.PATH }}", "{{ config }}", "{{ partial.__class__ }}", "{{ now.__class__ }}", "{{ now.tzinfo }}",
    "{% for i in (1..1) %}{{ forloop.__class__ }}{{ forloop.it }}{{ forloop.item }}{{ forloop['__dict__'] }}{{ forloop.step }}{% endfor %}",
    "{% for i in (1..1) %}{% for j in (1..1) %}{{ forloop.parentloop.__class__ }}{{ forloop.parentloop.it }}{% endfor %}{% endfor %}",
    "{% tablerow i in none %}{{ tablerowloop.it }}{% endtablerow %}", "{% for i in x %}{{ i.__class__ }}{% endfor %}",
    "{% assign y = x %}{{ y.__class__ }}{{ y.__dict__ }}", "{% capture y %}a{% endcapture %}{{ y.__html__ }}{{ y.__class__ }}",
    "{{ '{0.__class__}' | append: '' | replace: '{0.__class__}', '' }}", "{{ x | default: x | size | minus: 4 | at_most: 0 | replace: '0', '' }}",
)  # fmt: skip


class Thing:
    """What no caller should hand in."""

    secret = "s"


@pytest.mark.parametrize("source", ESCAPES)
def test_no_attribute_can_be_reached(source: str) -> None:
    for value in ("text", Thing(), {"a": 1}, ["text"], None):
        try:
            shown = html(source, x=value, key="__class__", none=[])
        except TemplateError:
            continue
        assert not {"class", "object", "method", "function", "0x", "secret"} & set(
            shown.replace("<", " ").split()
        ), shown
        assert "__" not in shown


LOADS = ("include 'x'", "render 'x'", "include x", "extends '/etc/passwd'", "import 'os' as os", "from 'x' import y", "macro m", "call m",
         "block b", "snippet s", "load x", "python", "with a: 1", "translate", "paginate x by 1", "layout 'x'", "section 'x'", "inline_file 'x'")  # fmt: skip


@pytest.mark.parametrize("tag", LOADS)
def test_no_tag_loads_anything(tag: str) -> None:
    for source in (
        f"{{% {tag} %}}",
        f"{{% liquid\n{tag}\n%}}",
        f"{{% if true %}}{{%- {tag} -%}}{{% endif %}}",
    ):
        with pytest.raises(TemplateError):
            html(source, x="/etc/passwd")


HTML_FILTERS = tuple(sorted(_HTML.filters))
HOSTILE_TEXT = "<script>alert('\"&amp;')</script>"


@settings(max_examples=400, deadline=None)
@given(
    chain=st.lists(st.tuples(st.sampled_from(HTML_FILTERS), st.lists(st.sampled_from(["v", "'<i>'", "'%s'", "1", "w", "'n'"]), max_size=2)), max_size=3),
    shape=st.sampled_from(["{{ v%s }}", "{%% assign x = v%s %%}{{ x }}", "{%% capture x %%}{{ v%s }}{%% endcapture %%}{{ x }}",
                           "{%% for i in w%s %%}{{ i }}{{ i[0] }}{%% endfor %%}", "{%% cycle v, w %%}{{ w%s }}", "{{ o%s }}{{ o.n }}"]),
)  # fmt: skip
@example(chain=[("newline_to_br", [])], shape="{{ v%s }}")
@example(chain=[("strip_newlines", [])], shape="{{ v%s }}")
@example(chain=[("url_encode", []), ("url_decode", [])], shape="{{ v%s }}")
@example(chain=[("base64_encode", []), ("base64_decode", [])], shape="{{ v%s }}")
@example(chain=[("escape", []), ("escape_once", [])], shape="{{ v%s }}")
@example(chain=[("prepend", ["'<i>'"]), ("strip_html", [])], shape="{{ v%s }}")
@example(chain=[("split", ["' '"]), ("join", ["'<i>'"])], shape="{{ v%s }}")
def test_no_filter_lets_a_variable_out_of_its_place(chain: list[tuple[str, list[str]]], shape: str) -> None:
    filters = "".join(f" | {name}: {', '.join(args)}" if args else f" | {name}" for name, args in chain)
    try:
        shown = html(shape % filters, v=HOSTILE_TEXT, w=[HOSTILE_TEXT, "<b"], o={"n": HOSTILE_TEXT})
    except TemplateError:
        return
    assert "<script" not in shown
    assert "</script" not in shown


class Engine(NamedTuple):
    """A template at which the engine fails, and what it says then."""

    source: str
    says: str


@pytest.mark.parametrize(
    "engine",
    [
        Engine(
            "{% assign a = '%00%0A' | url_decode | split: ',' %}{{ a | uniq: 'k' }}", "can't read property"
        ),
        Engine("{% assign a = v | split: ',' %}{{ a | uniq: 'k' }}", "can't read property"),
        Engine("{{ '9999999999999999' | date: '%Y' }}", "year"),
        Engine("{{ '4611686018427387904' | date: '%Y' }}", ""),
        Engine("{{ 'Infinity' | times: 1.5 | floor }}", ""),
        Engine("{{ 'a' | base64_decode }}", ""),
        Engine("{{ 4611686018427387904 | date: '%Y' | append: 'x' | divided_by: '0' }}", ""),
    ],
)
def test_whatever_the_engine_says_becomes_one_short_line(engine: Engine) -> None:
    with pytest.raises(TemplateError) as caught:
        html(engine.source, v="secret" * 1_000)
    assert caught.value.part == "html"
    assert "secret" not in str(caught.value)
    assert engine.says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


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
