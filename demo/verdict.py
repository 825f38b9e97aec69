"""Whether the gateway's books agree with what the receiving world wrote down by itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bench.load.ledger import Books, Findings, Ledger, compare, read
from gateway.model.ids import Prefix, encode
from gateway.store.books import Outcomes, read_outcomes, read_recipients
from gateway.store.pool import connect

_NAMED = 10


@dataclass(frozen=True)
class Verdict:
    """The comparison, and the names of what does not agree."""

    findings: Findings
    in_doubt: int
    in_doubt_taken: int
    names: dict[str, str]

    @property
    def balanced(self) -> bool:
        """Whether books and ledger account for each other."""
        return self.findings.balanced

    def lines(self) -> list[str]:
        """What was found, in words; what is lost or unbooked by id and recipient."""
        out = self.findings.lines()
        out += [f"    {key} is {name}" for key, name in self.names.items()]
        if self.in_doubt:
            out.append(
                f"  {self.in_doubt:,} are in doubt (the connection broke after the final dot); the receiver did take "
                f"{self.in_doubt_taken:,} of them: none was lost, and none was sent twice in silence"
            )
        return out


def judge(dsn: str, ledger_path: Path) -> Verdict:
    """Compare the database with the sink's ledger, once nothing is in flight any more."""
    ledger = read(ledger_path, by="delivery")
    return asyncio.run(_judge(dsn, ledger))


async def _judge(dsn: str, ledger: Ledger) -> Verdict:
    connection = await connect(dsn, application_name="demo")
    try:
        outcomes = await read_outcomes(connection)
        findings = compare(_books(outcomes), ledger)
        odd = [*findings.missing, *findings.unproven, *findings.unknown, *findings.undoubted][:_NAMED]
        ids = [int(key) for key in odd if key.isdecimal()]
        recipients = await read_recipients(connection, ids)
    finally:
        await connection.close()
    names = {
        str(id_): f"{encode(Prefix.DELIVERY, id_)} to {recipients.get(id_, 'nobody we know')}" for id_ in ids
    }
    doubted = {str(id_) for id_ in outcomes.ever_in_doubt}
    return Verdict(findings, len(doubted), len(doubted & ledger.accepted), names)


def _books(outcomes: Outcomes) -> Books:
    return Books(
        delivered={str(id_) for id_ in outcomes.delivered},
        in_doubt={str(id_) for id_ in outcomes.ever_in_doubt},
        ended={str(id_) for id_ in outcomes.undelivered},
    )
