"""What keeps a broadcast from being sent: each thing is named, and what is only told keeps nothing."""

from __future__ import annotations

import msgspec
import pytest

from gateway.campaigns.preflight import Facts, checks, is_ready

FINE = Facts(
    domain="acme.example",
    domain_verified=True,
    recipients=2,
    subject="Hello {{ name }}",
    html="",
    text="Dear {{ name }}",
    variables='{"name": "Ada"}',
    held_why=None,
    public_url="https://mail.acme.example",
)


def failed(facts: Facts) -> dict[str, str]:
    return {one.name: one.detail for one in checks(facts) if not one.passed}


def test_where_all_is_well_it_is_ready() -> None:
    assert failed(FINE) == {}
    assert is_ready(checks(FINE))


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        ({"domain_verified": False}, "domain_verified", "acme.example"),
        ({"recipients": 0}, "recipients", "nobody"),
        ({"text": "{{ 1 | divided_by: 0 }}"}, "template_renders", "text"),
        ({"subject": "{% nonsense %}"}, "template_renders", "subject"),
        ({"held_why": "unpaid"}, "site_sends", "unpaid"),
    ],
)
def test_what_is_required_is_named_and_it_is_not_ready(
    change: dict[str, object], name: str, says: str
) -> None:
    facts = msgspec.structs.replace(FINE, **change)
    assert list(failed(facts)) == [name]
    assert says in failed(facts)[name]
    assert not is_ready(checks(facts))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]", "http://10.1.2.3", "http://mail", "https://a.localhost",
        "https://mail.internal",
    ],
)  # fmt: skip
def test_links_that_nobody_outside_can_follow_are_told_and_keep_nothing(url: str) -> None:
    facts = msgspec.structs.replace(FINE, public_url=url)
    assert list(failed(facts)) == ["links_reachable"]
    assert is_ready(checks(facts))


def test_an_empty_list_is_rendered_without_variables() -> None:
    assert "template_renders" not in failed(msgspec.structs.replace(FINE, variables=None))
