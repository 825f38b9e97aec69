"""A delivery: its states, where each may lead, and what a dispatcher holds of one while it has the lease.

Owns the words of the database's `delivery_state` (a test holds the two together) and the table of transitions. Pure. Must not know
how a delivery is claimed (`store/queue`) or sent (`dispatch/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from gateway.errors import InvalidTransition


class DeliveryState(StrEnum):
    """Where a delivery stands; the first five are open, the others ended."""

    QUEUED = "queued"
    LEASED = "leased"
    DEFERRED = "deferred"
    HELD = "held"
    IN_DOUBT = "in_doubt"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"
    UNRESOLVED = "unresolved"


OPEN = frozenset(list(DeliveryState)[:5])
"""States with a row in the queue."""

ENDED = frozenset(list(DeliveryState)[5:])
"""States with a terminal record."""

_S: Final = DeliveryState
TRANSITIONS: Final[Mapping[DeliveryState, tuple[DeliveryState, ...]]] = {
    _S.QUEUED: (_S.LEASED, _S.HELD, _S.EXPIRED, _S.CANCELLED),
    _S.LEASED: (
        _S.QUEUED, _S.DEFERRED, _S.IN_DOUBT, _S.DELIVERED, _S.BOUNCED, _S.EXPIRED, _S.SUPPRESSED, _S.QUARANTINED,
    ),
    _S.DEFERRED: (_S.QUEUED, _S.HELD, _S.EXPIRED, _S.CANCELLED),
    _S.HELD: (_S.QUEUED, _S.DEFERRED, _S.EXPIRED, _S.CANCELLED),
    _S.IN_DOUBT: (_S.QUEUED, _S.DELIVERED, _S.UNRESOLVED),
    _S.DELIVERED: (_S.BOUNCED,),
    **dict.fromkeys((_S.EXPIRED, _S.CANCELLED, _S.UNRESOLVED), (_S.DELIVERED,)),
    **dict.fromkeys((_S.BOUNCED, _S.SUPPRESSED, _S.QUARANTINED), ()),
}  # fmt: skip
"""Where each state may lead. A 250 that comes late ends every open one as delivered, and one that had ended, if it was in doubt before."""


class Action(StrEnum):
    """What a message's sender may do to its deliveries."""

    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"


_LEADS_TO: Final[Mapping[Action, DeliveryState]] = {
    Action.CANCEL: _S.CANCELLED, Action.HOLD: _S.HELD, Action.RELEASE: _S.QUEUED,
}  # fmt: skip


def refuse(states: Iterable[str], action: Action) -> InvalidTransition:
    """Make the refusal of an action that no delivery in these states allows; it names where they may go instead."""
    given = set(states)
    found = [state for state in DeliveryState if state in given]
    allowed = {after for state in found for after in TRANSITIONS[state]} - {_LEADS_TO[action]}
    return InvalidTransition(
        ", ".join(found), _LEADS_TO[action], [state for state in DeliveryState if state in allowed]
    )


class Leased(msgspec.Struct, frozen=True):
    """A delivery under this dispatcher's lease.

    `planned_at`, `late_at` and `last_moment` stand on this process's monotonic clock: it must not leave before the first, goes
    back to the queue when it would leave after the second, and has expired at the third. `variables` is JSON text.
    """

    id: int
    epoch: int
    lane_id: int
    site_id: int
    message_id: int
    broadcast_id: int
    priority: int
    attempts: int
    crashes: int
    doubts: int
    recipient: str
    variables: str | None
    accepted_at: datetime
    expires_at: datetime
    suppressed: bool
    planned_at: float
    late_at: float
    last_moment: float


class Granted(msgspec.Struct, frozen=True):
    """What one claim gave for one lane: its limits, the connection slots, and the deliveries in the order of leaving.

    `rate_per_s`: the closest that two deliveries may follow each other.
    """

    lane_id: int
    rate_per_s: float
    burst: int
    slots: int
    deliveries: list[Leased]


class Result(msgspec.Struct, frozen=True):
    """What is told to the queue of one attempt. `counts`: whether it counts as an attempt; `wait_s`: until the next."""

    id: int
    epoch: int
    state: DeliveryState
    counts: bool = True
    wait_s: float = 0.0
    code: int | None = None
    enhanced: str | None = None
    reply: str | None = None
    bounce_class: str | None = None
    suppress: str | None = None
