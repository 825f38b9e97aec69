"""An unsubscribe token names its recipient to us alone, for ever, and opens only as it was made."""

from __future__ import annotations

from base64 import urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.campaigns.unsubscribe import OptOut, SealRing
from gateway.model.token import KeyRing, Purpose, Refusal, from_base64url, to_base64url
from gateway.mta.keys import derive_ring

MASTER = b"m" * 32
SEALS = SealRing(derive_ring(MASTER, Purpose.UNSUBSCRIBE))
OPT_OUT = OptOut(site_id=3, list_id=9, delivery_id=2**40, address="somebody@example.org")
OPT_OUTS = st.builds(
    OptOut,
    site_id=st.integers(1, 2**31 - 1),
    list_id=st.integers(0, 2**31 - 1),
    delivery_id=st.integers(0, 2**63 - 1),
    address=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=250),
)


@given(OPT_OUTS, st.integers(0, 65_535))
def test_opens_to_what_was_sealed_and_is_the_same_on_every_attempt(opt_out: OptOut, day: int) -> None:
    token = SEALS.seal(day, opt_out)
    assert SEALS.open(token) == opt_out
    assert SEALS.seal(day, opt_out) == token


@given(OPT_OUTS, st.data())
def test_refuses_any_flipped_bit(opt_out: OptOut, data: st.DataObject) -> None:
    octets = bytearray(from_base64url(SEALS.seal(0, opt_out)) or b"")
    bit = data.draw(st.integers(0, len(octets) * 8 - 1))
    octets[bit // 8] ^= 1 << bit % 8
    expected = Refusal.UNKNOWN_KEY if bit < 8 else Refusal.WRONG_MAC
    assert SEALS.open(to_base64url(bytes(octets))) is expected


@given(st.text(max_size=120))
def test_any_text_is_refused(text: str) -> None:
    assert isinstance(SEALS.open(text), Refusal)


def test_shows_no_address() -> None:
    token = SEALS.seal(0, OPT_OUT)
    octets = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for word in (b"somebody", b"example"):
        assert word not in octets.lower()
        assert word.decode() not in token.lower()
    assert len(token) == 71


def test_is_valid_in_a_url_path() -> None:
    assert not set(SEALS.seal(0, OPT_OUT)) - set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


@pytest.mark.parametrize(
    "ring", [derive_ring(MASTER, Purpose.RESUBSCRIBE), derive_ring(b"n" * 32, Purpose.UNSUBSCRIBE)]
)
def test_another_purposes_key_and_another_gateways_do_not_open_it(ring: KeyRing) -> None:
    assert SealRing(ring).open(SEALS.seal(0, OPT_OUT)) is Refusal.WRONG_MAC


def test_keys_rotate_and_old_links_still_work() -> None:
    rotated = SealRing(derive_ring(MASTER, Purpose.UNSUBSCRIBE, {1: 0, 2: 100, 3: 200}))
    assert rotated.open(SEALS.seal(99, OPT_OUT)) == OPT_OUT
    assert rotated.seal(99, OPT_OUT) == SEALS.seal(99, OPT_OUT)
    newest = rotated.seal(200, OPT_OUT)
    assert rotated.open(newest) == OPT_OUT
    assert SEALS.open(newest) is Refusal.UNKNOWN_KEY
