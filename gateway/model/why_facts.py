"""What decides when a delivery leaves: the facts that `store/why` reads and `model/why` explains. Pure.

Owns their form. Must not know how they are read, nor what they come to.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.model.delivery import DeliveryState


class Lane(msgspec.Struct, frozen=True):
    """How a lane stands. `owes_s`: how far ahead its tokens are spent."""

    name: str
    rate_per_s: float
    burst: float
    owes_s: float = 0.0
    suspended: bool = False
    suspended_until: datetime | None = None
    suspended_why: str = ""


class Hold(msgspec.Struct, frozen=True):
    """What holds many deliveries without touching them. `kind`: fleet, site or broadcast."""

    kind: str
    why: str
    since: datetime
    until: datetime | None = None


class Suppression(msgspec.Struct, frozen=True):
    """An entry of the suppression list that holds for the delivery."""

    scope: str
    reason: str
    since: datetime


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one delivery. `reply` is a whole line; `owner_lives`: whether the dispatcher that has it does."""

    state: DeliveryState
    accepted_at: datetime
    attempts: int = 0
    broadcast_id: int = 0
    due_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    reply: str | None = None
    bounce_class: str | None = None
    owner_lives: bool = True
    held_at: datetime | None = None
    lane: Lane | None = None
    ahead: int = 0
    more_ahead: bool = False
    """More than these stand before it: they were not counted."""
    sharing: int = 1
    """Flows that the lane serves in turn, this one among them."""
    suppression: Suppression | None = None


class Surroundings(msgspec.Struct, frozen=True):
    """What is the same for all deliveries of a message: the time, the holds, and whether any dispatcher lives."""

    now: datetime
    holds: tuple[Hold, ...] = ()
    dispatching: bool = True
