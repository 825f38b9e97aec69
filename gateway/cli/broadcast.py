"""`gateway broadcast list | status | pause | resume | cancel`."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from typing import Annotated, Final

from cyclopts import App, Parameter

from gateway.app.operator import operators_pool, transaction
from gateway.campaigns import launch
from gateway.cli.common import (
    DEFAULTS,
    Common,
    moment,
    number_of,
    print_json,
    print_table,
    say,
    site_number,
)
from gateway.cli.progress import progress
from gateway.clock import SystemClock
from gateway.errors import NotFound
from gateway.model.broadcast import actions
from gateway.model.delivery import DeliveryState
from gateway.model.ids import Prefix, encode
from gateway.store import broadcasts
from gateway.store.broadcasts import Broadcast, Counts
from gateway.store.pool import Connection
from gateway.store.sites import get_site
from gateway.store.tenancy import OPERATOR, as_site

_PAGE: Final = 1_000
_LOOK_S: Final = 1.0
_OPEN: Final = frozenset(
    {
        DeliveryState.QUEUED,
        DeliveryState.LEASED,
        DeliveryState.DEFERRED,
        DeliveryState.HELD,
        DeliveryState.IN_DOUBT,
    }
)

Which = Annotated[str, Parameter(help="The broadcast's id (brd_…) or number.")]

broadcast = App(
    name="broadcast",
    help="Broadcasts: list, status, pause, resume, cancel.\n\nExample: gateway broadcast list --site 7",
)


@broadcast.command(name="list")
async def list_(
    *,
    site: Annotated[str, Parameter(help="Whose broadcasts to show (site_…, or its number).")],
    common: Common = DEFAULTS,
) -> None:
    """Show a site's broadcasts, the oldest first.

    Example: gateway broadcast list --site 7
    """
    number = site_number(site)
    found: list[Broadcast] = []
    async with transaction(common.load()) as opened:
        await get_site(opened, number)
        while page := await broadcasts.list_broadcasts(opened, number, found[-1].id if found else 0, _PAGE):
            found += page
    if common.json:
        print_json([_document(one) for one in found])
        return
    print_table(
        ["id", "name", "state", "paused by", "started at", "ended at"],
        [
            (
                encode(Prefix.BROADCAST, b.id),
                b.name,
                b.state,
                b.paused_by,
                moment(b.started_at),
                moment(b.ended_at),
            )
            for b in found
        ],
    )


@broadcast.command
async def status(
    which: Which,
    /,
    *,
    follow: Annotated[
        bool,
        Parameter(
            negative=(), help="Stay until it has ended, with a bar on a terminal. Ctrl-C ends it before."
        ),
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """Show a broadcast and its deliveries by state: accepted is their sum, and grows until it is expanded.

    Example: gateway broadcast status brd_0000000000007 --follow
    """
    number = _number(which)
    clock = SystemClock()
    async with operators_pool(common.load()) as pool:
        with progress("ended", None, shown=follow and not common.json) as move:
            while True:
                async with as_site(pool, OPERATOR) as opened:
                    found = await broadcasts.get_broadcast(opened, number)
                    counts = await broadcasts.counts(opened, number)
                move(_ended(counts), counts.accepted or None)
                if not follow or not actions(found.state):
                    break
                await clock.sleep(_LOOK_S)
    if common.json:
        print_json(_document(found) | {"accepted": counts.accepted, "states": dict(counts.states)})
        return
    say(f"{encode(Prefix.BROADCAST, found.id)}: {found.name}: {_stands(found)}")
    whole = "" if found.expanded else " so far"
    say(f"{counts.accepted:,} accepted{whole}, {_ended(counts):,} ended")
    print_table(
        ["state", "deliveries"], [(state, n) for state in DeliveryState if (n := counts.states.get(state, 0))]
    )


@broadcast.command
async def pause(which: Which, /, *, common: Common = DEFAULTS) -> None:
    """Hold back what has not left; what dispatchers have in hand still goes.

    Example: gateway broadcast pause brd_0000000000007
    """
    await _act(which, launch.pause, common)


@broadcast.command
async def resume(which: Which, /, *, common: Common = DEFAULTS) -> None:
    """Let a paused broadcast go on.

    Example: gateway broadcast resume brd_0000000000007
    """
    await _act(which, launch.resume, common, wake=True)


@broadcast.command
async def cancel(which: Which, /, *, common: Common = DEFAULTS) -> None:
    """End a broadcast: nothing more is made of it, and what waits is cancelled. It cannot be taken back.

    Example: gateway broadcast cancel brd_0000000000007
    """
    await _act(which, launch.cancel, common)


async def _act(
    which: str,
    action: Callable[[Connection, int], Awaitable[Broadcast]],
    common: Common,
    *,
    wake: bool = False,
) -> None:
    number = _number(which)
    async with operators_pool(common.load()) as pool:
        # A command sets up no log, which would then go to stdout, among the answer: the action's line is left out.
        with redirect_stdout(io.StringIO()):
            async with as_site(pool, OPERATOR) as opened:
                changed = await action(opened, number)
        if wake:  # after the commit: a claim that still saw the hold would put its lanes to sleep again
            async with as_site(pool, OPERATOR) as opened:
                await broadcasts.wake(opened, number)
    if common.json:
        print_json(_document(changed))
    else:
        say(f"{encode(Prefix.BROADCAST, changed.id)}: {changed.name}: {_stands(changed)}")


def _number(which: str) -> int:
    number = number_of(Prefix.BROADCAST, which, "the broadcast")
    if number >= 1 << 63:
        raise NotFound("no such broadcast")
    return number


def _ended(counts: Counts) -> int:
    return sum(n for state, n in counts.states.items() if state not in _OPEN)


def _stands(found: Broadcast) -> str:
    return f"{found.state} (by {found.paused_by})" if found.paused_by else str(found.state)


def _document(found: Broadcast) -> dict[str, object]:
    return {
        "id": encode(Prefix.BROADCAST, found.id),
        "site": encode(Prefix.SITE, found.site_id),
        "name": found.name,
        "state": found.state,
        "paused_by": found.paused_by or None,
        "list": encode(Prefix.LIST, found.list_id),
        "template": encode(Prefix.TEMPLATE, found.template_id),
        "message": None if found.message_id is None else encode(Prefix.MESSAGE, found.message_id),
        "expanded": found.expanded,
        "actions": actions(found.state),
        "created_at": found.created_at,
        "started_at": found.started_at,
        "ended_at": found.ended_at,
    }
