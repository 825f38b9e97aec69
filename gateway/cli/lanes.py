"""`gateway lanes list | suspend | resume | limit | unlimit`."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from gateway.api.lanes import Duration
from gateway.app.database import connection
from gateway.app.operator import transaction
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
from gateway.store.lane_report import Fleet, LaneReport, read_fleet, report_lanes
from gateway.store.lanes import get_lane, limit_lane, resume_lane, suspend_lane, unlimit_lane
from gateway.store.traces import lane_of
from gateway.throttle.shaping import Burst, Connections, Rate

_LIMIT_MAX: Final = 100_000
_WHY_MAX: Final = 200

Why = Annotated[str, Parameter(help="What `explain` and the API tell of it.")]

lanes = App(
    name="lanes",
    help="Lanes, one for each destination: list, suspend, resume, limit.\n\nExample: gateway lanes list",
)


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
    if not shown and lane is None and not idle:
        say("nothing waits in any lane; --idle shows all of them")
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
    why: Why,
    seconds: Annotated[float | None, Parameter(help="How long; without, until it is resumed.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Send nothing more to a lane for a while; what dispatchers have in hand still goes. Nothing is lost, but mail may expire.

    Example: gateway lanes suspend example.org --seconds 3600 --why "they asked us to"
    """
    domain, said = domain_name(lane, "the lane"), _why(why)
    if seconds is not None:
        _check("--seconds", seconds, Duration)
    async with transaction(common.load()) as opened:
        number = await lane_of(opened, domain)
        await suspend_lane(opened, number, seconds, f"an operator: {said}")
        until = (await get_lane(opened, number, most=1)).suspended_until
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
    async with transaction(common.load()) as opened:
        changed = await resume_lane(opened, await lane_of(opened, domain))
    if common.json:
        print_json({"lane": domain, "suspended": False, "changed": changed})
    else:
        say(f"{domain} sends again" if changed else f"{domain} was not suspended")


@lanes.command
async def limit(
    lane: Annotated[str, Parameter(help="A recipient domain: its lane.")],
    *,
    seconds: Annotated[float, Parameter(help="How long, in place of the throttles.")],
    why: Why,
    rate: Annotated[float | None, Parameter(help="Deliveries a second.")] = None,
    burst: Annotated[int | None, Parameter(help="How many may leave at once.")] = None,
    connections: Annotated[int | None, Parameter(help="Connections at once, over all dispatchers.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Give a lane other limits for a time, at once; what is not said stays as the throttles have it.

    Example: gateway lanes limit example.org --rate 0.5 --connections 1 --seconds 7200 --why "they defer us"
    """
    domain, said = domain_name(lane, "the lane"), _why(why)
    _check("--seconds", seconds, Duration)
    if rate is None and burst is None and connections is None:
        raise UsageError("expected --rate, --burst or --connections")
    for option, value, kind in (
        ("--rate", rate, Rate), ("--burst", burst, Burst), ("--connections", connections, Connections),
    ):  # fmt: skip
        if value is not None:
            _check(option, value, kind)
    async with transaction(common.load()) as opened:
        number = await lane_of(opened, domain)
        await limit_lane(
            opened,
            number,
            rate_per_s=rate,
            burst=None if burst is None else float(burst),
            max_connections=connections,
            for_s=seconds,
            why=said,
        )
        now = await get_lane(opened, number, most=1)
    until = None if now.override is None else now.override.until_at
    if common.json:
        print_json({
            "lane": domain, "rate_per_s": now.rate_per_s, "burst": now.burst, "max_connections": now.max_connections, "until": until,
        })  # fmt: skip
    else:
        say(
            f"{domain}: {now.rate_per_s:g} a second, {now.burst:g} at once, {now.max_connections} connections, until {moment(until)} UTC"
        )


@lanes.command
async def unlimit(
    lane: Annotated[str, Parameter(help="A recipient domain: its lane.")],
    *,
    common: Common = DEFAULTS,
) -> None:
    """End the limits that an operator gave a lane: within seconds it has those of the throttles.

    Example: gateway lanes unlimit example.org
    """
    domain = domain_name(lane, "the lane")
    async with transaction(common.load()) as opened:
        changed = await unlimit_lane(opened, await lane_of(opened, domain))
    if common.json:
        print_json({"lane": domain, "changed": changed})
    else:
        say(f"{domain}: as the throttles say" if changed else f"{domain} has no limits of an operator")


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
        return (Code.HELD_SITE if lane.site_held else Code.BROADCAST_PAUSED), None
    if lane.leased:
        return Code.SENDING, None
    if lane.deferred or lane.in_doubt:
        return (Code.DEFERRED if lane.deferred else Code.IN_DOUBT), lane.next_due_at
    return (Code.HELD if lane.held else None), None


def _why(text: str) -> str:
    if not text.strip() or len(text) > _WHY_MAX or not text.isprintable():
        raise UsageError(f"--why: expected a reason in one line of at most {_WHY_MAX} characters")
    return text.strip()


def _check(option: str, value: float, kind: Any) -> None:
    """Hold a number to what the API takes."""
    try:
        if math.isfinite(value):
            msgspec.convert(value, kind)
            return
    except msgspec.ValidationError as error:
        raise UsageError(f"{option}: {value:g}: {error}") from error
    raise UsageError(f"{option}: {value:g} is no number")


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
