"""`gateway trace`."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Final

from cyclopts import Parameter

from gateway.app.database import connection
from gateway.cli.common import DEFAULTS, Common, UsageError, number_of, print_json, say
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.store import traces
from gateway.store.pool import Connection
from gateway.store.traces import LINES_MAX, SECONDS_MAX, Kind, Seen

_POLL_S: Final = 0.5
_BEATS_UNTIL_SILENT: Final = 3
"""Heartbeats that may be missing before we say that nobody is there."""
_BEATS_AFTER: Final = 2
"""Heartbeats that the last lines may need to come."""


async def trace(
    *,
    lane: Annotated[str | None, Parameter(help="A recipient domain: all sessions of its lane.")] = None,
    message: Annotated[
        str | None, Parameter(help="A message's id (msg_…) or number: the sessions that carry it.")
    ] = None,
    delivery: Annotated[
        str | None, Parameter(help="A delivery's id (dlv_…) or number: the sessions that carry it.")
    ] = None,
    seconds: Annotated[float, Parameter(help="How long; 3600 at most. Ctrl-C ends it before.")] = 60,
    common: Common = DEFAULTS,
) -> None:
    """Show SMTP sessions as they happen: what we say (C), what the receiver says (S), what comes of it (*).

    Before each line stand the seconds since it was asked for, and dispatcher/connection. With --json, each line is an object.

    The transcript holds addresses; of a message's content it holds the size alone. The database keeps it until an hour after its end.

    It begins with the dispatchers' next heartbeat and takes 2,000 lines at most. Nothing is sent for it.

    Example: gateway trace --lane example.org --seconds 60

    Example: gateway trace --message msg_0000000001j4z --json
    """
    if sum(given is not None for given in (lane, message, delivery)) != 1:
        raise UsageError("say one of --lane, --message and --delivery")
    if not 1 <= seconds <= SECONDS_MAX or not math.isfinite(seconds):
        raise UsageError(f"--seconds: {seconds:g} is not 1 to {SECONDS_MAX}")
    config = common.load()
    async with connection(config) as opened:
        if lane is not None:
            kind, ref = Kind.LANE, await traces.lane_of(opened, _domain(lane))
        elif message is not None:
            kind, ref = Kind.MESSAGE, number_of(Prefix.MESSAGE, message, "--message")
            await traces.require_message(opened, ref)
        else:
            kind, ref = Kind.DELIVERY, number_of(Prefix.DELIVERY, delivery or "", "--delivery")
            await traces.require_open(opened, ref)
        fleet = await traces.dispatchers(opened)
        if not fleet.live:
            raise _nobody(fleet.last_at)
        request_id, asked_at = await traces.ask(opened, kind, ref, seconds)
        try:
            if not common.json:
                say(
                    f"{kind} {lane or message or delivery}, for {seconds:g} s (Ctrl-C ends it); the lines hold addresses, and are "
                    "deleted an hour after the end"
                )
            await _follow(opened, config, request_id, asked_at, fleet.tick, json=common.json)
        finally:
            await traces.end(opened, request_id)


async def _follow(
    opened: Connection, config: Config, request_id: int, asked_at: datetime, tick: int, *, json: bool
) -> None:
    """Print lines as they come, until the request has ended or takes no more.

    Raises:
        GatewayError: no dispatcher shows itself.
    """
    clock, beat_s = SystemClock(), config.dispatch.heartbeat_s
    began_at, silent_at = clock.now(), clock.monotonic() + _BEATS_UNTIL_SILENT * beat_s
    end: float | None = None
    after: dict[int, int] = {}
    shown, alive = 0, False
    while True:
        now = clock.monotonic()
        left_s, lines_left = await traces.remaining(opened, request_id)  # then the lines: the last are shown
        for line in await traces.read(opened, request_id, after):
            after[line.incarnation] = max(line.id, after.get(line.incarnation, 0))
            shown += 1
            _show(line, asked_at, json=json)
        if not alive:
            alive = (await traces.dispatchers(opened)).tick != tick
            if not alive and now > silent_at:
                raise _nobody(began_at)
        if end is None and left_s <= 0:
            end = now + _BEATS_AFTER * beat_s
        if not lines_left or (end is not None and now >= end):
            break
        await clock.sleep(_POLL_S if left_s <= 0 else min(_POLL_S, left_s))
    if not json:
        say(_summary(shown, full=not lines_left))


def _summary(shown: int, *, full: bool) -> str:
    if full:
        return f"ended: {LINES_MAX:,} lines, no more are taken"
    return f"ended: {shown:,} lines" if shown else "ended: no session spoke of it in this time"


def _show(line: Seen, asked_at: datetime, *, json: bool) -> None:
    offset_s = (line.at - asked_at).total_seconds()
    if not json:
        say(f"{offset_s:+9.3f} {line.incarnation}/{line.connection} {line.direction} {line.text}")
        return
    print_json(
        {
            "at": line.at.astimezone(UTC),
            "offset_s": round(offset_s, 3),
            "incarnation": line.incarnation,
            "connection": line.connection,
            "delivery": None if line.delivery_id is None else encode(Prefix.DELIVERY, line.delivery_id),
            "direction": line.direction,
            "line": line.text,
        }
    )


def _domain(text: str) -> str:
    try:
        return parse(f"postmaster@{text}").domain
    except AddressError as error:
        raise UsageError(f'--lane: "{text}" is no domain; say it as in example.org') from error


def _nobody(since: datetime | None) -> GatewayError:
    shown = f"has shown itself since {since:%Y-%m-%d %H:%M:%S} UTC" if since else "has ever shown itself"
    return GatewayError(f"no dispatcher {shown}: is `gateway run` up?")
