"""`/v1/lanes`: where mail leaves, for operators: how each lane stands, what holds it, and a hand on it.

Owns the words. Must not know how a bucket is counted (`store/lanes`), nor how what an operator gave ends (`dispatch/limits`). A lane is of
no site, and shows what no site may see of the others: there is nothing here for a site's key.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api.described import Described
from gateway.api.endpoint import Access, Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Invalid, InvalidTransition, NotFound
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.model.why import Code
from gateway.store import lanes
from gateway.store.lanes import FleetHold, Lane
from gateway.throttle.shaping import Burst, Connections, Rate

routes = Routes("lanes")

COUNTED_MAX: Final = 1_000
"""Deliveries that are counted in a lane, at most."""
PAGE_MAX: Final = 100
_WEEK_S: Final = 604_800

Why = Annotated[str, Meta(min_length=1, max_length=200)]
Duration = Annotated[float, Meta(ge=1, le=_WEEK_S)]


class LimitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits for a time; what is left out is as the throttles say."""

    for_s: Duration
    why: Why
    rate_per_s: Rate | UnsetType = UNSET
    burst: Burst | UnsetType = UNSET
    max_connections: Connections | UnsetType = UNSET


class SuspendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long; without `for_s` until it is resumed."""

    why: Why
    for_s: Duration | UnsetType = UNSET


class DrainBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why it is to run empty."""

    why: Why


class OverrideView(msgspec.Struct, frozen=True):
    """Limits that an operator gave; null: as the throttles say."""

    rate_per_s: float | None
    burst: float | None
    max_connections: int | None
    until: datetime
    why: str
    created_at: datetime


class HeldView(msgspec.Struct, frozen=True):
    """One thing that keeps a lane from sending. `until` null: nobody knows."""

    code: Code
    text: str
    until: datetime | None = None
    since: datetime | None = None


class LaneView(msgspec.Struct, frozen=True):
    """A lane. `tokens`: how many might leave at once, of `burst` at most.

    `ready`: deliveries that wait for it; `waiting`: for their next try. Of either no more than 1,000 are counted. `leased`: what dispatchers
    have in hand; a lane that is drained has none.
    """

    id: str
    name: str
    source: str
    rate_per_s: float
    burst: float
    max_connections: int
    tokens: float
    ready: int
    waiting: int
    leased: int
    held: list[HeldView]
    limit: OverrideView | None
    used_at: datetime


@routes.add(
    "GET", "/v1/lanes", answer=Page[LaneView], access=Access.OPERATOR,
    query={"domain": "only the lane of this domain", "suspended": Described("`true`: only those that are suspended", {"type": "string", "enum": ["", "true", "false"]})},
)  # fmt: skip
async def list_lanes(call: Call) -> Page[LaneView]:
    """List the lanes; a page holds up to 100."""
    limit = min(call.limit(), PAGE_MAX)
    suspended = call.query("suspended") or "false"
    if suspended not in ("true", "false"):
        raise Invalid([("", "suspended: expected true or false")])
    rows = await lanes.list_lanes(
        call.connection,
        call.after(Prefix.LANE),
        limit + 1,
        domain=_domain(call),
        suspended=suspended == "true",
        most=COUNTED_MAX,
    )
    stop = await lanes.fleet_hold(call.connection)
    return page(rows, limit, lambda lane: _view(lane, stop), lambda lane: encode(Prefix.LANE, lane.id))


@routes.add("GET", "/v1/lanes/{id}", answer=LaneView, access=Access.OPERATOR)
async def get_lane(call: Call) -> LaneView:
    """Show a lane."""
    return await _show(call, call.id(Prefix.LANE))


@routes.add(
    "PUT", "/v1/lanes/{id}/limit", body=LimitBody, answer=LaneView, access=Access.OPERATOR,
    rules={"anyOf": [{"required": [name]} for name in ("rate_per_s", "burst", "max_connections")]},
)  # fmt: skip
async def limit_lane(call: Call, data: LimitBody) -> LaneView:
    """Give a lane limits for a time, at once and before those of the throttles."""
    lane_id = call.id(Prefix.LANE)
    rate, burst, connections = (
        None if given is UNSET else given for given in (data.rate_per_s, data.burst, data.max_connections)
    )
    if rate is None and burst is None and connections is None:
        raise Invalid([("", "expected rate_per_s, burst or max_connections")])
    await lanes.limit_lane(
        call.connection,
        lane_id,
        rate_per_s=rate,
        burst=None if burst is None else float(burst),
        max_connections=None if connections is None else int(connections),
        for_s=data.for_s,
        why=data.why,
    )
    return await _show(call, lane_id)


