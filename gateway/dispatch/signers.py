"""Who signs: the keys of sending domains, unsealed once and kept, and the key of our own domain.

Owns the cache of unsealed keys. Must not know messages, nor what a signature covers (`mta/sign`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.config import MailConfig
from gateway.errors import ConfigError
from gateway.mta.keys import unseal
from gateway.mta.sign import Algorithm, Signer

CACHED_SIGNERS: Final = 5_000


class _FurtherKey(msgspec.Struct, frozen=True):
    """A key that signs beside the domain's first, as the query gives it; `sealed` in base64."""

    selector: str
    algorithm: Algorithm
    sealed: bytes


def platform_signer(config: MailConfig) -> Signer | None:
    """The signer of our own domain, if the config names one.

    Raises:
        ConfigError: its key cannot be read or is none.
    """
    if not config.platform_domain:
        return None
    key = "mail.platform_key_file"
    try:
        pem = Path(config.platform_key_file).read_bytes()
        return Signer(config.platform_domain, config.platform_selector, pem)
    except OSError as error:
        raise ConfigError(
            f"{config.platform_key_file or 'no file'}: {error.strerror}", key=key, hint="a private key in PEM"
        ) from error
    except ValueError as error:
        raise ConfigError(str(error), key=key, hint="an RSA key of at least 2048 bits in PEM") from error


class Signers:
    """The signers at hand, by domain and selector."""

    # Mutable on purpose: a bounded cache.
    def __init__(self, master_key: bytes, platform: Signer | None) -> None:
        """Take the envelope key, and the signer of our own domain where every mail gets its signature, too."""
        self._master_key, self._platform = master_key, platform
        self._kept: OrderedDict[tuple[str, str], Signer] = OrderedDict()

    def of(self, row: Mapping[str, Any]) -> tuple[Signer, ...]:
        """Return who signs a message, in the order of the signatures; `row` has its domain's keys.

        Raises:
            KeySealError: a key does not open.
        """
        domain = row["domain"]
        further = msgspec.json.decode(row["further_keys"], type=list[_FurtherKey])
        signers = [
            self._signer(domain, row["selector"], row["algorithm"], row["private_key_sealed"]),
            *[self._signer(domain, key.selector, key.algorithm, key.sealed) for key in further],
        ]
        return (*signers, self._platform) if self._platform is not None else tuple(signers)

    def trim(self) -> None:
        """Drop the oldest beyond the bound."""
        while len(self._kept) > CACHED_SIGNERS:
            self._kept.popitem(last=False)

    def _signer(self, domain: str, selector: str, algorithm: Algorithm, sealed: bytes) -> Signer:
        key = (domain, selector)
        if (signer := self._kept.get(key)) is None:
            pem = unseal(sealed, self._master_key, domain)
            signer = self._kept[key] = Signer(domain, selector, pem, algorithm)
        return signer
