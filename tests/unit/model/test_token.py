"""Tokens: what one key made, no other takes, and no changed bit passes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.token import (
    LEAST_MAC_BYTES,
    LIFETIME_DAYS,
    MAC_LIMIT_BYTES,
    Key,
    KeyRing,
    Purpose,
    Refusal,
    day_of,
    from_base32,
    from_base64url,
    is_expired,
    to_base32,
    to_base64url,
)

SECRET, OTHER = b"k" * 32, b"o" * 32
BODIES = st.binary(min_size=1, max_size=60)
MACS = st.integers(LEAST_MAC_BYTES, MAC_LIMIT_BYTES)


def ring(purpose: Purpose = Purpose.VERP, *keys: Key) -> KeyRing:
    return KeyRing(purpose, keys or [Key(1, SECRET)])


@given(BODIES, MACS)
def test_reads_back_what_it_issued(body: bytes, mac_bytes: int) -> None:
    token = ring().issue(0, body, mac_bytes)
    assert len(token) == 1 + len(body) + mac_bytes
    assert ring().check(token, mac_bytes) == body


@given(BODIES, MACS, st.data())
def test_refuses_any_flipped_bit(body: bytes, mac_bytes: int, data: st.DataObject) -> None:
    token = bytearray(ring().issue(0, body, mac_bytes))
    bit = data.draw(st.integers(0, len(token) * 8 - 1))
    token[bit // 8] ^= 1 << bit % 8
    assert ring().check(bytes(token), mac_bytes) is (Refusal.UNKNOWN_KEY if bit < 8 else Refusal.WRONG_MAC)


@given(BODIES, st.binary(max_size=20), MACS)
def test_refuses_the_mac_of_another_body(body: bytes, more: bytes, mac_bytes: int) -> None:
    token = ring().issue(0, body, mac_bytes)
    other = ring().issue(0, body + b"x" + more, mac_bytes)
    forged = other[:-mac_bytes] + token[-mac_bytes:]
    assert ring().check(forged, mac_bytes) is Refusal.WRONG_MAC


@pytest.mark.parametrize("purpose", list(Purpose))
def test_refuses_what_was_made_for_another_purpose_even_with_the_same_secret(purpose: Purpose) -> None:
    token = ring(purpose).issue(0, b"body", 10)
    taken = [other for other in Purpose if ring(other).check(token, 10) == b"body"]
    assert taken == [purpose]


def test_refuses_another_secret_and_an_unknown_key() -> None:
    token = ring().issue(0, b"body", 10)
    assert ring(Purpose.VERP, Key(1, OTHER)).check(token, 10) is Refusal.WRONG_MAC
    assert ring(Purpose.VERP, Key(2, SECRET)).check(token, 10) is Refusal.UNKNOWN_KEY
    assert ring().check(token[:10], 10) is Refusal.MALFORMED


def test_a_rotated_ring_takes_what_the_old_key_made_and_issues_the_same_for_the_same_day() -> None:
    old = ring(Purpose.VERP, Key(1, SECRET))
    rotated = ring(Purpose.VERP, Key(2, OTHER, since_day=100), Key(1, SECRET))
    before, after = rotated.issue(99, b"body", 10), rotated.issue(100, b"body", 10)
    assert before == old.issue(99, b"body", 10)
    assert (before[0], after[0]) == (1, 2)
    assert rotated.check(before, 10) == rotated.check(after, 10) == b"body"
    assert old.check(after, 10) is Refusal.UNKNOWN_KEY


def test_the_oldest_key_serves_days_before_its_own() -> None:
    keys = ring(Purpose.VERP, Key(1, SECRET, since_day=50), Key(2, OTHER, since_day=60))
    assert [keys.key_of(day).id for day in (0, 50, 59, 60, 99)] == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "keys",
    [[], [Key(0, SECRET)], [Key(256, SECRET)], [Key(1, b"short")], [Key(1, SECRET), Key(1, OTHER, since_day=1)]],
)  # fmt: skip
def test_says_what_is_wrong_with_a_ring(keys: list[Key]) -> None:
    with pytest.raises(ValueError, match="verp: "):
        KeyRing(Purpose.VERP, keys)


def test_a_key_does_not_show_its_secret() -> None:
    assert "kkk" not in repr(Key(1, SECRET))


def test_every_purpose_has_a_lifetime_and_a_name_that_the_hash_can_hold() -> None:
    assert set(LIFETIME_DAYS) == set(Purpose)
    assert max(len(purpose) for purpose in Purpose) <= 16


def test_days_are_those_of_utc() -> None:
    assert day_of(datetime(1970, 1, 2, 0, 30, tzinfo=UTC)) == 1
    assert day_of(datetime(1970, 1, 2, 0, 30, tzinfo=timezone(timedelta(hours=2)))) == 0
    with pytest.raises(ValueError, match="aware"):
        day_of(datetime(1970, 1, 2))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("purpose", "last_day"),
    [(Purpose.VERP, 30), (Purpose.FBL, 180), (Purpose.UNSUBSCRIBE, None), (Purpose.CLICK, None)],
)
def test_expires_after_its_lifetime_or_never(purpose: Purpose, last_day: int | None) -> None:
    if last_day is None:
        assert not is_expired(purpose, 0, 100_000)
    else:
        assert not is_expired(purpose, 1_000, 1_000 + last_day)
        assert is_expired(purpose, 1_000, 1_001 + last_day)
    assert not is_expired(purpose, 1_001, 1_000)


@given(st.binary(max_size=20).map(lambda raw: raw * 5))
def test_base32_reads_back_in_any_case(raw: bytes) -> None:
    text = to_base32(raw)
    assert text == text.lower()
    assert from_base32(text) == from_base32(text.upper()) == raw


@given(st.binary(max_size=60))
def test_base64url_reads_back(raw: bytes) -> None:
    assert from_base64url(to_base64url(raw)) == raw


@given(st.text(max_size=40))
def test_any_text_is_octets_or_none(text: str) -> None:
    octets = from_base64url(text)
    assert octets is None or to_base64url(octets) == text
    octets = from_base32(text)
    assert octets is None or to_base32(octets) == text.lower()


@pytest.mark.parametrize(
    "text", ["AB", "A", "AAB", "AA==", "AA=", "A+/A", "AA A", "AAA\n", "ä" * 4, "A" * 5_000]
)
def test_base64url_has_one_spelling(text: str) -> None:
    assert from_base64url(text) is None


@pytest.mark.parametrize(
    "text", ["aaaaaa==", "aaaaaaa", "aaaaaaa1", "aaaaaaa\n", "ａａａａａａａａ", "aaaa aaa"]
)
def test_base32_is_letters_and_digits_alone(text: str) -> None:
    assert from_base32(text) is None
