"""What stands in an attribute becomes the URL that a browser would ask for, or is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.campaigns.destination import DESTINATION_LIMIT, clean, fingerprint, read_attribute


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("?a=1&amp;b=2", "?a=1&b=2"),
        ("?a=1&b=2", "?a=1&b=2"),
        ("?a=1&section=2&copy=3&lt=4", "?a=1&section=2&copy=3&lt=4"),
        ("?a=1&sect;ion&copy", "?a=1§ion©"),
        ("?a&#38;b&#x26;c&#38d", "?a&b&c&d"),
        ("?a&amp;amp;b&amp=1", "?a&amp;b&amp=1"),
        ("?a&nosuch;b&nosuch", "?a&nosuch;b&nosuch"),
        ("&", "&"),
    ],
)
def test_references_are_read_as_in_attributes(value: str, read: str) -> None:
    assert read_attribute(value) == read


@pytest.mark.parametrize(
    ("url", "cleaned"),
    [
        ("https://x.example/a?b=c&d#e", "https://x.example/a?b=c&d#e"),
        ("HTTP://x.example", "http://x.example"),
        ("  https://x.example/a\n\t b ", "https://x.example/a%20b"),
        ("https://x.example:8080", "https://x.example:8080"),
        ('https://x.example/ü?<">`', "https://x.example/%C3%BC?%3C%22%3E%60"),
        ("https://[2001:db8::1]/", "https://[2001:db8::1]/"),
        ("https://x.example/%zz|{}\\", "https://x.example/%zz|{}\\"),
        ("java\nscript:alert(1)", ""),
        ("javascript:alert('https://x.example')", ""),
        ("//x.example", ""),
        ("https:/x.example", ""),
        ("https://", ""),
        ("https:///x", ""),
        ("https://?x", ""),
        ("https://x.example\\@y.example/", ""),
        ("https://münchen.example/", ""),
        ("https://x y/", ""),
        ("https://x.example/\x00a", ""),
        ("https://x.example/\ud800", ""),
        ("https://x.example/" + "a" * DESTINATION_LIMIT, ""),
        ("https://x.example/" + "ü" * (DESTINATION_LIMIT // 5), ""),
        ("mailto:a@x.example", ""),
        ("#top", ""),
        ("", ""),
    ],
)
def test_only_http_with_a_host_is_tracked(url: str, cleaned: str) -> None:
    assert clean(url) == cleaned


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda rest: "https://x.example/" + rest))
def test_what_is_clean_stays_and_is_fit_for_a_header(url: str) -> None:
    cleaned = clean(url)
    assert clean(cleaned) == cleaned
    assert not cleaned or (cleaned.isascii() and cleaned.isprintable() and not set(cleaned) & set(' "<>`'))


def test_a_fingerprint_is_one_urls() -> None:
    assert fingerprint("https://x.example/a") == fingerprint("https://x.example/a")
    assert fingerprint("https://x.example/a") != fingerprint("https://x.example/b")
