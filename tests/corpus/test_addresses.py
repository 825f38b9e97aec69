"""Addresses that other validators were tested with (isemail, email-validator, flanker).

The corpus contradicts itself in places; what we decide otherwise than it does is listed here with the reason.
"""

import csv
import json
from pathlib import Path

import pytest

from gateway.model.address import AddressError, parse

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "address" / "addresses.tsv"
SAMPLE = [
    ("test@about.museum", True),
    ('"Joe.\\Blow"@iana.org', True),
    ("test@iana..com", False),
    ("first\\@last@iana.org", False),
    ("юзер@екзампл.ком", True),
    ("me@\u037e.com", False),
]


def is_usable(text: str) -> bool:
    try:
        parse(text)
    except AddressError:
        return False
    return True


def our_own_decision(text: str, diagnosis: str) -> str:
    """Why we differ from the corpus on purpose, or nothing."""
    if "@[" in text:
        return "address literals are not accepted"
    if "<" in text and text.endswith(">"):
        return "one mailbox, no display name"
    if text.startswith("("):
        return "no comments"
    if "_" in text.rpartition("@")[2]:
        return "underscores are no host names"
    if "reserved" in diagnosis or text.endswith((".invalid", ".localhost", "@localhost", ".onion")):
        return "reserved domains are syntactically right, and tests need them"
    if text in ("me@bad.tld-2", "me@1.xn--4dbrk0ce"):
        return "rules of registries and of bidi across labels: DNS will say no"
    return ""


@pytest.mark.parametrize(("text", "usable"), SAMPLE)
def test_sample(text: str, usable: bool) -> None:
    assert is_usable(text) == usable


@pytest.mark.skipif(not CORPUS.exists(), reason="the shared corpus is not here")
def test_corpus() -> None:
    with CORPUS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    wrong: list[tuple[str, str]] = []
    for row in rows:
        text = json.loads(unescape(row["address"]))
        if (
            row["usable"]
            and is_usable(text) != (row["usable"] == "1")
            and not our_own_decision(text, row["diagnosis"])
        ):
            wrong.append((row["usable"], text))
    assert wrong == []


def unescape(cell: str) -> str:
    """Undo the corpus's escapes of tab, line ends and backslash."""
    return (
        cell.replace("\\\\", "\0")
        .replace("\\t", "\t")
        .replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\0", "\\")
    )
