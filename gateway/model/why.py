"""Why a delivery is where it is: facts in, reasons out, in plain words and machine codes. Pure.

Owns the codes, the words and the estimate of when a lane comes to it. Must not know how the facts are read (`store/why`) or who is
told (`api/status`, `cli/explain`). Every state has a teller; a reason says what holds the delivery, and what would release it. Several
may hold it at once: the first is the one that decides, the others would hold it when that one is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from gateway.model.delivery import DeliveryState
from gateway.model.why_facts import Facts, Hold, Lane, Surroundings

PACE: Final = 0.968
"""Of its rate a lane is paced at: `throttle/bucket.PACE` (a test holds the two together)."""
_SOON_S: Final = 1.0


class Code(StrEnum):
    """What holds a delivery, or what became of it. The values are the API's contract."""

    HELD_FLEET = "held_fleet"
    HELD_SITE = "held_site"
    BROADCAST_PAUSED = "broadcast_paused"
    BROADCAST_CANCELLED = "broadcast_cancelled"
    LANE_SUSPENDED = "lane_suspended"
    NO_DISPATCHER = "no_dispatcher"
    LANE_RATE = "lane_rate"
    """It waits for its lane's tokens."""
    NEXT = "next"
    """Nothing holds it: the next claim takes it."""
    SENDING = "sending"
    DISPATCHER_LOST = "dispatcher_lost"
    SCHEDULED = "scheduled"
    DEFERRED = "deferred"
    HELD = "held"
    """By its sender."""
    IN_DOUBT = "in_doubt"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"
    UNRESOLVED = "unresolved"


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One thing that holds a delivery, or its end; what does not apply is left out.

    `release` says what would let it go on; empty where nothing holds it or nothing can.
    """

    code: Code
    text: str
    release: str = ""
    since: datetime | None = None
    until: datetime | None = None
    reply: str | None = None
    """What the receiver, or we ourselves, said last."""
    bounce_class: str | None = None
    rate_per_s: float | None = None
    """What the lane takes, of all senders together."""
    ahead: int | None = None
    """The site's own deliveries that stand before it in the lane; 1,000 at most are counted, so that there may be more."""
    eta_s: float | None = None
    """About how long yet, by what stands before it now."""


def explain(facts: Facts, around: Surroundings) -> list[Reason]:
    """Say why a delivery is where it is: at least one reason, the one that decides first."""
    return list(_TELLERS[facts.state](facts, around))


def eta_s(lane: Lane, ahead: int, sharing: int) -> float:
    """Estimate in how many seconds a lane comes to a delivery: its flow's turn comes once for each flow that shares the lane."""
    needed = (ahead + 1) * max(1, sharing)
    return max(0.0, (needed - lane.burst) / (lane.rate_per_s * PACE) + lane.owes_s)


def _queued(facts: Facts, around: Surroundings) -> Iterator[Reason]:
    held = [*_holds(around), *_suspension(facts)]
    yield from held
    if not around.dispatching:
        yield Reason(
            code=Code.NO_DISPATCHER,
            text="no dispatcher is running",
            release="an operator starts one: gateway run --roles dispatch",
        )
    elif not held:
        yield _turn(facts)


def _turn(facts: Facts) -> Reason:
    lane = facts.lane
    if lane is None:
        return Reason(
            code=Code.NEXT,
            text="it is queued, and its lane is being made ready",
            release="by itself, within 10 seconds",
        )
    wait_s = eta_s(lane, facts.ahead, facts.sharing)
    rate = f"{lane.name} takes {lane.rate_per_s:g} a second"
    if wait_s < _SOON_S:
        return Reason(
            code=Code.NEXT,
            text=f"nothing holds it; {rate}",
            release="by itself, with the next claim",
            rate_per_s=lane.rate_per_s,
            ahead=facts.ahead,
            eta_s=round(wait_s, 1),
        )
    many = f"more than {facts.ahead:,}" if facts.more_ahead else f"{facts.ahead:,}"
    return Reason(
        code=Code.LANE_RATE,
        text=f"it waits for its turn: {rate}, and {many} of yours are before it",
        release=f"by itself, in about {_duration(wait_s)}{' or more' if facts.more_ahead else ''}",
        rate_per_s=lane.rate_per_s,
        ahead=facts.ahead,
        eta_s=round(wait_s, 1),
    )


def _leased(facts: Facts, around: Surroundings) -> Iterator[Reason]:
    if facts.owner_lives:
        yield Reason(
            code=Code.SENDING,
            text="a dispatcher has it, and sends it when its turn comes",
            release="by itself: with the receiver's reply, or it goes back to the queue",
        )
        return
    yield Reason(
        code=Code.DISPATCHER_LOST,
        text="the dispatcher that had it is dead",
        release="by itself: another one takes over what it left, within a minute",
    )


def _deferred(facts: Facts, around: Surroundings) -> Iterator[Reason]:
    due = facts.due_at
    if not facts.attempts and facts.reply is None:
        yield Reason(
            code=Code.SCHEDULED,
            text="it was sent for later",
            release="by itself, when its time comes",
            since=facts.accepted_at,
            until=due,
        )
    else:
        yield Reason(
            code=Code.DEFERRED,
            text=f"it was not taken yet{_attempts(facts)}: {facts.reply or 'no reply'}",
            release="by itself, with its next attempt",
            until=due,
            reply=facts.reply,
            bounce_class=facts.bounce_class,
        )
    yield from _holds(around)
    suspended_until = facts.lane.suspended_until if facts.lane else None
    if due is None or suspended_until is None or suspended_until > due:
        yield from _suspension(facts)


