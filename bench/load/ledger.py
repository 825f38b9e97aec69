"""The sink's ledger: its format, its reader, and the comparison of the gateway's books with it. Pure but for ``read``.

Format: one event a line, tab-separated, UTF-8, each line written whole by ``write()`` before its reply is sent, so
that a kill loses nothing that anyone was told. A last line without its newline is not an event yet. Fields::

    kind        accepted | refused | dropped (the connection, with the message not taken)
    at_s        when, in seconds of CLOCK_MONOTONIC (Python's time.monotonic), 6 decimals
    code        reply code; 0 where no reply was sent
    replied     1: the sink sent the reply, 0: it sent none (or, for badreply, none that can be read)
    size        octets of the content on the wire, dot-stuffed; 0 for what ended before the content
    recipient   as in RCPT TO, domain in lower case
    message_id  the header Message-ID without <>; empty where none was seen
    delivery    the header X-Gateway-Delivery; empty where there is none

Keys: books and ledger meet on a ``str``, either "message_id recipient" (see ``message_key``) or the delivery header.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

ACCEPTED: Final = b"accepted"
REFUSED: Final = b"refused"
DROPPED: Final = b"dropped"

KeyBy = Literal["message", "delivery"]

_EXAMPLES: Final = 5
_CLEAN: Final = bytes(b if 32 <= b != 127 else 63 for b in range(256))  # a control character becomes "?"


def event(
    kind: bytes,
    at_s: float,
    code: int,
    recipient: bytes,
    *,
    replied: bool = True,
    size: int = 0,
    message_id: bytes = b"",
    delivery: bytes = b"",
) -> bytes:
    """One line of the ledger, with its newline. Control characters in the three texts become ``?``."""
    texts = b"%s\t%s\t%s" % (
        recipient.translate(_CLEAN),
        message_id.translate(_CLEAN),
        delivery.translate(_CLEAN),
    )
    return b"%s\t%.6f\t%d\t%d\t%d\t%s\n" % (kind, at_s, code, replied, size, texts)


def message_key(message_id: str, recipient: str) -> str:
    """The key of a message to one recipient, whether or not ``message_id`` has its <>, domain in any case."""
    local, at, domain = recipient.rpartition("@")
    return f"{message_id.strip().strip('<>')} {local}{at}{domain.lower()}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the sink saw. ``replied`` and ``unreplied`` are keys accepted at least once with, and without, a 250."""

    replied: Set[str] = field(default_factory=frozenset[str])
    unreplied: Set[str] = field(default_factory=frozenset[str])
    duplicates: Mapping[str, int] = field(default_factory=dict[str, int])  # key → times accepted, from 2
    accepts: int = 0  # events, duplicates included
    refused: Mapping[int, int] = field(default_factory=dict[int, int])  # code → events
    dropped: int = 0  # connections dropped with a recipient not taken
    first_s: float = 0.0  # monotonic, of the first and last accept; 0 without any
    last_s: float = 0.0

    @property
    def accepted(self) -> Set[str]:
        """Keys accepted at least once, with or without a reply."""
        return self.replied | self.unreplied


