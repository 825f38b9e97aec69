"""Canonicalisation vectors and real messages of other DKIM programs."""

import csv
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import dkim
import pytest

from gateway.mta.canonical import relaxed_body, relaxed_header
from gateway.mta.keys import generate_rsa_key, public_key_txt
from gateway.mta.sign import Signer

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "dkim"
pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="the shared corpus is not here")


def unescape(cell: str) -> str:
    return (
        cell.replace("\\\\", "\0")
        .replace("\\t", "\t")
        .replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\0", "\\")
    )


def relaxed(part: str, given: Any) -> Any:
    if part == "body":
        return relaxed_body(given.encode()).decode()
    if part == "headers":
        return [
            relaxed_header(n.encode(), v.removesuffix("\r\n").encode()).decode() + "\r\n" for n, v in given
        ]
    header, _, body = given.replace("\r\n", "\n").replace("\n", "\r\n").partition("\r\n\r\n")
    fields = re.split(r"\r\n(?![ \t])", header.removesuffix("\r\n"))
    lines = [
        relaxed_header(*(part.encode() for part in field.split(":", 1))).decode() + "\r\n" for field in fields
    ]
    return (
        "".join(lines) if part == "header" else "".join(lines) + "\r\n" + relaxed_body(body.encode()).decode()
    )


def test_canonicalisation_vectors() -> None:
    with (CORPUS / "canonicalisation.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    vectors = [row for row in rows if row["algo"] == "relaxed"]
    for row in vectors:
        given, expected = json.loads(unescape(row["input"])), json.loads(unescape(row["expected"]))
        got = relaxed(row["part"], given)
        if row["part"] == "headers":
            expected = [f"{name}:{value}" for name, value in expected]
        assert got == expected, row["id"]
    assert len(vectors) > 10


def test_messages_of_others_can_be_signed_again() -> None:
    pem = generate_rsa_key()
    signer, txt = Signer("example.org", "s1", pem), public_key_txt(pem).encode()
    with tarfile.open(CORPUS / "messages.tar.xz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None:
                continue
            message = file.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            if b"\r\nfrom:" in b"\r\n" + message.lower() and b"\r\n\r\n" in message:
                signed = signer.sign(message, timestamp=1) + message
                assert dkim.verify(signed, dnsfunc=lambda name, timeout=5: txt), member.name
