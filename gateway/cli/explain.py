"""`gateway explain`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from cyclopts import Parameter

from gateway.app.database import connection
from gateway.cli.common import DEFAULTS, Common, UsageError, number_of, print_json, print_table, say
from gateway.model.ids import Prefix, encode
from gateway.model.why import Reason
from gateway.model.why import explain as reasons_of
from gateway.model.why_facts import Surroundings
from gateway.store import why
from gateway.store.messages import get_message
from gateway.store.why import PAGE_MAX, Known


async def explain(
    message: Annotated[str, Parameter(help="A message's id (msg_…) or number.")],
    /,
    *,
    after: Annotated[
        str | None, Parameter(help="Go on after this delivery (dlv_…), where a message has many.")
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Say why each delivery of a message is where it is, and what would release it.

    Up to 100 deliveries at a time. Below a delivery's first reason stand the others that would hold it next, and below them all what the
    reasons are. It shows addresses.

    Example: gateway explain msg_0000000001j4z

    Example: gateway explain msg_0000000001j4z --json
    """
    number = number_of(Prefix.MESSAGE, message, "the message")
    place = 0 if after is None else number_of(Prefix.DELIVERY, after, "--after")
    if max(number, place) >= 1 << 63:
        raise UsageError("a number of more than 63 bits is no id")
    async with connection(common.load()) as opened:
        found = await get_message(opened, number)
        known, around = await why.read_facts(opened, found, place, PAGE_MAX + 1)
    shown = [(one, reasons_of(one.facts, around)) for one in known[:PAGE_MAX]]
    following = encode(Prefix.DELIVERY, shown[-1][0].id) if len(known) > PAGE_MAX else None
    if common.json:
        print_json(_document(number, shown, following, around))
        return
    if not shown:
        say("it has no deliveries yet")
        return
    print_table(
        ["delivery", "to", "state", "why", "until"], [row for one in shown for row in _rows(*one, around)]
    )
    for text in dict.fromkeys(_told(reason) for _, reasons in shown for reason in reasons):
        say(text)
    if following:
        say(f"there are more: gateway explain {message} --after {following}")


def _rows(one: Known, reasons: list[Reason], around: Surroundings) -> list[list[str]]:
    rows = [["", "", "", str(reason.code), _moment(reason, around.now)] for reason in reasons]
    rows[0][:3] = [encode(Prefix.DELIVERY, one.id), one.recipient, one.facts.state]
    return rows


def _told(reason: Reason) -> str:
    """What a code stands for here; deliveries that wait for the same share it."""
    told = f"{reason.code}: {reason.text}"
    return f"{told}\n  released: {reason.release}" if reason.release else told


def _moment(reason: Reason, now: datetime) -> str:
    if reason.until is None:
        return "" if reason.since is None else f"since {_shown(reason.since, now)}"
    return _shown(reason.until, now)


def _shown(moment: datetime, now: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M}"


def _document(
    number: int, shown: list[tuple[Known, list[Reason]]], following: str | None, around: Surroundings
) -> dict[str, object]:
    return {
        "message": encode(Prefix.MESSAGE, number),
        "at": around.now.astimezone(UTC),
        "data": [
            {
                "id": encode(Prefix.DELIVERY, one.id),
                "to": one.recipient,
                "state": one.facts.state,
                "expires_at": one.facts.expires_at,
                "reasons": msgspec.to_builtins(reasons),
            }
            for one, reasons in shown
        ],
        "has_more": following is not None,
        "next": following,
    }
