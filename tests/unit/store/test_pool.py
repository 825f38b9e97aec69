"""What a DSN looks like in a message: never with its password."""

from __future__ import annotations

import pytest

from gateway.store.pool import describe


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://gateway@/gateway?host=/tmp/x&port=5432", "gateway@/tmp/x/gateway"),
        ("postgresql://app:hunter2@db.example:6543/mail", "app@db.example:6543/mail"),
        ("postgresql://app:hunter2@[::1]/mail", "app@::1/mail"),
        ("postgresql:///mail", "default user@localhost/mail"),
        ("postgresql://app:hunter2@db:port/mail", "(unreadable DSN)"),
    ],
)
def test_describe_names_the_place_and_keeps_the_password(dsn: str, said: str) -> None:
    assert describe(dsn) == said