def read(path: Path | str, by: KeyBy = "message") -> Ledger:
    """The ledger in ``path``, also while the sink is writing it. About 2 s for 1,000,000 events.

    ``by="delivery"`` keys on X-Gateway-Delivery, and on the message where that header was missing.
    Raises: OSError; ValueError naming the line for what this module did not write.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return parse(lines, by)


def parse(lines: Iterable[str], by: KeyBy = "message") -> Ledger:
    """The ledger in ``lines``, each with its newline. Raises ValueError as ``read`` does."""
    replied: set[str] = set()
    unreplied: set[str] = set()
    refused: Counter[int] = Counter()
    times: dict[str, int] = {}
    accepts = dropped = 0
    first = last = ""
    deliveries = by == "delivery"
    for number, line in enumerate(lines, 1):
        if line[-1:] != "\n":
            break  # still being written, or torn by a kill: nobody was told
        try:
            kind, at, code, told, _, recipient, message_id, delivery = line[:-1].split("\t")
        except ValueError:
            raise ValueError(f"ledger line {number}: 8 fields expected: {line[:80]!r}") from None
        if kind == "accepted":
            key = delivery if deliveries and delivery else f"{message_id} {recipient}"
            known = replied if told == "1" else unreplied
            if key in replied or key in unreplied:
                times[key] = times.get(key, 1) + 1
            known.add(key)
            accepts += 1
            first, last = first or at, at
        elif kind == "refused":
            refused[int(code)] += 1
        elif kind == "dropped":
            dropped += 1
        else:
            raise ValueError(f"ledger line {number}: unknown kind {kind!r}")
    return Ledger(
        replied, unreplied, times, accepts, dict(refused), dropped, float(first or 0), float(last or 0)
    )


@dataclass(frozen=True, slots=True)
class Books:
    """What the gateway says, as keys like the ledger's.

    ``in_doubt`` holds what is in doubt now *or ever was*, whatever became of it since; it may overlap the others.
    ``ended`` is what ended undelivered (bounced, expired, …). What is in no set is still open.
    """

    delivered: Set[str]
    in_doubt: Set[str] = field(default_factory=frozenset[str])
    ended: Set[str] = field(default_factory=frozenset[str])


@dataclass(frozen=True, slots=True)
class Findings:
    """Where books and ledger differ, each sorted. All empty but ``duplicates``: balanced.

    Duplicates of what was in doubt are the price of not losing it, and known; the others are a fault.
    """

    missing: tuple[str, ...]  # booked as delivered, the sink never took it: lost
    unproven: tuple[str, ...]  # booked as delivered, never in doubt, but the sink never sent a 250
    unknown: tuple[str, ...]  # the sink sent a 250; neither delivered nor ever in doubt in the books
    undoubted: tuple[str, ...]  # taken without a reply; neither delivered nor ever in doubt in the books
    contradicted: tuple[str, ...]  # booked as ended undelivered, but the sink took it: part of the two above
    duplicates: tuple[str, ...]  # taken more than once
    duplicates_not_in_doubt: tuple[str, ...]  # taken more than once, though never in doubt
    delivered: int
    accepted: int
    accepts: int

    @property
    def balanced(self) -> bool:
        """Whether the books account for everything that the sink saw."""
        return not (
            self.missing or self.unproven or self.unknown or self.undoubted or self.duplicates_not_in_doubt
        )

    def lines(self) -> list[str]:
        """What was found, for people: totals, then each kind of difference with its first few keys."""
        verdict = "balance" if self.balanced else "DO NOT BALANCE"
        out = [
            f"books {verdict}: {self.delivered:,} booked as delivered, {self.accepted:,} taken by the sink "
            f"({self.accepts:,} times), {len(self.duplicates):,} more than once"
        ]
        found = (
            ("lost: booked as delivered, never taken by the sink", self.missing),
            ("unproven: booked as delivered though the sink sent no 250, never in doubt", self.unproven),
            ("unbooked: the sink replied 250, the books do not say delivered or in doubt", self.unknown),
            ("undoubted: taken without a reply, the books do not say delivered or in doubt", self.undoubted),
            ("contradicted: of those two, booked as ended undelivered", self.contradicted),
            ("duplicated without ever having been in doubt", self.duplicates_not_in_doubt),
        )
        for what, keys in found:
            if keys:
                out.append(f"  {len(keys):,} {what}")
                out.extend(f"    {key}" for key in keys[:_EXAMPLES])
                if len(keys) > _EXAMPLES:
                    out.append(f"    … and {len(keys) - _EXAMPLES:,} more")
        return out


def compare(books: Books, ledger: Ledger) -> Findings:
    """What the gateway's ``books`` and the sink's ``ledger`` say differently, once nothing is in flight."""
    accepted = ledger.accepted
    doubted = books.in_doubt
    booked = books.delivered | doubted
    unreplied_only = ledger.unreplied - ledger.replied
    unknown = ledger.replied - booked
    undoubted = unreplied_only - booked
    duplicates = ledger.duplicates.keys()
    return Findings(
        missing=tuple(sorted(books.delivered - accepted)),
        unproven=tuple(sorted((books.delivered & unreplied_only) - doubted)),
        unknown=tuple(sorted(unknown)),
        undoubted=tuple(sorted(undoubted)),
        contradicted=tuple(sorted((unknown | undoubted) & books.ended)),
        duplicates=tuple(sorted(duplicates)),
        duplicates_not_in_doubt=tuple(sorted(duplicates - doubted)),
        delivered=len(books.delivered),
        accepted=len(accepted),
        accepts=ledger.accepts,
    )
