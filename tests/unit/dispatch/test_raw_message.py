"""A message that came whole is made of what is kept, and one without its content is given up with its reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest

from gateway.config import Config
from gateway.dispatch.content import Contents
from gateway.dispatch.message import Unsendable, names_of
from gateway.model.delivery import Leased
from gateway.mta.keys import generate_rsa_key, seal
from gateway.mta.raw import RAW, pack_raw

MASTER = b"k" * 32
NOW = datetime(2026, 11, 26, tzinfo=UTC)
CAME = b"From: a@a.example\r\nMessage-ID: <1@a.example>\r\nDate: now\r\n\r\n.dot\r\n"


@cache
def sealed() -> bytes:
    return seal(generate_rsa_key(), MASTER, "a.example")


def contents(attachments: bytes | None, stream: str = "transactional") -> Contents:
    row: dict[str, Any] = {
        "id": 1, "site_id": 1, "broadcast_id": None, "stream": stream, "sender": "a@a.example", "reply_to": "", "subject": "s", "html": "",
        "text": "", "headers": None, "template": RAW, "attachments": attachments, "domain_id": 1, "domain": "a.example", "selector": "s1",
        "algorithm": "rsa-sha256", "private_key_sealed": sealed(), "further_keys": "[]",
    }  # fmt: skip
    found = Contents(names_of(Config()), MASTER)
    found.add([1], [row])
    return found


def delivery(place: int = 0) -> Leased:
    return Leased(
        id=1024 + place, epoch=1, lane_id=1, site_id=1, message_id=1, broadcast_id=0, priority=0, attempts=0, crashes=0, doubts=0,
        recipient="b@b.example", variables=None, accepted_at=NOW, expires_at=NOW + timedelta(days=2), suppressed=False, planned_at=0.0,
        late_at=0.0, last_moment=0.0,
    )  # fmt: skip


def test_it_goes_out_as_it_came_below_what_is_ours() -> None:
    mail = contents(pack_raw(CAME)).make(delivery())
    assert mail.content.endswith(CAME.replace(b"\r\n.dot", b"\r\n..dot"))
    assert mail.content.startswith(b"DKIM-Signature: ")
    assert b"\r\nX-Gateway-Delivery: 1024\r\n" in mail.content
    assert b"List-Unsubscribe" not in mail.content
    assert mail.sender.startswith("b-")
    assert mail.recipient == "b@b.example"


def test_every_attempt_sends_the_same_bytes_and_every_delivery_its_own() -> None:
    kept = contents(pack_raw(CAME))
    assert kept.make(delivery()) == kept.make(delivery()) == contents(pack_raw(CAME)).make(delivery())
    assert kept.make(delivery()).sender != kept.make(delivery(1)).sender


def test_marketing_mail_carries_our_way_out() -> None:
    content = contents(pack_raw(CAME), "marketing").make(delivery()).content
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in content


@pytest.mark.parametrize("attachments", [None, pack_raw(b"no header at all")])
def test_one_that_cannot_be_read_is_given_up(attachments: bytes | None) -> None:
    with pytest.raises(Unsendable) as caught:
        contents(attachments).make(delivery())
    assert caught.value.for_good
