"""TLS towards receivers: how much of it is wanted, and the one context of the process.

Owns the policy's words, the context and the sessions that it resumes. Must not know SMTP. RFC 3207, RFC 7435 (opportunistic
security: the certificate is not verified, since the way in plaintext would verify nothing either).
"""

from __future__ import annotations

import functools
import ssl
from enum import StrEnum


class TlsPolicy(StrEnum):
    """What becomes of a message where TLS cannot be had."""

    NONE = "none"
    """TLS is not used."""
    OPPORTUNISTIC = "opportunistic"
    """TLS where it is offered; where the handshake fails, plaintext over a new connection."""
    REQUIRE = "require"
    """TLS or nothing: the message waits. Never plaintext."""


@functools.cache
def client_context() -> ssl.SSLContext:
    """Return the process's context: TLS 1.2 or later, certificates not verified. Making one costs milliseconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
