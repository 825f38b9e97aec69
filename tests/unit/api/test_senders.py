"""A display name reaches the reader as it was given, whatever is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.senders import Mailbox, read_mailbox
from gateway.mta.mime import MailContent, build


def shown(mailbox: str) -> tuple[str, str]:
    """Name and address of a From field, read by the stdlib."""
    raw = build(
        MailContent(sender=mailbox, subject="s", text="t"),
        to="b@c.example", message_id="1@x.example", date=datetime(2026, 1, 2, tzinfo=UTC), boundary="=_b0undary",
    )  # fmt: skip
    name, address = parseaddr("".join(message_from_bytes(raw)["From"].splitlines()))
    return str(make_header(decode_header(name))) if name else "", address


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="<>"), max_size=60))
def test_a_display_name_arrives_as_it_was_given(name: str) -> None:
    mailbox = read_mailbox(Mailbox("a@acme.example", name), "/from").mailbox
    assert shown(mailbox) == (name.strip(), "a@acme.example")


@pytest.mark.parametrize(
    "name",
    ['"Bob"', '"Bob" and "Al"', 'Bob "the Builder"', '"', '"\\"', '"a\\b"', "a\\", "\\", 'ü "ü"', '"ü"'],
)
def test_quotes_of_a_display_name_are_its_own(name: str) -> None:
    assert shown(read_mailbox(Mailbox("a@acme.example", name), "/from").mailbox)[0] == name


@pytest.mark.parametrize(
    ("given_as", "name"),
    [
        ('"Doe, Ann" <a@acme.example>', "Doe, Ann"),
        ('"a \\"b\\" \\\\c" <a@acme.example>', 'a "b" \\c'),
        ('"\\"Bob\\"" <a@acme.example>', '"Bob"'),
        ('"Bob" and "Al" <a@acme.example>', '"Bob" and "Al"'),
        ("Ann <a@acme.example>", "Ann"),
        ("a@acme.example", ""),
    ],
)
def test_a_quoted_string_is_read_as_what_it_quotes(given_as: str, name: str) -> None:
    assert shown(read_mailbox(given_as, "/from").mailbox) == (name, "a@acme.example")
