"""The table of a delivery's states: it knows them all, and a refusal names where one may go instead."""

from __future__ import annotations

import pytest

from gateway.model.delivery import ENDED, OPEN, TRANSITIONS, Action, DeliveryState, refuse


def test_every_state_is_in_the_table_and_only_late_news_leads_on_from_an_end() -> None:
    assert set(TRANSITIONS) == set(DeliveryState) == OPEN | ENDED
    assert {state for state in ENDED if TRANSITIONS[state]} == {
        "delivered",
        "unresolved",
        "expired",
        "cancelled",
    }
    assert all(set(after) & ENDED for state, after in TRANSITIONS.items() if state in OPEN)


@pytest.mark.parametrize(
    ("states", "action", "current", "wanted", "allowed"),
    [
        (["delivered"], "cancel", "delivered", "cancelled", ("bounced",)),
        (["cancelled", "cancelled"], "cancel", "cancelled", "cancelled", ("delivered",)),
        (["in_doubt"], "cancel", "in_doubt", "cancelled", ("queued", "delivered", "unresolved")),
        (["expired", "in_doubt"], "hold", "in_doubt, expired", "held", ("queued", "delivered", "unresolved")),
        (["deferred"], "release", "deferred", "queued", ("held", "expired", "cancelled")),
    ],
)
def test_a_refusal_names_where_it_may_go_instead(
    states: list[str], action: str, current: str, wanted: str, allowed: tuple[str, ...]
) -> None:
    refusal = refuse(states, Action(action))
    assert (refusal.current, refusal.wanted, refusal.allowed) == (current, wanted, allowed)
