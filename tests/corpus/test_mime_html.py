"""Real newsletter templates go into a message and come out of another parser as they were, for plain recipients and for others."""

from __future__ import annotations

import email
import secrets
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.mta.canonical import signed_form
from gateway.mta.mime import MailContent, Stencil

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "html" / "templates.tar.xz"
SAMPLE = (
    '<!DOCTYPE html>\r\n<html>\n  <body bgcolor="#fff">\t\n<p>&nbsp;Straße 👋  </p>\n.\n..\nFrom here\n'
    + "x" * 1_200
    + "</body></html>"
)
_DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def templates() -> Iterator[tuple[str, str]]:
    yield "sample", SAMPLE
    if CORPUS.exists():
        with tarfile.open(CORPUS) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith((".html", ".htm")) else None
                if file is not None:
                    yield member.name, file.read().decode("utf-8", "replace")


def lines(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


@pytest.mark.parametrize("name", ["Ann", "Zoë\nund Söhne", ""])
def test_every_template_arrives_as_it_was(name: str) -> None:
    for which, html in templates():
        middle = len(html) // 2
        content = MailContent(
            sender="a@example.org", subject="s", text="t", html=(html[:middle], 0, html[middle:])
        )
        stencil = Stencil(content, boundary="=_" + secrets.token_hex(12), rooms=[100])
        filled = stencil.fill(to="b@example.net", date=_DATE, message_id="1@example.org", values=[name])
        assert filled.form == signed_form(filled.message), which
        assert filled.message.isascii(), which
        assert all(len(line) <= 998 for line in filled.message.split(b"\r\n")), which
        _, part = email.message_from_bytes(filled.message).get_payload()  # type: ignore[misc]
        read = part.get_payload(decode=True)  # type: ignore[union-attr]
        assert isinstance(read, bytes)
        assert lines(read.decode()) == lines(lines_of(html[:middle]) + name + lines_of(html[middle:])), which


def lines_of(text: str) -> str:
    """A CR at the end of one half and a LF at the start of the other are two line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
