from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from bench.load.letter import (
    HTML_BYTES,
    ITEMS,
    LINKS,
    OVERHEAD_BYTES,
    RECIPIENTS,
    SUBJECT,
    TEXT,
    fill,
    html,
    requests,
)
from bench.load.scenario import SCENARIOS, Scenario
from gateway.mta.mime import MailContent, build, dot_stuff

SIGNED_BYTES = 950
"""Signature, Feedback-ID, List-Unsubscribe and X-Gateway-Delivery."""


@pytest.mark.parametrize("size", [5_000, HTML_BYTES, 100_000])
def test_the_letter_has_its_size_as_it_is_sent(size: int) -> None:
    sent = fill(html(size), 1_000_000).replace("\n", "\r\n")
    assert abs(len(sent) - size) < 100


def test_the_letter_has_its_links_also_where_it_is_short() -> None:
    for size in (100, HTML_BYTES):
        assert html(size).count("who={{ first_name }}") == LINKS


@pytest.mark.parametrize(
    ("scenario", "size"),
    [(one, 100_000 if one.name == "large" else 14_000) for one in SCENARIOS],
    ids=lambda one: one.name if isinstance(one, Scenario) else "",
)
def test_a_message_has_its_size_on_the_wire(scenario: Scenario, size: int) -> None:
    message = MailContent(
        sender="News <news@mail.site.test>",
        subject=fill(SUBJECT, 1_000_000),
        text=fill(TEXT, 1_000_000),
        html=fill(html(scenario.html_bytes), 1_000_000),
    )
    raw = build(
        message,
        to="user1000000@d1.test",
        message_id="dlv_00000000000000@localhost",
        date=datetime(2026, 11, 26, tzinfo=UTC),
        boundary="=_b",
    )
    assert 0.97 * size < len(dot_stuff(raw)) + SIGNED_BYTES < 1.03 * size
    assert scenario.html_bytes + OVERHEAD_BYTES == size


def test_personal_requests_share_one_message_among_many() -> None:
    made = list(requests("personal", HTML_BYTES, 10, RECIPIENTS + 7, 3))
    assert [one.deliveries for one in made] == [RECIPIENTS, 7]
    body = msgspec.json.decode(made[1].body)
    assert body["to"][0] == {
        "email": f"user{10 + RECIPIENTS}@d{(10 + RECIPIENTS) % 3}.test",
        "variables": {"first_name": f"Ann{10 + RECIPIENTS}", "city": "Oslo", "plan": "pro"},
    }
    assert "{{ first_name }}" in body["html"]


def test_own_content_differs_from_message_to_message_and_has_nothing_left_to_fill() -> None:
    made = list(requests("own", HTML_BYTES, 0, ITEMS + 1, 3))
    assert [one.deliveries for one in made] == [ITEMS, 1]
    items = msgspec.json.decode(made[0].body)
    assert len({item["html"] for item in items}) == len({item["to"] for item in items}) == ITEMS
    assert not any("{{" in item["html"] + item["subject"] + item["text"] for item in items)
