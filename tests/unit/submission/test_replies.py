"""Every error has a code, and no reply can break the protocol or say too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.errors import GatewayError
from gateway.submission.penalties import BURST, Penalties
from gateway.submission.replies import line, reply_to


@pytest.mark.parametrize(
    ("error", "begins"),
    [
        (
            errors.StoreUnavailable("no Postgres answers at gateway@/secret"),
            "451 4.3.0 temporarily unavailable, nothing",
        ),
        (errors.KeySealError("secret"), "451 4.3.0 temporarily unavailable, nothing"),
        (errors.Invalid([("", "no From field")]), "550 5.6.0 no From field"),
        (
            errors.DomainUnverified("a.example is no verified domain"),
            "550 5.7.1 a.example is no verified domain",
        ),
        (errors.QuotaMessages("5000 of 5000 this month"), "452 4.7.1 5000 of 5000"),
        (errors.RateLimited(3), "451 4.7.1 too many requests; try again in 3 s"),
        (errors.Unavailable(3), "451 4.3.0 "),
        (errors.Conflict("x"), "554 5.0.0 x"),
    ],
)
def test_an_error_is_a_reply(error: GatewayError, begins: str) -> None:
    assert reply_to(error).startswith(begins)


@given(st.text(max_size=1_000))
def test_a_reply_is_one_short_line_whatever_it_says(text: str) -> None:
    said = line("550 5.6.0", text)
    assert said.isascii()
    assert said.isprintable()
    assert len(said) <= 510


def test_a_peer_may_be_wrong_for_a_while_and_again_later() -> None:
    penalties = Penalties()
    for _ in range(BURST):
        assert penalties.wait_s("1.2.3.4", 100.0) == 0
        penalties.note("1.2.3.4", 100.0)
    assert penalties.wait_s("1.2.3.4", 100.0) > 0
    assert penalties.wait_s("5.6.7.8", 100.0) == 0
    assert penalties.wait_s("1.2.3.4", 107.0) == 0


def test_many_peers_do_not_fill_the_memory() -> None:
    penalties = Penalties()
    for number in range(30_000):
        penalties.note(str(number), 100.0)
    assert len(penalties._full_at) <= 10_000
