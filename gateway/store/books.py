"""The books: every accepted delivery is in exactly one state, counted and, on request, proven id by id.

Owns the reading and the verdict. Must not change a row, nor know who asks. Accepted is what `acceptance` says; the open
ones are the rows of `queue`, the ended ones are counted in `tally` and recorded in `ended`. All of it is read in one
repeatable-read snapshot, so that it can be asked at any time while everything works.

Flow: `read_books` → `Books`, whose `balanced` is the verdict and whose `faults` says in words what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from gateway.model.delivery import ENDED, DeliveryState
from gateway.store.catalogue import load
from gateway.store.pool import Connection, outages_named

_SQL = load("books")
_RAISE_MEMORY = _SQL.raise_memory
_ACCOUNTS = _SQL.accounts
_FAULTY_IDS = _SQL.faulty_ids
_FAULTY_TALLIES = _SQL.faulty_tallies
_OUTCOMES = _SQL.outcomes
_RECIPIENTS = _SQL.recipients

SINGLE_MESSAGES: Final = 0
"""The broadcast id of what was submitted message by message."""

_IDS_NAMED = 20
_MEANING: Final[Mapping[str, str]] = {
    "lost": "accepted, but neither in the queue nor ended",
    "double": "with more than one record",
    "unknown": "in the queue or ended, but never accepted",
    "misplaced": "recorded under another site or broadcast than accepted",
}


class Account(msgspec.Struct, frozen=True):
    """Both sides of one broadcast's books: what was accepted, and how many stand in each state (zeros left out)."""

    broadcast_id: int
    accepted: int
    states: Mapping[str, int]

    @property
    def difference(self) -> int:
        """Accepted less counted: 0 when it balances, positive when something is missing."""
        return self.accepted - sum(self.states.values())

    def count(self, *states: str) -> int:
        """How many stand in these states together."""
        return sum(self.states.get(state, 0) for state in states)


class FaultyIds(msgspec.Struct, frozen=True):
    """Deliveries that are not exactly once where they belong: `lost`, `double`, `unknown` or `misplaced`.

    Attributes:
        ids: the lowest of them, at most 20.
    """

    kind: str
    n: int
    ids: tuple[int, ...]


class FaultyTally(msgspec.Struct, frozen=True):
    """A count of ended deliveries that is not the number of their records."""

    broadcast_id: int
    site_id: int
    state: str
    tallied: int
    ended: int


class Books(msgspec.Struct, frozen=True):
    """What one reading found.

    Attributes:
        accounts: by broadcast, in order; `SINGLE_MESSAGES` first where there are any.
        deep: whether the ids were proven too; if not, the two last fields are empty.
    """

    accounts: tuple[Account, ...]
    deep: bool = False
    faulty_ids: tuple[FaultyIds, ...] = ()
    faulty_tallies: tuple[FaultyTally, ...] = ()

    @property
    def overall(self) -> Account:
        """All broadcasts and single messages together; its broadcast id means nothing."""
        states: dict[str, int] = {}
        for account in self.accounts:
            for state, n in account.states.items():
                states[state] = states.get(state, 0) + n
        return Account(SINGLE_MESSAGES, sum(account.accepted for account in self.accounts), states)

    @property
    def balanced(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.faults()

    def faults(self) -> list[str]:
        """What is wrong, each in a sentence; empty when the books balance."""
        found = [
            f"{name_of(account.broadcast_id)}: accepted {account.accepted:,}, but its states add up to "
            f"{account.accepted - account.difference:,}: {abs(account.difference):,} "
            + ("missing" if account.difference > 0 else "too many")
            for account in self.accounts
            if account.difference
        ]
        for fault in self.faulty_ids:
            more = f" … and {fault.n - len(fault.ids):,} more" if fault.n > len(fault.ids) else ""
            found.append(
                f"{fault.n:,} {fault.kind} ({_MEANING[fault.kind]}): {', '.join(map(str, fault.ids))}{more}"
            )
        found += [
            f"{name_of(tally.broadcast_id)}, site {tally.site_id}: {tally.tallied:,} tallied as {tally.state}, "
            f"but {tally.ended:,} records ended so"
            for tally in self.faulty_tallies
        ]
        return found


class Outcomes(msgspec.Struct, frozen=True):
    """Ids of deliveries by what became of them, for a comparison with what receivers saw.

    Attributes:
        delivered: those that ended so.
        undelivered: those that ended otherwise.
        ever_in_doubt: those that are or were in doubt, whatever became of them since; overlaps the others.
    """

    delivered: frozenset[int]
    undelivered: frozenset[int]
    ever_in_doubt: frozenset[int]


def name_of(broadcast_id: int) -> str:
    """What messages call an account."""
    return "single messages" if broadcast_id == SINGLE_MESSAGES else f"broadcast {broadcast_id}"


async def read_books(connection: Connection, *, broadcast_id: int | None = None, deep: bool = False) -> Books:
    """Read the books of one broadcast, or all of them; changes nothing and waits for nobody.

    Args:
        connection: outside a transaction, as a role that sees every site.
        broadcast_id: a broadcast alone, `SINGLE_MESSAGES`, or None for everything.
        deep: also prove that each accepted id has one record, and each tally its records: 2 s for 1,000,000 ids (2 shared cores, 2026-11).

    Raises:
        StoreUnavailable: Postgres went away.
    """
    with outages_named("reading the books"):
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(_RAISE_MEMORY)
            entries = [tuple(row) for row in await connection.fetch(_ACCOUNTS, broadcast_id)]
            if not deep:
                return Books(_accounts(entries))
            ids = await connection.fetch(_FAULTY_IDS, broadcast_id, _IDS_NAMED)
            tallies = await connection.fetch(_FAULTY_TALLIES, broadcast_id)
    return Books(
        _accounts(entries),
        deep=True,
        faulty_ids=tuple(FaultyIds(row["kind"], row["n"], tuple(row["ids"])) for row in ids),
        faulty_tallies=tuple(FaultyTally(**dict(row)) for row in tallies),
    )


async def read_outcomes(connection: Connection, *, broadcast_id: int | None = None) -> Outcomes:
    """Read what became of each delivery of one broadcast, or of all.

    Raises:
        StoreUnavailable: Postgres went away.
    """
    with outages_named("reading outcomes"):
        rows = [tuple(row) for row in await connection.fetch(_OUTCOMES, broadcast_id)]
    return Outcomes(
        delivered=frozenset(id_ for id_, state, _ in rows if state == DeliveryState.DELIVERED),
        undelivered=frozenset(
            id_ for id_, state, _ in rows if state in ENDED and state != DeliveryState.DELIVERED
        ),
        ever_in_doubt=frozenset(id_ for id_, _, doubted in rows if doubted),
    )


async def read_recipients(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """Read to whom some deliveries go or went; ids that nobody knows are left out.

    Raises:
        StoreUnavailable: Postgres went away.
    """
    with outages_named("reading recipients"):
        return {row["id"]: row["recipient"] for row in await connection.fetch(_RECIPIENTS, list(ids))}


def _accounts(entries: Iterable[tuple[int, str, int]]) -> tuple[Account, ...]:
    accepted: dict[int, int] = {}
    states: dict[int, dict[str, int]] = {}
    for broadcast_id, entry, n in entries:
        of_broadcast = states.setdefault(broadcast_id, {})
        if entry == "accepted":
            accepted[broadcast_id] = n
        elif n:
            of_broadcast[entry] = n
    return tuple(Account(key, accepted.get(key, 0), states[key]) for key in sorted(states))
