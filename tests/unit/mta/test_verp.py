"""Local parts that come back are joined to their delivery, or refused by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.address import parse
from gateway.model.token import Purpose, Refusal, day_of
from gateway.mta.keys import derive_ring
from gateway.mta.verp import LETTERS, Returned, local_part, read_local_part, read_token, token

MASTER = b"m" * 32
RINGS = {purpose: derive_ring(MASTER, purpose) for purpose in LETTERS}
ACCEPTED_AT = datetime(2026, 11, 26, 23, 59, tzinfo=UTC)
IDS = st.integers(0, 2**63 - 1)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(IDS, MOMENTS, st.sampled_from(list(LETTERS)))
def test_reads_back_what_it_wrote_in_any_case(
    delivery_id: int, accepted_at: datetime, purpose: Purpose
) -> None:
    local = local_part(RINGS[purpose], delivery_id, accepted_at)
    expected = Returned(purpose, delivery_id, day_of(accepted_at))
    assert read_local_part(RINGS, local, accepted_at) == expected
    assert read_local_part(RINGS, local.upper(), accepted_at) == expected


@given(IDS, MOMENTS)
def test_is_a_local_part_that_any_server_takes(delivery_id: int, accepted_at: datetime) -> None:
    local = local_part(RINGS[Purpose.VERP], delivery_id, accepted_at)
    assert len(local) == 42
    assert local == local.lower()
    assert parse(f"{local}@rp.example.org").local == local


@given(IDS, MOMENTS, st.integers(0, 41), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567-=@ é"))
def test_refuses_any_changed_character(
    delivery_id: int, accepted_at: datetime, position: int, instead: str
) -> None:
    local = local_part(RINGS[Purpose.VERP], delivery_id, accepted_at)
    changed = local[:position] + instead + local[position + 1 :]
    read = read_local_part(RINGS, changed, accepted_at)
    assert isinstance(read, Refusal) != (changed == local)


def test_is_the_same_on_every_attempt() -> None:
    day_after = ACCEPTED_AT.replace(hour=0, minute=1)
    assert local_part(RINGS[Purpose.VERP], 7, ACCEPTED_AT) == local_part(RINGS[Purpose.VERP], 7, day_after)


@pytest.mark.parametrize(("purpose", "days"), [(Purpose.VERP, 30), (Purpose.FBL, 180), (Purpose.REPLY, 365)])
def test_expires_after_its_days(purpose: Purpose, days: int) -> None:
    local = local_part(RINGS[purpose], 7, ACCEPTED_AT)
    assert isinstance(read_local_part(RINGS, local, ACCEPTED_AT + timedelta(days=days)), Returned)
    assert read_local_part(RINGS, local, ACCEPTED_AT + timedelta(days=days + 1)) is Refusal.EXPIRED


def test_unsubscription_by_mail_never_expires() -> None:
    local = local_part(RINGS[Purpose.UNSUBSCRIBE_MAIL], 7, ACCEPTED_AT)
    assert isinstance(read_local_part(RINGS, local, ACCEPTED_AT + timedelta(days=20_000)), Returned)


def test_a_letter_put_before_another_purposes_token_is_refused() -> None:
    verp = local_part(RINGS[Purpose.VERP], 7, ACCEPTED_AT)
    assert read_local_part(RINGS, "f" + verp[1:], ACCEPTED_AT) is Refusal.WRONG_MAC


def test_another_deliverys_mac_is_refused() -> None:
    one, other = (local_part(RINGS[Purpose.VERP], delivery, ACCEPTED_AT) for delivery in (7, 8))
    # 16 characters hold key id, delivery and the first half of the day.
    assert read_local_part(RINGS, one[:18] + other[18:], ACCEPTED_AT) is Refusal.WRONG_MAC


def test_keys_rotate_and_what_is_under_way_still_comes_back() -> None:
    rotated = {
        Purpose.VERP: derive_ring(MASTER, Purpose.VERP, {1: 0, 2: day_of(ACCEPTED_AT) + 1}),
    }
    before = local_part(rotated[Purpose.VERP], 7, ACCEPTED_AT)
    after = local_part(rotated[Purpose.VERP], 7, ACCEPTED_AT + timedelta(days=1))
    assert before == local_part(RINGS[Purpose.VERP], 7, ACCEPTED_AT)
    assert isinstance(read_local_part(rotated, before, ACCEPTED_AT), Returned)
    assert isinstance(read_local_part(rotated, after, ACCEPTED_AT), Returned)
    assert read_local_part(RINGS, after, ACCEPTED_AT) is Refusal.UNKNOWN_KEY


@pytest.mark.parametrize(
    "local", ["", "b", "b-", "b-dlv_0000000000001", "postmaster", "x-" + "a" * 40, "b_" + "a" * 40, "b-" + "a" * 48]
)  # fmt: skip
def test_what_is_no_token_is_malformed(local: str) -> None:
    assert read_local_part(RINGS, local, ACCEPTED_AT) is Refusal.MALFORMED


def test_a_purpose_without_ring_is_malformed() -> None:
    reply = local_part(RINGS[Purpose.REPLY], 7, ACCEPTED_AT)
    assert read_local_part({Purpose.VERP: RINGS[Purpose.VERP]}, reply, ACCEPTED_AT) is Refusal.MALFORMED


def test_the_token_alone_reads_back_too() -> None:
    day = day_of(ACCEPTED_AT)
    assert read_token(RINGS[Purpose.FBL], token(RINGS[Purpose.FBL], 7, day), ACCEPTED_AT) == Returned(
        Purpose.FBL, 7, day
    )
