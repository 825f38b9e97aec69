"""An address is taken whole or refused with the place; never cut, never with a line end in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.address import Address, AddressError, parse


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("alice@example.org", "alice", "example.org"),
        ("Alice.B+tag@Example.ORG", "Alice.B+tag", "example.org"),
        ("!#$%&'*+/=?^_`{|}~-@example.org", "!#$%&'*+/=?^_`{|}~-", "example.org"),
        ('"two words"@example.org', '"two words"', "example.org"),
        ('"needless"@example.org', "needless", "example.org"),
        (r'"a\"b\\c\d"@example.org', r'"a\"b\\cd"', "example.org"),
        ('""@example.org', '""', "example.org"),
        ('"a@b"@example.org', '"a@b"', "example.org"),
        ("a@bücher.example", "a", "xn--bcher-kva.example"),
        ("a@XN--BCHER-KVA.example", "a", "xn--bcher-kva.example"),
        ("a@straße.example", "a", "xn--strae-oqa.example"),
        ("用户@例子.example", "用户", "xn--fsqu00a.example"),
        ("u\u0308ber@example.org", "\u00fcber", "example.org"),
        ("a@org", "a", "org"),
        ("a@c--n.com", "a", "c--n.com"),
        ("a" * 64 + "@example.org", "a" * 64, "example.org"),
    ],
)
def test_wire_form(text: str, local: str, domain: str) -> None:
    assert parse(text) == Address(local, domain, text)
    assert parse(text).wire == f"{local}@{domain}"
    assert parse(text).needs_smtputf8 == (not local.isascii())


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 0, "empty"),
        ("alice", 5, "no @"),
        ("@example.org", 0, "before the @"),
        ("alice@", 6, "after the @"),
        ("al\r\nice@example.org", 2, "U+000D"),
        ("alice@example.org\n", 17, "U+000A"),
        ('"a\nb"@example.org', 2, "U+000A"),
        ("a\x00@example.org", 1, "U+0000"),
        ("a\x85@example.org", 1, "U+0085"),
        (".a@example.org", 0, "a dot"),
        ("a.@example.org", 1, "a dot"),
        ("a..b@example.org", 2, "a dot"),
        ("a b@example.org", 1, "not allowed"),
        ("a@b@example.org", 2, "letters, digits"),
        ("<a@example.org>", 0, "not allowed"),
        ('"a"b@example.org', 3, "no @"),
        ('"open@example.org', 0, "does not end"),
        ("a" * 65 + "@example.org", 64, "65 octets"),
        ("ü" * 33 + "@example.org", 64, "66 octets"),
        ("a\u202eb@example.org", 1, "U+202E"),
        ("=?utf-8?q?=0D=0A?=@example.org", 0, "encoded-word"),
        ("a=?x?B?DQo?b@example.org", 1, "encoded-word"),
        ("ü" * 100_000 + "@example.org", 1_000, "100012 characters"),
        ("a@" + "ü" * 100_000 + ".example", 1_000, "100010 characters"),
        ("a\u2028b@example.org", 1, "U+2028"),
        ("a@[127.0.0.1]", 2, "address literals"),
        ("a@127.0.0.1", 2, "a number"),
        ("a@example..org", 10, "empty label"),
        ("a@example.org.", 14, "empty label"),
        ("a@-example.org", 2, "letters, digits"),
        ("a@exa_mple.org", 2, "letters, digits"),
        ("a@" + "b" * 64 + ".org", 2, "64 octets"),
        ("a@yy--0.example", 2, "3rd and 4th"),
        ("a@xn--0.example", 2, "no valid domain"),
        ("a@\uff0eexample.org", 2, ""),
        ("a@" + ".".join(["b" * 63] * 4) + ".org", 0, "octets"),
    ],
)
def test_what_is_wrong_and_where(text: str, position: int, says: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse(text)
    assert says in str(caught.value)
    if position:
        assert caught.value.position == position
    assert len(text) < 8 or text not in str(caught.value)


@given(st.text(max_size=80) | st.from_regex(r"[\w.\"\\ +-]{1,20}@[\w.-]{1,30}", fullmatch=True))
def test_whatever_is_taken_is_safe_on_the_wire_and_parses_to_itself(text: str) -> None:
    try:
        address = parse(text)
    except AddressError:
        return
    assert not any(ord(c) < 32 or ord(c) == 127 for c in address.wire)
    assert len(address.wire.encode()) <= 254
    assert address.domain == address.domain.lower()
    assert address.domain.isascii()
    again = parse(address.wire)
    assert (again.local, again.domain) == (address.local, address.domain)
