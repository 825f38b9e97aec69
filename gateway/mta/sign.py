"""DKIM signatures (RFC 6376, RFC 8463) on `cryptography`; dkimpy checks them in the tests.

Owns canonicalisation and the header. Must not know where keys are kept (`mta/keys.py`) or which two domains sign. Pure
apart from the private key's arithmetic; the GIL is free while RSA runs (0.25 ms for 2,048 bits), so threads help.

The message must be canonical already: CRLF line ends, not dot-stuffed. relaxed/relaxed, never `l=`.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

# Listed once more than they occur, so that nobody can add another one behind our back (RFC 6376 §8.15).
OVERSIGNED: Final = (b"from", b"to", b"cc", b"subject", b"date", b"reply-to", b"message-id")
# Signed as often as they occur; CFBL headers have to be (RFC 9477 §3.1), and so has List-Unsubscribe (RFC 8058 §4).
SIGNED: Final = frozenset({
    *OVERSIGNED, b"sender", b"in-reply-to", b"references", b"mime-version", b"content-type", b"content-id",
    b"content-transfer-encoding", b"content-description", b"content-disposition", b"content-language",
    b"list-id", b"list-help", b"list-unsubscribe", b"list-unsubscribe-post", b"list-subscribe", b"list-post",
    b"list-owner", b"list-archive", b"feedback-id", b"cfbl-address", b"cfbl-feedback-id", b"auto-submitted",
})  # fmt: skip

_HASH: Final = SHA256()
_PADDING: Final = PKCS1v15()
_WSP: Final = re.compile(rb"[ \t]+")
_FOLD: Final = b"\r\n\t"
_LINE_LIMIT: Final = 76


class Signer:
    """Signs for one domain and selector with one private key. Holds no state; safe to share between threads."""

    domain: str
    selector: str
    algorithm: Algorithm

    def __init__(
        self, domain: str, selector: str, private_key_pem: bytes, algorithm: Algorithm = "rsa-sha256"
    ) -> None:
        """Load the key.

        Raises:
            ValueError: not a private key in PEM, one of another kind, or RSA below 2,048 bits (RFC 8301 §3.2).
        """
        self.domain, self.selector, self.algorithm = domain, selector, algorithm
        key = load_pem_private_key(private_key_pem, None)
        if not isinstance(key, RSAPrivateKey if algorithm == "rsa-sha256" else Ed25519PrivateKey):
            raise ValueError(f"{domain}: a {type(key).__name__} cannot make {algorithm} signatures")
        if isinstance(key, RSAPrivateKey) and key.key_size < 2_048:
            raise ValueError(f"{domain}: an RSA key of {key.key_size} bits; at least 2048")
        self._key = key
        self._head = f"v=1; a={algorithm}; c=relaxed/relaxed; d={domain}; s={selector};".encode("ascii")

    def sign(self, message: bytes, *, timestamp: int, expires: int | None = None) -> bytes:
        """Return the whole `DKIM-Signature` field with its CRLF, to be put before the message.

        `timestamp` and `expires` are seconds since 1970 (`t=`, `x=`).

        Raises:
            ValueError: no From field, or no empty line between header and body.
        """
        header, separator, body = message.partition(b"\r\n\r\n")
        if not separator:
            raise ValueError(
                "no empty line between header and body; a message ends its header with CRLF CRLF"
            )
        names, signed = _select(header)
        if b"from" not in names:
            raise ValueError("no From field; RFC 6376 §5.4 wants it signed")
        body_hash = b64encode(hashlib.sha256(relaxed_body(body)).digest())
        times = b"t=%d;" % timestamp + (b" x=%d;" % expires if expires is not None else b"")
        # Only folds between tags, tabs turned to single spaces: the relaxed form is the same text joined by spaces.
        lines = [self._head, times, *_fold_names(names), b"bh=" + body_hash + b";", b"b="]
        signed.append(b"dkim-signature:" + b" ".join(lines))
        data = b"\r\n".join(signed)
        if isinstance(self._key, RSAPrivateKey):
            signature = b64encode(self._key.sign(data, _PADDING, _HASH))
        else:
            signature = b64encode(self._key.sign(hashlib.sha256(data).digest()))  # RFC 8463 §3
        pieces = [signature[i : i + _LINE_LIMIT - 4] for i in range(0, len(signature), _LINE_LIMIT - 4)]
        lines[-1] += _FOLD.join(pieces)
        return b"DKIM-Signature: " + _FOLD.join(lines) + b"\r\n"


def relaxed_header(name: bytes, value: bytes) -> bytes:
    """Return `name:value` in relaxed form without CRLF (RFC 6376 §3.4.2); `value` may be folded."""
    if b"\r\n" in value:
        value = value.replace(b"\r\n", b"")
    if b"  " in value or b"\t" in value:
        value = _WSP.sub(b" ", value)
    return name.rstrip(b" \t").lower() + b":" + value.strip(b" \t")


def relaxed_body(body: bytes) -> bytes:
    """Return the body in relaxed form (RFC 6376 §3.4.4)."""
    if b"  " in body or b"\t" in body:
        body = _WSP.sub(b" ", body)
    if b" \r\n" in body:
        body = body.replace(b" \r\n", b"\r\n")
    end = len(body)
    if body[end - 1 : end] == b" ":
        end -= 1
    while body[end - 2 : end] == b"\r\n":
        end -= 2
    return body[:end] + b"\r\n" if end else b""


def _fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield lower-case name and folded value of each field, from the top."""
    if b"\r\n " in header or b"\r\n\t" in header:
        header = header.replace(b"\r\n ", b"\0 ").replace(b"\r\n\t", b"\0\t")
    for field in header.split(b"\r\n"):
        name, _, value = field.partition(b":")
        yield name.rstrip(b" \t").lower(), value.replace(b"\0", b"\r\n") if b"\0" in value else value


def _select(header: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the names for `h=` and the relaxed fields to sign, in the same order.

    Several fields of one name are taken from the bottom (RFC 6376 §5.4.2).
    """
    names: list[bytes] = []
    signed: list[bytes] = []
    for name, value in reversed(list(_fields(header))):
        if name in SIGNED:
            names.append(name)
            signed.append(relaxed_header(name, value))
    return names + list(OVERSIGNED) if b"from" in names else names, signed


def _fold_names(names: list[bytes]) -> list[bytes]:
    """Return the `h=` tag in lines of at most some 76 octets; a fold after a colon is FWS (§3.5)."""
    lines: list[bytes] = []
    line = b"h="
    for name in names:
        if len(line) + len(name) + 1 > _LINE_LIMIT:
            lines.append(line)
            line = b""
        line += name + b":"
    return [*lines, line[:-1] + b";"]
