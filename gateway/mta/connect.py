"""One session to whichever of a domain's hosts takes it: the first address that answers, best host first.

Owns how many addresses are tried and which failure is told when all fail. The order is `mta/mx_plan.py`'s, the session
`mta/wire.py`'s. RFC 5321 §5.1. Connects to the addresses that were vetted, never to a name: what a second look-up would say
does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.model.disposition import BounceClass, Disposition
from gateway.mta.channel import Trace
from gateway.mta.mx_plan import Hosts, tries
from gateway.mta.reply import TEXT_LIMIT, Judge, classify
from gateway.mta.wire import Session, SessionFailed, Timeouts, TlsPolicy, open_session

MOST_TRIES: Final = 5
"""Addresses tried for one session."""


async def open_first(
    hosts: Hosts,
    helo_name: str,
    timeouts: Timeouts,
    *,
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC,
    most_tries: int = MOST_TRIES,
    judge: Judge = classify,
    trace: Trace | None = None,
) -> Session:
    """Open a session to the first host and address that takes it.

    Trouble with a connection leads to the next address; a refusal in words (4xx or 5xx before MAIL) is the whole host's and
    leads to the next host.

    Raises:
        SessionFailed: nobody did; with the most telling of the failures, and where it was met.
    """
    failures: list[Disposition] = []
    places: list[str] = []
    refusing: set[str] = set()
    for host, address in tries(hosts):
        if len(failures) == most_tries:
            break
        if host.name in refusing:
            continue
        try:
            return await open_session(
                address,
                hosts.port,
                helo_name,
                timeouts,
                tls=tls,
                server_name=host.name.strip("[]"),
                judge=judge,
                trace=trace,
            )
        except SessionFailed as failure:
            failures.append(failure.disposition)
            places.append(host.name if address in host.name else f"{host.name} [{address}]")
            if failure.disposition.code:
                refusing.add(host.name)
    told = most_telling(failures)
    count = f"; {len(failures)} addresses tried" if len(failures) > 1 else ""
    raise SessionFailed(_with_place(failures[told], f" ({places[told]}{count})"))


def most_telling(failures: Sequence[Disposition]) -> int:
    """Return which failure says most: a reply, then bytes that are none, then silence, then no connection; the first of equals.

    The first is the best host's: its 554 is the domain's word, whatever a second host says after it.
    """
    return max(range(len(failures)), key=lambda place: _weight(failures[place]))


def _weight(failure: Disposition) -> int:
    if failure.code:
        return 3
    return {BounceClass.PROTOCOL: 2, BounceClass.TIMEOUT: 1}.get(failure.bounce_class, 0)


def _with_place(failure: Disposition, suffix: str) -> Disposition:
    return msgspec.structs.replace(failure, text=failure.text[: TEXT_LIMIT - len(suffix)] + suffix)
