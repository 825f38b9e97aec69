"""Prefixed ids: sortable, reversible, and clear about what is wrong with one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Invalid
from gateway.model.ids import PLACES, SMALL, Prefix, decode, delivery_ids, encode

NUMBERS = st.integers(0, 2**63 - 1)


@given(NUMBERS, st.sampled_from(Prefix))
def test_reads_back_what_it_wrote(number: int, prefix: Prefix) -> None:
    if prefix in SMALL:
        number >>= 32
    text = encode(prefix, number)
    assert len(text) == len(prefix) + 14
    assert decode(prefix, text) == number


@given(NUMBERS, NUMBERS)
def test_sorts_as_the_numbers_do(one: int, other: int) -> None:
    assert (encode("msg", one) < encode("msg", other)) == (one < other)


@given(st.integers(0, (2**63 - 1) // PLACES - 1), st.integers(0, PLACES))
def test_the_deliveries_of_an_acceptance_are_encoded_together(acceptance: int, count: int) -> None:
    assert delivery_ids(acceptance, count) == [encode("dlv", acceptance * PLACES + i) for i in range(count)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("brd_0000000000001", "begins with msg_"),
        ("0000000000001", "begins with msg_"),
        ("msg_1", "13 characters after msg_, not 1"),
        ("msg_000000000000l", "character 17 of the id is none of"),
        ("msg_000000000000A", "none of"),
        ("msg_8000000000000", "more than 63 bits"),
        ("msg_００００００００００００１", "none of"),
        ("", "begins with"),
    ],
)
def test_says_what_is_wrong_with_an_id(text: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode("msg", text, "/message")
    ((pointer, detail),) = caught.value.errors
    assert pointer == "/message"
    assert says in detail


@pytest.mark.parametrize("prefix", sorted(SMALL))
def test_a_number_that_no_column_has_is_no_id(prefix: Prefix) -> None:
    assert decode(prefix, encode(prefix, 2**31 - 1)) == 2**31 - 1
    with pytest.raises(Invalid, match="more than 31 bits"):
        decode(prefix, encode(prefix, 2**31))


@pytest.mark.parametrize("number", [-1, 2**63])
def test_a_number_without_an_id_is_a_bug(number: int) -> None:
    with pytest.raises(ValueError, match="no id"):
        encode("msg", number)
