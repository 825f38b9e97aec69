"""Header values for lists and complaints, as they go into a message."""

from __future__ import annotations

import pytest

from gateway.model.stream import Stream
from gateway.mta.list_headers import cfbl_address, cfbl_feedback_id, feedback_id, list_id, unsubscribe_value
from gateway.mta.mime import MailContent, Stencil
from tests.unit.mta.test_verp import ACCEPTED_AT


def test_feedback_id_holds_plain_ids() -> None:
    assert feedback_id(5, 3, Stream.MARKETING, "gateway") == (
        "Feedback-ID",
        "brd_0000000000005:site_0000000000003:marketing:gateway",
    )
    assert feedback_id(0, 3, Stream.TRANSACTIONAL, "gateway")[1].startswith("-:site_")


@pytest.mark.parametrize("sender_id", ["", "four", "sixteen-letters!", "a" * 16, "a:bcd", "ab cd"])
def test_refuses_a_sender_id_that_gmail_does_not_take(sender_id: str) -> None:
    with pytest.raises(ValueError, match="SenderId"):
        feedback_id(1, 1, Stream.MARKETING, sender_id)


def test_they_all_go_into_a_message() -> None:
    own = (
        feedback_id(5, 3, Stream.MARKETING, "gateway"),
        cfbl_address("f-token@bounce.example.net"),
        cfbl_feedback_id("a" * 40),
    )
    content = MailContent(
        sender="a@example.org", subject="s", text="t", headers=(list_id(9, "news.example.org"),), own=own,
        fields=("List-Unsubscribe", "List-Unsubscribe-Post")
    )  # fmt: skip
    message = (
        Stencil(content, boundary="b")
        .fill(
            to="b@example.net",
            date=ACCEPTED_AT,
            message_id="1@example.org",
            fields=(
                unsubscribe_value("https://t.example.org/u/token", "u-token@bounce.example.net"),
                "List-Unsubscribe=One-Click",
            ),
        )
        .message.replace(b"\r\n ", b" ")
    )
    for line in (
        b"Feedback-ID: brd_0000000000005:site_0000000000003:marketing:gateway",
        b"List-ID: <lst_0000000000009.news.example.org>",
        b"CFBL-Address: f-token@bounce.example.net; report=arf",
        b"CFBL-Feedback-ID: " + b"a" * 40,
        b"List-Unsubscribe: <https://t.example.org/u/token>, <mailto:u-token@bounce.example.net>",
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click",
    ):
        assert b"\r\n" + line + b"\r\n" in message
