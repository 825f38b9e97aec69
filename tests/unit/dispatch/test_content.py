"""What a dispatcher keeps of messages is bounded, however many and however large they are; what it makes of them has each field once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.campaigns.tracking import Click, read_click
from gateway.config import ApiConfig, Config, TrackConfig
from gateway.dispatch.content import CACHED_BYTES, CACHED_MESSAGES, Contents
from gateway.dispatch.message import names_of
from gateway.model.delivery import Leased
from gateway.model.token import Purpose
from gateway.mta.attachment import Attachment, pack_attachments
from gateway.mta.keys import derive_ring, generate_rsa_key, seal

MASTER = b"k" * 32


@cache
def sealed() -> bytes:
    return seal(generate_rsa_key(), MASTER, "a.example")


def row(
    number: int, *, file_bytes: int = 0, verified: bool = True, headers: str | None = None
) -> dict[str, Any]:
    files = (
        pack_attachments([Attachment("f.bin", "application/octet-stream", b"x" * file_bytes)])
        if file_bytes
        else None
    )
    return {
        "id": number, "site_id": 1, "broadcast_id": None, "stream": "transactional", "sender": "a@a.example", "reply_to": "", "subject": "s",
        "html": "", "text": "t", "headers": headers, "template": "", "attachments": files, "domain_id": 1, "domain": "a.example", "selector": "s1",
        "algorithm": "rsa-sha256", "private_key_sealed": sealed() if verified else None, "further_keys": "[]",
    }  # fmt: skip


def load(contents: Contents, numbers: range, **options: Any) -> None:
    asked = contents.missing(set(numbers))
    contents.trim()
    contents.add(asked, [row(number, **options) for number in asked])


def kept(contents: Contents, numbers: range) -> set[int]:
    return set(numbers) - set(contents.missing(set(numbers)))


def test_the_least_used_of_many_messages_go() -> None:
    contents = Contents(names_of(Config()), MASTER)
    load(contents, range(1, CACHED_MESSAGES + 1))
    contents.missing({1})  # used just now
    load(contents, range(CACHED_MESSAGES + 1, CACHED_MESSAGES + 11))
    load(contents, range(CACHED_MESSAGES + 11, CACHED_MESSAGES + 12))
    left = kept(contents, range(1, CACHED_MESSAGES + 12))
    assert len(left) == CACHED_MESSAGES + 1
    assert 1 in left
    assert not left & set(range(2, 12))


def test_messages_with_large_files_are_few() -> None:
    contents = Contents(names_of(Config()), MASTER)
    for number in range(1, 40):
        load(contents, range(number, number + 1), file_bytes=2**20)
    assert 2**20 * 2 * len(kept(contents, range(1, 40))) <= CACHED_BYTES + 2 * 2**21


@pytest.mark.parametrize("verified", [False])
def test_what_may_be_mended_is_looked_at_again(verified: bool) -> None:
    contents = Contents(names_of(Config()), MASTER)
    load(contents, range(1, 2), verified=verified)
    assert kept(contents, range(1, 2)) == {1}
    load(contents, range(2, 3))
    assert kept(contents, range(1, 2)) == set()


def delivery(message_id: int, variables: str | None = None) -> Leased:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Leased(
        id=message_id * 1024, epoch=1, lane_id=1, site_id=1, message_id=message_id, broadcast_id=0, priority=0, attempts=0, crashes=0,
        doubts=0, recipient="b@b.example", variables=variables, accepted_at=now, expires_at=now + timedelta(days=2), suppressed=False,
        planned_at=0.0, late_at=0.0, last_moment=0.0,
    )  # fmt: skip


def test_a_field_that_is_ours_stands_once_though_a_site_gave_it_when_it_still_could() -> None:
    contents = Contents(names_of(Config()), MASTER)
    load(contents, range(1, 2), headers='{"feedback-id": "x", "X-Note": "y", "X-GATEWAY-DELIVERY": "7"}')
    message = message_from_bytes(contents.make(delivery(1)).content)
    assert message.get_all("X-Note") == ["y"]
    assert message.get_all("X-Gateway-Delivery") == ["1024"]
    [feedback] = message.get_all("Feedback-ID", [])
    assert feedback.endswith(":transactional:gateway")


TRACKED = Config(api=ApiConfig(public_url="https://mail.example"), track=TrackConfig(url="https://t.example"))
TEXT = "Dear {{ name }},\nhttps://x.example/a (https://x.example/{{ id }}), https://mail.example/u/own\n{% if id %}https://x.example/c{% endif %}\n"
HTML = '<p>{{ name }}</p><a href="https://x.example/b">b</a><a href="https://x.example/a">a</a>'


def parts(content: bytes) -> list[str]:
    """The bodies of a message's text parts."""
    return [
        str(part.get_payload(decode=True), "utf-8").replace("\r\n", "\n")  # type: ignore[arg-type]
        for part in message_from_bytes(content).walk()
        if isinstance(part, Message) and not part.is_multipart()
    ]


def led(url: str) -> tuple[int, str, bytes]:
    """What a tracked URL says: number, destination, fingerprint."""
    assert url.startswith("https://t.example/c/")
    click = read_click(derive_ring(MASTER, Purpose.CLICK), urlsplit(url).path.removeprefix("/c/"))
    assert isinstance(click, Click)
    return click.number, click.destination, click.fingerprint


@pytest.mark.parametrize("whole", ["", "{% assign x = 1 %}"])
@pytest.mark.parametrize("name", ["Ann", "Zoë"])
def test_links_of_the_text_are_tracked_as_those_of_the_html_are(whole: str, name: str) -> None:
    """By pieces or rendered whole, in 7bit or not."""
    contents = Contents(names_of(TRACKED), MASTER)
    contents.add(
        [1], [row(1) | {"stream": "marketing", "template": "inline", "text": whole + TEXT, "html": HTML}]
    )
    mail = contents.make(delivery(1, f'{{"name": "{name}", "id": 7}}'))
    assert mail == contents.make(delivery(1, f'{{"name": "{name}", "id": 7}}'))
    text, html = parts(mail.content)
    urls = re.findall(r"https://[^\s),]+", text)
    assert text == f"Dear {name},\n{urls[0]} ({urls[1]}), https://mail.example/u/own\n{urls[3]}\n"
    assert [led(url)[:2] for url in (urls[0], urls[1], urls[3])] == [
        (1, ""), (2, "https://x.example/7"), (4, ""),
    ]  # fmt: skip
    assert f'href="{urls[0].removesuffix("?t")}"' in html, "the same link is the same token"


def test_text_alone_is_tracked_and_transactional_text_is_not() -> None:
    contents = Contents(names_of(TRACKED), MASTER)
    text = {"text": "https://x.example/a {{ literally", "html": ""}
    contents.add([1, 2], [row(1) | text | {"stream": "marketing"}, row(2) | text])
    [marketing], [transactional] = (parts(contents.make(delivery(number)).content) for number in (1, 2))
    url, _, rest = marketing.partition(" ")
    assert led(url)[:2] == (0, "")
    assert rest == "{{ literally\n"
    assert transactional == "https://x.example/a {{ literally\n"
