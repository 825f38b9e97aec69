"""A pattern that could take long is refused before it is run; what passes is fast on the worst of texts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mta.pattern_cost import PatternRefused, require_cheap
from gateway.mta.reply import TEXT_LIMIT


@pytest.mark.parametrize(
    "pattern",
    [
        "blocked",
        r"^IP=[\d.:a-f]{2,45} - a problem",
        r"too many (?:messages|connections) from .{0,40}\bhost",
        "user .+ unknown",
        r"\bOFR_\d{3}\b",
        r"(?<!not )listed(?! here)(?=.)",
        r"[]a\]]{3}x{,5}\(a+\)",
        "a{x}b{}",
        "(?:spam|junk){1}",
        r"(?:retry )?later??",
        "(abc){2,5}",
        "",
        "|",
    ],
)
def test_what_rules_need_passes(pattern: str) -> None:
    require_cheap(pattern)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(a+)+$", "write it without the outer repeat"),
        ("(?:a|aa)*b", "write it without the outer repeat"),
        ("(?:a?){9}b", "write it without the outer repeat"),
        ("((a{2,3}))*", "write it without the outer repeat"),
        ("(?:a{,}){2}", "write it without the outer repeat"),
        (".*x.*y", "write narrow bounds"),
        (r"\d+ of \d+", "write narrow bounds"),
        (".{0,200}.{0,200}x", "write narrow bounds"),
        (r"[^]+]*[*]+x", "write narrow bounds"),
        ("a{1,}?b*+c", "write narrow bounds"),
        ("a?" * 20, "write narrow bounds"),
        ("(?:a|a)" * 15, "write narrow bounds"),
        (".*" + "a" * 150, "write narrow bounds"),
        ("(?:a{1000}){1000}", "write narrow bounds"),
        ("(?i:a)", "only (?:…)"),
        ("(?P<name>a)", "only (?:…)"),
        ("(?#x)a", "only (?:…)"),
        ("(?>a+)", "only (?:…)"),
        ("(blocked", "no regular expression: missing )"),
        ("*", "no regular expression: nothing to repeat"),
        (r"a{99999999999999999999}", "no regular expression"),
        (r"\q", "no regular expression: bad escape"),
    ],
)
def test_what_is_wrong_or_slow_is_refused_with_a_way_out(pattern: str, says: str) -> None:
    with pytest.raises(PatternRefused, match=re.escape(says)):
        require_cheap(pattern)


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # sets within sets are taken as they are now
@given(st.text("a.b|()[]{}^\\*+?,:=!<0123x", max_size=40))
def test_any_text_is_read_or_refused(pattern: str) -> None:
    try:
        require_cheap(pattern)
    except PatternRefused:
        return
    re.compile(pattern, re.IGNORECASE)


@given(st.text("ab.|()*+?{2}1,", max_size=30))
def test_what_passes_ends_on_a_text_made_to_hold_it_up(pattern: str) -> None:
    try:
        require_cheap(pattern)
    except PatternRefused:
        return
    re.search(f"(?:{pattern})x", "a" * TEXT_LIMIT, re.IGNORECASE)  # would hang the run
