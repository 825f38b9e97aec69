"""Signatures that dkimpy accepts, and that any change breaks."""

import re
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import dkim
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mta.canonical import relaxed_body, relaxed_header
from gateway.mta.keys import generate_rsa_key, public_key_txt
from gateway.mta.sign import Signer

MESSAGE = (
    b"From: A <a@example.org>\r\nTo: b@example.net\r\nSubject: one\r\n  two\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nX-Other: not signed\r\nList-Unsubscribe: <https://x.example/u>\r\n"
    b"Content-Type: text/plain\r\n\r\nHello  world \t\r\n\r\n.dot\r\n\r\n\r\n"
)


@cache
def signer() -> tuple[Signer, bytes]:
    pem = generate_rsa_key()
    return Signer("example.org", "s1", pem), public_key_txt(pem).encode()


def resolver(txt: bytes) -> Callable[..., bytes | None]:
    return lambda name, timeout=5: txt if name == b"s1._domainkey.example.org." else None


def verifies(message: bytes, txt: bytes) -> bool:
    return bool(dkim.verify(message, dnsfunc=resolver(txt)))


def test_the_signature_verifies_and_names_what_it_signs() -> None:
    rsa, txt = signer()
    field = rsa.sign(MESSAGE, timestamp=1_767_225_600, expires=2_767_225_600)
    assert verifies(field + MESSAGE, txt)
    tags = dict(
        re.sub(r"\s", "", tag).split("=", 1)
        for tag in field.decode().removeprefix("DKIM-Signature: ").split(";")
    )
    assert (tags["a"], tags["c"], tags["t"], tags["x"]) == (
        "rsa-sha256",
        "relaxed/relaxed",
        "1767225600",
        "2767225600",
    )
    names = tags["h"].split(":")
    assert "l" not in tags
    assert "x-other" not in names
    assert "list-unsubscribe" in names
    assert [names.count(name) for name in ("from", "to", "cc", "subject", "date", "reply-to", "message-id")] == [
        2, 2, 1, 2, 2, 1, 2,
    ]  # fmt: skip
    assert all(len(line) <= 100 for line in field.split(b"\r\n"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Hello", b"hello"),
        (b"Subject: one", b"Subject: won"),
        (b"\r\n\r\nHello", b"\r\nCc: c@example.net\r\n\r\nHello"),
        (b"From: A", b"From: x@example.org\r\nFrom: A"),
        (b"MIME-Version", b"Reply-To: x@example.net\r\nMIME-Version"),
        (b".dot\r\n", b".dot\r\nmore"),
        (b"<https://x.example/u>", b"<https://y.example/u>"),
    ],
)
def test_a_change_breaks_it(before: bytes, after: bytes) -> None:
    rsa, txt = signer()
    signed = rsa.sign(MESSAGE, timestamp=1) + MESSAGE
    assert verifies(signed, txt)
    assert not verifies(signed.replace(before, after, 1), txt)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"Hello  world \t\r\n", b"Hello world\r\n"), (b"Subject: one\r\n  two", b"SUBJECT:one two")],
)
def test_what_relays_do_to_white_space_does_not(before: bytes, after: bytes) -> None:
    rsa, txt = signer()
    assert verifies((rsa.sign(MESSAGE, timestamp=1) + MESSAGE).replace(before, after, 1), txt)


words = st.text("abc.=?; \t-", max_size=20).map(str.strip)
lines = st.text("ab \t.=", max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["To", "Subject", "List-Id", "X-A", "Content-Type"]), words), max_size=8
    ),
    st.lists(lines, max_size=8),
    st.booleans(),
)
def test_any_message_verifies(fields: list[tuple[str, str]], body: list[str], ends: bool) -> None:
    rsa, txt = signer()
    header = "".join(f"{name}: {value}\r\n" for name, value in [("From", "a@example.org"), *fields])
    message = (header + "\r\n" + "\r\n".join(body) + ("\r\n" if ends else "")).encode()
    on_the_wire = message if message.endswith(b"\r\n") else message + b"\r\n"  # DATA ends every line
    assert verifies(rsa.sign(message, timestamp=1) + on_the_wire, txt)


class VerifyKey:
    """Stands in for PyNaCl, which dkimpy wants for Ed25519 alone."""

    def __init__(self, key: bytes, encoder: object) -> None:
        self.key = Ed25519PublicKey.from_public_bytes(b64decode(key))

    def verify(self, message: bytes, signature: bytes) -> bytes:
        self.key.verify(signature, message)
        return message


def test_ed25519_verifies_too(monkeypatch: pytest.MonkeyPatch) -> None:
    signing, encoding = SimpleNamespace(VerifyKey=VerifyKey), SimpleNamespace(Base64Encoder=None)
    errors = SimpleNamespace(BadSignatureError=InvalidSignature, ValueError=ValueError)
    fake = SimpleNamespace(signing=signing, encoding=encoding, exceptions=errors)
    monkeypatch.setattr(dkim, "nacl", fake, raising=False)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    ed25519 = Signer("example.org", "s1", pem, "ed25519-sha256")
    signed, txt = ed25519.sign(MESSAGE, timestamp=1) + MESSAGE, public_key_txt(pem).encode()
    assert verifies(signed, txt)
    assert not verifies(signed.replace(b"Hello", b"hello"), txt)


def test_keys_that_do_not_fit_are_refused() -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="cannot make rsa-sha256"):
        Signer("example.org", "s1", pem)
    short = generate_private_key(65_537, 1_024).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(ValueError, match="1024 bits"):
        Signer("example.org", "s1", short)


@pytest.mark.parametrize("message", [b"From: a@example.org\r\n", b"To: a@example.org\r\n\r\nHello\r\n"])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="no "):
        signer()[0].sign(message, timestamp=1)


@pytest.mark.parametrize(
    ("body", "relaxed"),
    [
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b" \r\n", b""),
        (b"a", b"a\r\n"),
        (b"a \t", b"a\r\n"),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376 §3.4.5
        (b"a\r\n \r\n", b"a\r\n"),
    ],
)
def test_relaxed_body(body: bytes, relaxed: bytes) -> None:
    assert relaxed_body(body) == relaxed


def test_relaxed_header() -> None:
    assert relaxed_header(b"A", b" X ") == b"a:X"
    assert relaxed_header(b"B ", b" Y\t\r\n\tZ  ") == b"b:Y Z"  # RFC 6376 §3.4.5
