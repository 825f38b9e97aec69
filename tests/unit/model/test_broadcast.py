"""The life of a broadcast: every pair of state and action leads where the table says, or is refused by name."""

from __future__ import annotations

import itertools

import pytest

from gateway.errors import InvalidTransition
from gateway.model.broadcast import Action, BroadcastState, actions, need_draft, transition


@pytest.mark.parametrize(
    ("current", "action", "after"),
    [
        ("draft", "send", "preparing"),
        ("scheduled", "send", "preparing"),
        ("preparing", "expand", "sending"),
        ("sending", "pause", "paused"),
        ("paused", "resume", "sending"),
        ("sending", "complete", "completed"),
        ("draft", "cancel", "cancelled"),
        ("draft", "schedule", "scheduled"),
        ("scheduled", "schedule", "scheduled"),
        ("scheduled", "fail", "failed"),
        ("paused", "cancel", "cancelled"),
    ],
)
def test_the_table_leads_on(current: str, action: str, after: str) -> None:
    assert transition(BroadcastState(current), Action(action)) == after


@pytest.mark.parametrize(("current", "action"), list(itertools.product(BroadcastState, Action)))
def test_what_is_not_in_the_table_is_refused_and_names_what_is(
    current: BroadcastState, action: Action
) -> None:
    if action in actions(current):
        assert transition(current, action) in BroadcastState
        return
    with pytest.raises(InvalidTransition) as caught:
        transition(current, action)
    assert caught.value.current == current
    assert set(caught.value.allowed) == {transition(current, option) for option in actions(current)}


@pytest.mark.parametrize("ended", ["completed", "cancelled", "failed"])
def test_nothing_leads_on_from_an_end(ended: str) -> None:
    assert actions(BroadcastState(ended)) == ()


def test_only_a_draft_is_changed() -> None:
    need_draft(BroadcastState.DRAFT, "a changed draft")
    for state in set(BroadcastState) - {BroadcastState.DRAFT}:
        with pytest.raises(InvalidTransition, match="a changed draft") as caught:
            need_draft(state, "a changed draft")
        assert set(caught.value.allowed) == {transition(state, option) for option in actions(state)}
