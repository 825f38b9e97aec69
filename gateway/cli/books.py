"""`gateway books`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from gateway.app.database import connection
from gateway.app.exits import Exit
from gateway.cli.common import DEFAULTS, Common, number_of, print_json, print_table, say
from gateway.model.delivery import DeliveryState
from gateway.model.ids import Prefix, encode
from gateway.store.books import SINGLE_MESSAGES, Account, Books, read_books


async def books(
    *,
    deep: Annotated[bool, Parameter(negative=(), help="Also prove it id by id.")] = False,
    broadcast: Annotated[str | None, Parameter(help="One broadcast alone: its id (brd_…) or number.")] = None,
    common: Common = DEFAULTS,
) -> Exit:
    """Show that every accepted delivery is in exactly one state.

    Works at any time, while mail is sent. Exit code 1 when the books do not balance, with what is wrong.

    Example: gateway books --deep

    Example: gateway books --broadcast 7 --json
    """
    number = None if broadcast is None else number_of(Prefix.BROADCAST, broadcast, "--broadcast")
    async with connection(common.load()) as opened:
        found = await read_books(opened, broadcast_id=number, deep=deep)
    if common.json:
        print_json(_document(found))
    else:
        _show(found)
    return Exit.OK if found.balanced else Exit.FAILED


def _show(found: Books) -> None:
    overall = found.overall
    states = [state.value for state in DeliveryState if overall.count(state)]
    rows = [[_name(account), *_cells(account, states)] for account in found.accounts]
    print_table(["", "accepted", *states, "difference"], [*rows, ["all", *_cells(overall, states)]])
    proof = " and proven id by id" if found.deep else ""
    if found.balanced:
        say(f"the books balance: {overall.accepted:,} accepted, each in one state{proof}")
        return
    say("THE BOOKS DO NOT BALANCE:")
    for fault in found.faults():
        say(f"  {fault}")
    if not found.deep:
        say("  `gateway books --deep` names the deliveries")


def _cells(account: Account, states: list[str]) -> list[int]:
    return [account.accepted, *(account.count(state) for state in states), account.difference]


def _name(account: Account) -> str:
    return (
        "single messages"
        if account.broadcast_id == SINGLE_MESSAGES
        else encode(Prefix.BROADCAST, account.broadcast_id)
    )


def _document(found: Books) -> dict[str, object]:
    def entry(account: Account) -> dict[str, object]:
        return {
            "accepted": account.accepted,
            "states": dict(account.states),
            "difference": account.difference,
        }

    return {
        "balanced": found.balanced,
        "overall": entry(found.overall),
        "broadcasts": [
            {
                "id": encode(Prefix.BROADCAST, account.broadcast_id),
                "number": account.broadcast_id,
                **entry(account),
            }
            for account in found.accounts
            if account.broadcast_id != SINGLE_MESSAGES
        ],
        "single_messages": next(
            (entry(account) for account in found.accounts if account.broadcast_id == SINGLE_MESSAGES), None
        ),
        "deep": found.deep,
        "faulty_ids": msgspec.to_builtins(found.faulty_ids),
        "faulty_tallies": msgspec.to_builtins(found.faulty_tallies),
        "faults": found.faults(),
    }
