"""DKIM signatures (RFC 6376, RFC 8463) on `cryptography`; dkimpy checks them in the tests.

Owns the signature's header field. Must not know where keys are kept (`mta/keys.py`) or which two domains sign. Pure
apart from the private key's arithmetic; the GIL is free while RSA runs (0.25 ms for 2,048 bits), so threads help.

The message must be canonical already: CRLF line ends, not dot-stuffed. relaxed/relaxed, never `l=`.
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.mta.canonical import SignedForm, signed_form

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

_HASH: Final = SHA256()
_PADDING: Final = PKCS1v15()
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
        return self.sign_form(signed_form(message), timestamp=timestamp, expires=expires)

    def sign_form(self, form: SignedForm, *, timestamp: int, expires: int | None = None) -> bytes:
        """Return the field for a message whose relaxed form is at hand; several signers may take the same."""
        times = b"t=%d;" % timestamp + (b" x=%d;" % expires if expires is not None else b"")
        # Only folds between tags, tabs turned to single spaces: the relaxed form is the same text joined by spaces.
        field = b" ".join((self._head, times, form.names, b"bh=" + form.body_hash + b";", b"b="))
        data = form.header + b"dkim-signature:" + field
        if isinstance(self._key, RSAPrivateKey):
            signature = b2a_base64(self._key.sign(data, _PADDING, _HASH), newline=False)
        else:
            signature = b2a_base64(
                self._key.sign(hashlib.sha256(data).digest()), newline=False
            )  # RFC 8463 §3
        width = _LINE_LIMIT - 4
        lines = [self._head, times, *form.names.split(b" "), b"bh=" + form.body_hash + b";"]
        pieces = [signature[i : i + width] for i in range(0, len(signature), width)]
        return b"DKIM-Signature: " + _FOLD.join(lines) + _FOLD + b"b=" + _FOLD.join(pieces) + b"\r\n"
