"""DKIM private keys: made, sealed for the database, published; and the envelope key that does the sealing.

Owns the formats. Must not know the database or who asks. A private key leaves this module only sealed or towards a
`Signer`; nothing here logs. Sealing is AES-256-GCM with the domain as associated data, so that a row copied to another
domain does not open.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.errors import ConfigError, KeySealError
from gateway.model.token import Key, KeyRing, Purpose

MASTER_KEY_BYTES: Final = 32
FIRST_KEY: Final[Mapping[int, int]] = MappingProxyType({1: 0})
"""The keys of a purpose that was never rotated: id 1, from day 0 on."""
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


def generate_rsa_key() -> bytes:
    """Return a new RSA-2048 private key in PEM (PKCS #8); takes some tenths of a second."""
    key = generate_private_key(public_exponent=65_537, key_size=2_048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def generate_ed25519_key() -> bytes:
    """Return a new Ed25519 private key in PEM (PKCS #8)."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def seal(private_key_pem: bytes, master_key: bytes, domain: str) -> bytes:
    """Return the key sealed for `domain`: version, nonce, ciphertext and tag; differs each time."""
    nonce = os.urandom(_NONCE_BYTES)
    return (
        _VERSION + nonce + AESGCM(_sealing_key(master_key)).encrypt(nonce, private_key_pem, domain.encode())
    )


def unseal(sealed: bytes, master_key: bytes, domain: str) -> bytes:
    """Return the private key in PEM.

    Raises:
        KeySealError: another envelope key, another domain, or damaged bytes; which of them cannot be told.
    """
    if sealed[:1] != _VERSION or len(sealed) <= 1 + _NONCE_BYTES:
        raise KeySealError(f"{domain}: no sealed key of a version that is known here (1)")
    nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(_sealing_key(master_key)).decrypt(nonce, ciphertext, domain.encode())
    except InvalidTag as error:
        raise KeySealError(
            f"{domain}: the sealed key does not open; is it this gateway's envelope key?"
        ) from error


def public_key_txt(private_key_pem: bytes) -> str:
    """Return the value of the DKIM TXT record (RFC 6376 §3.6.1) that goes with a private key, unsplit.

    Raises:
        ValueError: neither RSA nor Ed25519.
    """
    key = load_pem_private_key(private_key_pem, None)
    if isinstance(key, RSAPrivateKey):
        kind, public = "rsa", key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    elif isinstance(key, Ed25519PrivateKey):
        kind, public = "ed25519", key.public_key().public_bytes_raw()  # RFC 8463 §4
    else:
        raise ValueError(f"a {type(key).__name__} is no DKIM key; expected RSA or Ed25519")
    return f"v=DKIM1; k={kind}; p={b64encode(public).decode('ascii')}"


def derive_key(master_key: bytes, purpose: str) -> bytes:
    """Return the 32-byte key for one purpose (`verp`, `unsubscribe`, …): one never opens what another made."""
    return HKDF(SHA256(), 32, salt=None, info=b"gateway " + purpose.encode()).derive(master_key)


def derive_ring(master_key: bytes, purpose: Purpose, since_days: Mapping[int, int] = FIRST_KEY) -> KeyRing:
    """Return the keys for tokens of one purpose; `since_days` gives for each key id the first day (since 1970) it serves.

    An old key may go when nothing it made can be valid any more; those of purposes that never expire stay.

    Raises:
        ValueError: no key id, or one that is not 1 to 255.
    """
    return KeyRing(
        purpose,
        [Key(id_, derive_key(master_key, f"{purpose}/{id_}"), since) for id_, since in since_days.items()],
    )


def load_or_create_master_key(path: Path) -> bytes:
    """Read the envelope key (32 bytes in base64), or make one (mode 0600) on the first start.

    Safe when several processes start at once: all get the same key.

    Raises:
        ConfigError: the file holds something else, can be read by others, or cannot be written.
    """
    try:
        if not path.exists():
            _create_master_key(path)
        if path.stat().st_mode & 0o077:
            raise ConfigError("the envelope key can be read by others", path=path, hint="chmod 600")
        key = b64decode(path.read_bytes().strip(), validate=True)
    except binascii.Error as error:
        raise ConfigError(
            "no base64", path=path, key="keys.master_key_file", hint="32 bytes in base64"
        ) from error
    except OSError as error:
        raise ConfigError(f"the envelope key cannot be read or made: {error.strerror}", path=path) from error
    if len(key) != MASTER_KEY_BYTES:
        problem = f"{len(key)} bytes instead of {MASTER_KEY_BYTES}"
        raise ConfigError(problem, path=path, key="keys.master_key_file", hint="32 bytes in base64")
    return key


def _create_master_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(b64encode(os.urandom(MASTER_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # whole or not at all, and the first one wins
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


def _sealing_key(master_key: bytes) -> bytes:
    return derive_key(master_key, "dkim-seal")
