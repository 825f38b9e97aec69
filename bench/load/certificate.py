"""A certificate that nobody vouches for, and the server's side of TLS with it: what most receivers of mail have.

ECDSA on P-256, as receivers use it today; TLS 1.2 or later. The key stands in a file for the moment in which OpenSSL reads it.
"""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def pem(name: str) -> bytes:
    """A new key and a certificate for a day for a server called ``name``, as one text in PEM."""
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, SHA256())
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(
        Encoding.PEM
    )


def write_pem(folder: Path, name: str) -> str:
    """Write key and certificate into one file of ``folder``; its path."""
    path = folder / f"{name}.pem"
    path.touch(mode=0o600)
    path.write_bytes(pem(name))
    return str(path)


def server_context(name: str) -> ssl.SSLContext:
    """The context of a server called ``name``, with a new key and a certificate for a day."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory(prefix="sink-") as folder:  # nobody else may enter it
        context.load_cert_chain(write_pem(Path(folder), name))
    return context
