"""The life of a broadcast: its states and the table of its transitions. Pure.

Owns which action leads where. Must not know who may act, or what a transition does to the queue (`campaigns/launch`).

    state       action    to
    draft       send      preparing      draft, scheduled: nothing was accepted yet
    draft       schedule  scheduled
    scheduled   schedule  scheduled      at another time
    scheduled   send      preparing
    preparing   expand    sending        the audience is frozen; its deliveries are being made
    preparing   pause     paused
    sending     pause     paused         paused(user | quota | window | errors | reputation)
    paused      resume    sending
    sending     complete  completed      every accepted delivery has ended
    any open    cancel    cancelled
    any open    fail      failed
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from gateway.errors import InvalidTransition


class BroadcastState(StrEnum):
    """Where a broadcast stands; the values are the database's `broadcast_state`."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    PREPARING = "preparing"
    SENDING = "sending"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Action(StrEnum):
    """What can be done to a broadcast, by a caller or by the scheduler (`send` when its time has come, `expand`, `complete`, `fail`)."""

    SEND = "send"
    SCHEDULE = "schedule"
    EXPAND = "expand"
    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    CANCEL = "cancel"
    FAIL = "fail"


_S: Final = BroadcastState
_A: Final = Action
_TRANSITIONS: Final[dict[BroadcastState, dict[Action, BroadcastState]]] = {
    _S.DRAFT: {_A.SEND: _S.PREPARING, _A.SCHEDULE: _S.SCHEDULED, _A.CANCEL: _S.CANCELLED},
    _S.SCHEDULED: {
        _A.SEND: _S.PREPARING, _A.SCHEDULE: _S.SCHEDULED, _A.CANCEL: _S.CANCELLED, _A.FAIL: _S.FAILED,
    },
    _S.PREPARING: {
        _A.EXPAND: _S.SENDING, _A.PAUSE: _S.PAUSED, _A.CANCEL: _S.CANCELLED, _A.FAIL: _S.FAILED,
    },
    _S.SENDING: {
        _A.PAUSE: _S.PAUSED, _A.COMPLETE: _S.COMPLETED, _A.CANCEL: _S.CANCELLED, _A.FAIL: _S.FAILED,
    },
    _S.PAUSED: {_A.RESUME: _S.SENDING, _A.CANCEL: _S.CANCELLED, _A.FAIL: _S.FAILED},
    _S.COMPLETED: {},
    _S.CANCELLED: {},
    _S.FAILED: {},
}  # fmt: skip


def transition(current: BroadcastState, action: Action) -> BroadcastState:
    """Return the state that an action leads to.

    Raises:
        InvalidTransition: the table has no such line; names the states that it has.
    """
    row = _TRANSITIONS[current]
    if action in row:
        return row[action]
    wanted = next((to[action] for to in _TRANSITIONS.values() if action in to), current)
    raise InvalidTransition(current, wanted, [str(state) for state in row.values()])


def need_draft(current: BroadcastState, wanted: str) -> None:
    """Check that what only a draft allows (a change, its deletion) is done to one; `wanted` names it.

    Raises:
        InvalidTransition: it was scheduled or launched; names the states that it may go to.
    """
    if current is not BroadcastState.DRAFT:
        raise InvalidTransition(current, wanted, [str(state) for state in _TRANSITIONS[current].values()])


def actions(current: BroadcastState) -> tuple[Action, ...]:
    """Return what can be done to a broadcast in this state."""
    return tuple(_TRANSITIONS[current])