@routes.add("DELETE", "/v1/lanes/{id}/limit", answer=None, status=204, access=Access.OPERATOR)
async def unlimit_lane(call: Call) -> None:
    """End the limits that an operator gave: within seconds those of the throttles hold again."""
    if not await lanes.unlimit_lane(call.connection, call.id(Prefix.LANE)):
        raise NotFound("no operator has given this lane limits")


@routes.add(
    "POST", "/v1/lanes/{id}/actions/suspend", body=SuspendBody, answer=LaneView, access=Access.OPERATOR
)
async def suspend_lane(call: Call, data: SuspendBody) -> LaneView:
    """Let nothing more leave through a lane, for a time or until it is resumed; what dispatchers have in hand still goes."""
    lane_id = call.id(Prefix.LANE)
    for_s = None if data.for_s is UNSET else data.for_s
    await lanes.suspend_lane(call.connection, lane_id, for_s, f"an operator: {data.why}")
    return await _show(call, lane_id)


@routes.add(
    "POST", "/v1/lanes/{id}/actions/drain", body=DrainBody, answer=LaneView, access=Access.OPERATOR
)  # fmt: skip
async def drain_lane(call: Call, data: DrainBody) -> LaneView:
    """Claim nothing more from a lane until it is resumed, and let what is in hand finish: it is drained when `leased` is 0."""
    lane_id = call.id(Prefix.LANE)
    await lanes.suspend_lane(call.connection, lane_id, None, f"drained by an operator: {data.why}")
    return await _show(call, lane_id)


@routes.add(
    "POST", "/v1/lanes/{id}/actions/resume", answer=LaneView, access=Access.OPERATOR, problems={"invalid_transition"}
)  # fmt: skip
async def resume_lane(call: Call) -> LaneView:
    """Let a suspended lane go on at once, whoever suspended it."""
    lane_id = call.id(Prefix.LANE)
    if not await lanes.resume_lane(call.connection, lane_id):
        await _show(call, lane_id)
        raise InvalidTransition("open", "open", ["suspended"])
    return await _show(call, lane_id)


async def _show(call: Call, lane_id: int) -> LaneView:
    lane = await lanes.get_lane(call.connection, lane_id, most=COUNTED_MAX)
    return _view(lane, await lanes.fleet_hold(call.connection))


def _domain(call: Call) -> str | None:
    domain = call.query("domain")
    if domain is None:
        return None
    try:
        return parse(f"postmaster@{domain}").domain
    except AddressError as error:
        raise Invalid([("", f"domain: {error}")]) from error


def _view(lane: Lane, stop: FleetHold | None) -> LaneView:
    return LaneView(
        id=encode(Prefix.LANE, lane.id),
        name=lane.name,
        source=lane.source,
        rate_per_s=lane.rate_per_s,
        burst=lane.burst,
        max_connections=lane.max_connections,
        tokens=round(lane.tokens, 1),
        ready=lane.ready,
        waiting=lane.waiting,
        leased=lane.leased,
        held=_held(lane, stop),
        limit=None
        if lane.override is None
        else OverrideView(
            lane.override.rate_per_s,
            lane.override.burst,
            lane.override.max_connections,
            lane.override.until_at,
            lane.override.why,
            lane.override.created_at,
        ),
        used_at=lane.used_at,
    )


def _held(lane: Lane, stop: FleetHold | None) -> list[HeldView]:
    """What keeps a lane from sending, the strongest first; empty: nothing does."""
    held: list[HeldView] = []
    if stop is not None:
        held.append(HeldView(Code.HELD_FLEET, f"all sending is stopped: {stop.why}", since=stop.since))
    if lane.suspended:
        held.append(
            HeldView(Code.LANE_SUSPENDED, f"suspended, after: {lane.suspended_why}", lane.suspended_until)
        )
    if lane.ready and lane.tokens < 1:
        rate = f"its tokens are spent for {lane.owes_s:.1f} s yet; it takes {lane.rate_per_s:g} a second"
        held.append(HeldView(Code.LANE_RATE, rate))
    return held
