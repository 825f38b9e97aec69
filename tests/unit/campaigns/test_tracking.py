"""A click leads where the mail said, a pixel to its delivery; what was changed leads nowhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.campaigns.destination import clean
from gateway.campaigns.links import Link, compile_links
from gateway.campaigns.tracking import Click, click_token, destination_of, open_token, read_click, read_open
from gateway.model.token import Purpose, Refusal, from_base64url, to_base64url
from gateway.mta.keys import derive_ring

MASTER = b"m" * 32
CLICK, OPEN = derive_ring(MASTER, Purpose.CLICK), derive_ring(MASTER, Purpose.OPEN)
DAY = 20_783
LINKS = compile_links(
    '<a href="https://x.example/a">a</a><a href="https://x.example/b">b</a><a href="{{ url }}">c</a>'
).links
IDS = st.integers(0, 2**63 - 1)
URL_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


def token(delivery_id: int, link: Link, destination: str = "") -> str:
    return click_token(CLICK, DAY, delivery_id, link, destination or link.destination)


@given(IDS, st.sampled_from(LINKS[:2]))
def test_a_link_of_the_message_is_found_among_its_links(delivery_id: int, link: Link) -> None:
    click = read_click(CLICK, token(delivery_id, link))
    assert isinstance(click, Click)
    assert (click.delivery_id, click.number, click.destination) == (delivery_id, link.number, "")
    assert destination_of(click, LINKS) == link.destination


@given(IDS, st.text(max_size=80))
def test_a_link_of_the_recipient_brings_its_url(delivery_id: int, path: str) -> None:
    url = clean("https://x.example/" + path)
    if url:
        click = read_click(CLICK, token(delivery_id, LINKS[2], url))
        assert isinstance(click, Click)
        assert (click.delivery_id, click.number, click.destination) == (delivery_id, 2, url)
        assert destination_of(click, ()) == url


@given(IDS, st.sampled_from(LINKS), st.data())
def test_refuses_any_changed_character_and_any_length(
    delivery_id: int, link: Link, data: st.DataObject
) -> None:
    text = token(delivery_id, link, "" if link.static else "https://x.example/?id=1")
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from(URL_ALPHABET + "=+/ ")) + text[at + 1 :]
    if changed != text:
        assert isinstance(read_click(CLICK, changed), Refusal)
    assert isinstance(read_click(CLICK, text[:at]), Refusal)
    assert isinstance(read_click(CLICK, text + changed), Refusal)


@given(IDS, st.data())
def test_refuses_any_flipped_bit_of_a_pixel(delivery_id: int, data: st.DataObject) -> None:
    text = open_token(OPEN, DAY, delivery_id)
    octets = bytearray(from_base64url(text) or b"")
    assert read_open(OPEN, text) == delivery_id
    bit = data.draw(st.integers(0, len(octets) * 8 - 1))
    octets[bit // 8] ^= 1 << bit % 8
    assert isinstance(read_open(OPEN, to_base64url(bytes(octets))), Refusal)


def test_a_link_whose_url_is_another_now_leads_nowhere() -> None:
    click = read_click(CLICK, token(7, LINKS[0]))
    assert isinstance(click, Click)
    changed = compile_links('<a href="https://evil.example/a">a</a><a href="https://x.example/b">b</a>').links
    assert destination_of(click, changed) is None


def test_links_numbered_anew_still_lead_where_the_mail_said() -> None:
    click = read_click(CLICK, token(7, LINKS[1]))
    assert isinstance(click, Click)
    assert destination_of(click, LINKS[1:]) == "https://x.example/b"


def test_one_purposes_token_is_no_others() -> None:
    assert read_open(OPEN, token(7, LINKS[0])) is Refusal.MALFORMED
    assert read_open(CLICK, open_token(OPEN, DAY, 7)) is Refusal.WRONG_MAC
    assert read_click(OPEN, token(7, LINKS[0])) is Refusal.WRONG_MAC
    assert isinstance(read_click(derive_ring(b"n" * 32, Purpose.CLICK), token(7, LINKS[0])), Refusal)


def test_another_deliverys_mac_is_refused() -> None:
    one, other = (from_base64url(token(delivery, LINKS[0])) or b"" for delivery in (7, 8))
    assert read_click(CLICK, to_base64url(one[:-10] + other[-10:])) is Refusal.WRONG_MAC


@pytest.mark.parametrize("body", [b"", b"short", b"\0" * 10 + b"12345", b"\0" * 8 + b"\x80\0javascript:1"])
def test_what_has_a_mac_but_no_sense_is_malformed(body: bytes) -> None:
    assert isinstance(read_click(CLICK, to_base64url(CLICK.issue(DAY, body, 10))), Refusal)


@given(st.text(max_size=60))
def test_any_text_is_refused(text: str) -> None:
    assert isinstance(read_click(CLICK, text), Refusal)
    assert isinstance(read_open(OPEN, text), Refusal)


def test_they_are_short() -> None:
    assert len(token(2**62, LINKS[0])) == 36
    assert len(open_token(OPEN, DAY, 2**62)) == 28
