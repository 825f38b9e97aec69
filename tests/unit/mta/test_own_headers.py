"""A name that is the gateway's is refused however it is spelled, and the refusal says which names are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Invalid
from gateway.mta.own_headers import OWN_NAMES, OWN_PREFIXES, check_foreign, is_own

NAMES = [*OWN_NAMES, *(f"{prefix}Anything" for prefix in OWN_PREFIXES)]


@given(st.sampled_from(NAMES), st.lists(st.booleans(), min_size=40, max_size=40))
def test_a_name_of_ours_is_refused_in_any_case(name: str, upper: list[bool]) -> None:
    spelled = "".join([c.upper() if up else c.lower() for c, up in zip(name, upper, strict=False)])
    with pytest.raises(Invalid) as caught:
        check_foreign(spelled, f"/headers/{spelled}")
    [(pointer, detail)] = caught.value.errors
    assert pointer == f"/headers/{spelled}"
    assert detail.startswith(f"{spelled} is set by the gateway alone")
    assert all(own in detail for own in (*OWN_NAMES, *OWN_PREFIXES))


@pytest.mark.parametrize(
    "name",
    ["X-Note", "In-Reply-To", "References", "List-ID", "List-Help", "Auto-Submitted", "Precedence", "X-Feedback-ID", "X-Gateway", "Importance"],
)  # fmt: skip
def test_any_other_name_is_the_sites(name: str) -> None:
    assert not is_own(name)
    check_foreign(name, "/headers/0")
