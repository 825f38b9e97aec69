"""`gateway lanes list | suspend | resume`."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter

from gateway.app.database import connection
from gateway.cli.common import (
    DEFAULTS,
    Common,
    UsageError,
    domain_name,
    moment,
    print_json,
    print_table,
    say,
)
from gateway.model.why import Code
from gateway.store.lane_control import Fleet, LaneReport, read_fleet, report_lanes, resume_lane, suspend_lane
from gateway.store.traces import lane_of

_LIMIT_MAX: Final = 100_000
_SECONDS_MAX: Final = 31_536_000
_WHY_MAX: Final = 200

lanes = App(name="lanes", help="Lanes, one for each destination: list, suspend, resume.")


@lanes.command(name="list")
async def list_(
    *,
    lane: Annotated[str | None, Parameter(help="A recipient domain: its lane alone.")] = None,
    idle: Annotated[bool, Parameter(negative=(), help="Show those with nothing to do, too.")] = False,
    limit: Annotated[int, Parameter(help="How many at most.")] = 50,
    common: Common = DEFAULTS,
) -> None:
    """Show what stands in each lane, the longest backlog first, and why it does not leave.

    It reads the queue once, as `gateway books` does. "why" names what holds what is open: suspended (a receiver's word, or an operator's),
    its rate, no connection left, paused broadcasts, a time that has not come.

    Example: gateway lanes list

    Example: gateway lanes list --lane example.org --json
    """
    if not 1 <= limit <= _LIMIT_MAX:
        raise UsageError(f"--limit: {limit} is not 1 to {_LIMIT_MAX}")
    async with connection(common.load()) as opened:
        number = None if lane is None else await lane_of(opened, domain_name(lane, "--lane"))
        fleet = await read_fleet(opened)
        found = await report_lanes(opened, lane_id=number, idle=idle or lane is not None, limit=limit + 1)
    shown, more = found[:limit], len(found) > limit
    if common.json:
        print_json({
            "data": [_document(one, fleet) for one in shown], "has_more": more, "dispatchers": fleet.dispatchers,
            "stopped": fleet.stopped,
        })  # fmt: skip
        return
    print_table(
        [
            "lane",
            "rate/s",
            "connections",
            "queued",
            "in hand",
            "deferred",
            "held",
            "in doubt",
            "why",
            "until",
        ],
        [_row(one, fleet) for one in shown],
    )
    if fleet.stopped is not None:
        say(f"all claiming is stopped: {fleet.stopped}")
    elif not fleet.dispatchers:
        say("no dispatcher is running: gateway run --roles dispatch")
    if more:
        say(f"there are more than {limit}: --limit")


@lanes.command
async def suspend(
    lane: Annotated[str, Parameter(help="A recipient domain: its lane.")],
    *,
    why: Annotated[str, Parameter(help="What `explain` and the API tell of it.")],
    seconds: Annotated[float | None, Parameter(help="How long; without, until it is resumed.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Send nothing more to a lane for a while; what dispatchers have in hand still goes. Nothing is lost, but mail may expire.

    Example: gateway lanes suspend example.org --seconds 3600 --why "they asked us to"
    """
    if seconds is not None and (not math.isfinite(seconds) or not 0 < seconds <= _SECONDS_MAX):
        raise UsageError(f"--seconds: {seconds:g} is not above 0 and at most {_SECONDS_MAX}")
    if not why.strip() or len(why) > _WHY_MAX or not why.isprintable():
        raise UsageError(f"--why: expected a reason in one line of at most {_WHY_MAX} characters")
    domain = domain_name(lane, "the lane")
    async with connection(common.load()) as opened:
        until = await suspend_lane(
            opened, await lane_of(opened, domain), seconds, f"an operator: {why.strip()}"
        )
    if common.json:
        print_json({"lane": domain, "suspended": True, "until": until})
    else:
        say(f"{domain} is suspended until {moment(until, 'it is resumed')}{' UTC' if until else ''}")


@lanes.command
async def resume(
    lane: Annotated[str, Parameter(help="A recipient domain: its lane.")],
    *,
    common: Common = DEFAULTS,
) -> None:
    """Let a lane send again, whoever suspended it: an operator, or a receiver that asked for patience.

    Example: gateway lanes resume example.org
    """
    domain = domain_name(lane, "the lane")
    async with connection(common.load()) as opened:
        changed = await resume_lane(opened, await lane_of(opened, domain))
    if common.json:
        print_json({"lane": domain, "suspended": False, "changed": changed})
    else:
        say(f"{domain} sends again" if changed else f"{domain} was not suspended")


def reason(lane: LaneReport, fleet: Fleet) -> tuple[Code | None, datetime | None]:
    """What holds what is open in a lane, most of all, and until when; None where nothing is open, or the next claim takes it."""
    if lane.suspended:
        return Code.LANE_SUSPENDED, lane.suspended_until
    if lane.queued > lane.paused:
        if fleet.stopped is not None:
            return Code.HELD_FLEET, None
        if not fleet.dispatchers:
            return Code.NO_DISPATCHER, None
        return (Code.LANE_RATE if lane.spent else Code.NEXT), None
    if lane.queued:
        return Code.BROADCAST_PAUSED, None
    if lane.leased:
        return Code.SENDING, None
    if lane.deferred or lane.in_doubt:
        return (Code.DEFERRED if lane.deferred else Code.IN_DOUBT), lane.next_due_at
    return (Code.HELD if lane.held else None), None


def _row(lane: LaneReport, fleet: Fleet) -> tuple[object, ...]:
    code, until = reason(lane, fleet)
    said = f"{code}: {lane.suspended_why}" if lane.suspended and lane.suspended_why else str(code or "")
    return (
        lane.name, f"{lane.rate_per_s:g}", f"{lane.connections} of {lane.max_connections}", lane.queued, lane.leased, lane.deferred,
        lane.held, lane.in_doubt, said, moment(until),
    )  # fmt: skip


def _document(lane: LaneReport, fleet: Fleet) -> dict[str, object]:
    code, until = reason(lane, fleet)
    return msgspec.to_builtins(lane) | {"why": code, "until": until}
