"""The contacts of the demo as a CSV file: some thousand good rows, a handful of bad ones. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from gateway.campaigns.csv_rows import COLUMNS

_FIRST = (
    "Ada",
    "Grace",
    "Alan",
    "Edsger",
    "Barbara",
    "Donald",
    "Radia",
    "Ken",
    "Frances",
    "Niklaus",
    "Zoë",
    "José",
)
_LAST = (
    "Lovelace",
    "Hopper",
    "Turing",
    "Dijkstra",
    "Liskov",
    "Knuth",
    "Perlman",
    "Thompson",
    "Allen",
    "Wirth",
)
_COMPANIES = ("Analytical Engines", "Bombe & Co.", "Structured Ltd.", "Spanning Trees")

BAD_ROWS = (
    ("", "No", "Address", "", "", ""),
    ("no-at-sign.example", "No", "At", "", "", ""),
    ("two@@signs.example", "Two", "Signs", "", "", ""),
    ("space in@local.example", "A", "Space", "", "", ""),
    ("someone@-bad-.example", "Bad", "Domain", "", "", ""),
    ("too@many.example", "Too", "Many", "", "", "", "and one more"),
)
"""Rows that an import refuses, each for another reason; the last one has more fields than the header."""


def domain(number: int) -> str:
    """The name of a recipient domain, from 0."""
    return f"mail{number:03}.example"


def addresses(count: int, domains: int) -> Iterator[str]:
    """`count` different addresses, spread evenly over `domains` domains."""
    for number in range(count):
        first, last = _FIRST[number % len(_FIRST)], _LAST[number // len(_FIRST) % len(_LAST)]
        local = f"{first}.{last}{number}".lower().translate(str.maketrans("ëé", "ee"))
        yield f"{local}@{domain(number % domains)}"


def make_csv(count: int, domains: int) -> bytes:
    """The file: `count` contacts, and the bad rows spread among them."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow((*COLUMNS, "company"))
    bad_at = {(place + 1) * count // (len(BAD_ROWS) + 1): row for place, row in enumerate(BAD_ROWS)}
    for number, address in enumerate(addresses(count, domains)):
        if number in bad_at:
            writer.writerow(bad_at[number])
        writer.writerow(
            (
                address,
                _FIRST[number % len(_FIRST)],
                _LAST[number // len(_FIRST) % len(_LAST)],
                "",
                "prospect" if number % 3 else "customer",
                _COMPANIES[number % len(_COMPANIES)],
            )
        )
    return out.getvalue().encode()
