"""`gateway reconcile`: what to do after the database was restored from a backup."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from gateway.app.database import connection
from gateway.cli.common import DEFAULTS, Common, UsageError, print_json, print_table, say
from gateway.store.reconcile import Found, look, put_in_doubt, resend

_EXPLANATION = """\
What was accepted or sent between the backup and the failure is not in the books, so an open delivery may have left already.
Choose:
  gateway reconcile --in-doubt   each open delivery from before the restore is in doubt: transactional mail is sent again after
                                 doubt.transactional_wait_s, bulk mail at most once more after doubt.bulk_wait_s
  gateway reconcile --resend     all are sent as if nothing had happened: some recipients may get a message twice"""


async def reconcile(
    *,
    in_doubt: Annotated[
        bool,
        Parameter(negative=(), help="Put what is open into doubt, and go on: each stream's policy decides."),
    ] = False,
    resend_: Annotated[
        bool, Parameter(name="--resend", negative=(), help="Send what is open, and go on: it may come twice.")
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """After a restore of an old backup: say what is open, decide what becomes of it, and let dispatchers claim again.

    A dispatcher that finds the database behind what its host remembers stops all claiming. Without an option this only reports.

    Example: gateway reconcile --in-doubt
    """
    if in_doubt and resend_:
        raise UsageError("--in-doubt and --resend exclude each other: choose one")
    config = common.load()
    async with connection(config) as opened:
        found = await look(opened)
        moved = 0
        if found.held and in_doubt:
            moved = await put_in_doubt(opened, config.doubt.transactional_wait_s, config.doubt.bulk_wait_s)
        elif found.held and resend_:
            moved = await resend(opened)
    decided = "in_doubt" if in_doubt else "resend" if resend_ else ""
    if common.json:
        print_json(
            {
                **msgspec.to_builtins(found),
                "decision": decided,
                "moved": moved,
                "released": bool(found.held and decided),
            }
        )
    else:
        _show(found, decided, moved)


def _show(found: Found, decided: str, moved: int) -> None:
    if not found.held:
        say("nothing to reconcile: no restore was noticed, dispatchers claim as always")
        return
    say(f"all claiming is stopped since {found.since:%Y-%m-%d %H:%M:%S} UTC: {found.why}")
    if found.rows:
        print_table(
            ["state", "stream", "open", "accepted before"],
            [(r.state, r.stream, r.n, r.before) for r in found.rows],
        )
    match decided:
        case "in_doubt":
            say(f"{moved:,} are in doubt now; dispatchers claim again")
        case "resend":
            say(f"{moved:,} that were leased are queued again; dispatchers claim again")
        case _:
            say(_EXPLANATION)
