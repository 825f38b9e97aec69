"""Bodies into Structs: what is wrong is pointed at."""

from __future__ import annotations

import msgspec
import pytest

from gateway.api.decode import decode, explain
from gateway.api.errors import Malformed
from gateway.api.keys import NewKey
from gateway.api.submission import MessageBody
from gateway.errors import Invalid

DECODER = msgspec.json.Decoder(MessageBody)


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        (b'{"from": 1, "to": "a@b.example"}', "/from", "got int"),
        (b'{"to": "a@b.example"}', "/from", "required"),
        (b'{"from": "a@b.example", "to": []}', "/to", "length >= 1"),
        (b'{"from": "a@b.example", "to": ["a@b.example", 7]}', "/to/1", "got int"),
        (
            b'{"from": "a@b.example", "to": [{"email": "a@b.example", "nam": ""}]}',
            "/to/0/nam",
            "unknown field",
        ),
        (b'{"from": "a@b.example", "to": "x", "headers": {"A": 1}}', "/headers", "got int"),
        (
            b'{"from": "a@b.example", "to": "x", "stream": "bulk"}',
            "/stream",
            "'bulk' is not possible; expected transactional, marketing",
        ),
        (b'{"from": "a@b.example", "to": "x", "send_at": "2026-01-01T00:00:00"}', "/send_at", "timezone"),
        (b'{"from": "a@b.example", "to": "x", "subject": "a\\u0000b"}', "/subject", "NUL"),
        (
            b'{"from": "a@b.example", "to": "x", "variables": {"a": [{"b": "\\u0000"}]}}',
            "/variables/a/0/b",
            "NUL",
        ),
        (b"[]", "", "expected object"),
    ],
)
def test_points_at_what_is_wrong(body: bytes, pointer: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode(body, DECODER)
    ((at, detail),) = caught.value.errors
    assert at == pointer
    assert says in detail


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a': 1}", b"\xff", b'"\xff"', b'{"from": "\\ud800"}', b"[" * 100_000]
)
def test_what_is_not_json_is_called_so(body: bytes) -> None:
    with pytest.raises((Malformed, Invalid)):
        decode(body, DECODER)


def test_a_word_that_is_not_possible_names_those_that_are() -> None:
    with pytest.raises(Invalid) as caught:
        decode(b'{"scopes": ["read", "all"]}', msgspec.json.Decoder(NewKey))
    assert caught.value.errors == (
        ("/scopes/1", "'all' is not possible; expected admin, campaigns, contacts, read, send"),
    )


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    body = b'{"from": "a@b.example", "to": "x", "subject": "\\\\u0000"}'
    assert decode(body, DECODER).subject == "\\u0000"


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        ("Expected `str`, got `int` - at `$.to[0].email`", "/to/0/email"),
        ("Object contains unknown field `a/b` - at `$.to[0]`", "/to/0/a~1b"),
        ("Object missing required field `from`", "/from"),
        ("Expected `array`, got `null`", ""),
    ],
)
def test_reads_the_words_of_msgspec(message: str, pointer: str) -> None:
    assert explain(message)[0] == pointer