def _held(facts: Facts, around: Surroundings) -> Iterator[Reason]:
    yield Reason(
        code=Code.HELD,
        text="its sender holds it",
        release="POST /v1/messages/{id}/actions/release",
        since=facts.held_at,
        reply=facts.reply,
    )
    yield from _holds(around)
    yield from _suspension(facts)


def _in_doubt(facts: Facts, around: Surroundings) -> Iterator[Reason]:
    last = facts.due_at is None or (facts.expires_at is not None and facts.due_at >= facts.expires_at)
    yield Reason(
        code=Code.IN_DOUBT,
        text="the receiver may have it: the message was sent to its end, and no reply to it was read",
        release="a bounce or a reply that comes late, else it ends as unresolved"
        if last
        else "by itself: it is sent again, perhaps a second time",
        until=facts.expires_at if last else facts.due_at,
        reply=facts.reply,
    )
    yield from _holds(around)


def _ended(
    code: Code, text: Callable[[Facts], str], release: str = ""
) -> Callable[[Facts, Surroundings], Iterator[Reason]]:
    def tell(facts: Facts, _: Surroundings) -> Iterator[Reason]:
        yield Reason(
            code=code,
            text=text(facts),
            release=release,
            since=facts.ended_at,
            reply=facts.reply,
            bounce_class=facts.bounce_class,
        )

    return tell


def _suppressed(facts: Facts, around: Surroundings) -> Iterator[Reason]:
    found = facts.suppression
    if found is None:
        yield Reason(
            code=Code.SUPPRESSED,
            text="its address was suppressed; it is not any more",
            release="send it again",
            since=facts.ended_at,
            reply=facts.reply,
        )
        return
    mail = "all mail" if found.scope == "all" else f"{found.scope} mail"
    yield Reason(
        code=Code.SUPPRESSED,
        text=f"its address is suppressed for {mail}: {found.reason}",
        release="DELETE /v1/suppressions/{email}, and send it again",
        since=found.since,
        reply=facts.reply,
    )


def _bounce(facts: Facts) -> str:
    kind = f" ({facts.bounce_class})" if facts.bounce_class else ""
    return f"the receiver refused it for good{kind}: {facts.reply or 'no reply'}"


def _cancelled(facts: Facts) -> str:
    return "its broadcast was cancelled" if facts.broadcast_id else "its sender cancelled it"


def _expired(facts: Facts) -> str:
    return f"nobody took it in time{_attempts(facts)}: {facts.reply or 'no reply'}"


def _holds(around: Surroundings) -> Iterator[Reason]:
    for kind in ("fleet", "site", "broadcast"):
        for hold in around.holds:
            if hold.kind == kind:
                yield _hold(hold)


def _hold(hold: Hold) -> Reason:
    if hold.kind == "fleet":
        code, text, release = Code.HELD_FLEET, "all sending is stopped", "an operator: gateway reconcile"
    elif hold.kind == "site":
        code, text, release = Code.HELD_SITE, "the site is on hold", "an operator lifts the hold"
    elif hold.why == "cancelled":
        code, text = Code.BROADCAST_CANCELLED, "its broadcast is cancelled"
        release = "nothing: it ends as cancelled within seconds"
    else:
        code, text = Code.BROADCAST_PAUSED, "its broadcast is paused"
        release = "POST /v1/broadcasts/{id}/actions/resume"
    why = "" if hold.why in ("paused", "cancelled") else f": {hold.why}"
    return Reason(code=code, text=text + why, release=release, since=hold.since, until=hold.until)


def _suspension(facts: Facts) -> Iterator[Reason]:
    lane = facts.lane
    if lane is not None and lane.suspended:
        yield Reason(
            code=Code.LANE_SUSPENDED,
            text=f"nothing is sent to {lane.name} for a while, after: {lane.suspended_why}",
            release="by itself, when that time is over",
            until=lane.suspended_until,
            reply=lane.suspended_why or None,
        )


def _attempts(facts: Facts) -> str:
    """Of those that count; none, when the whole lane was refused each time."""
    match facts.attempts:
        case 0:
            return ""
        case 1:
            return ", after 1 attempt"
        case many:
            return f", after {many:,} attempts"


def _duration(seconds: float) -> str:
    for unit, length_s in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:,.0f} {unit}"
    return f"{seconds:.0f} seconds"


_TELLERS: Final[Mapping[DeliveryState, Callable[[Facts, Surroundings], Iterator[Reason]]]] = {
    DeliveryState.QUEUED: _queued,
    DeliveryState.LEASED: _leased,
    DeliveryState.DEFERRED: _deferred,
    DeliveryState.HELD: _held,
    DeliveryState.IN_DOUBT: _in_doubt,
    DeliveryState.DELIVERED: _ended(Code.DELIVERED, lambda _: "the receiver took it"),
    DeliveryState.BOUNCED: _ended(Code.BOUNCED, _bounce),
    DeliveryState.EXPIRED: _ended(Code.EXPIRED, _expired, "send it again"),
    DeliveryState.SUPPRESSED: _suppressed,
    DeliveryState.CANCELLED: _ended(Code.CANCELLED, _cancelled, "send it again"),
    DeliveryState.QUARANTINED: _ended(
        Code.QUARANTINED,
        lambda facts: f"it cannot be made or sent: {facts.reply or 'its dispatcher died with it'}",
        "mend what it says, and send it again",
    ),
    DeliveryState.UNRESOLVED: _ended(
        Code.UNRESOLVED,
        lambda _: "it was in doubt until it expired: whether the receiver has it is not known",
    ),
}
