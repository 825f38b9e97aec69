"""A new sending domain with its keys, made alike for whoever asks.

Owns which keys a domain begins with: one that signs, a spare whose record is published from the first day, and an Ed25519 key where that is
wanted. Must not know who may ask. The private keys leave sealed, the records in the clear.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import msgspec

from gateway.mta.keys import generate_ed25519_key, generate_rsa_key, public_key_txt, seal
from gateway.store import domains
from gateway.store.domains import Domain, DomainKey
from gateway.store.pool import Connection


class KeyRecord(msgspec.Struct, frozen=True):
    """A DKIM record to publish. `signs`: mail is signed with its key now, else it is the spare's."""

    name: str
    value: str
    signs: bool


async def add_domain(
    connection: Connection, site_id: int, name: str, master_key: bytes, *, ed25519: bool
) -> Domain:
    """Add a domain (lower case, A-labels) to a site in the caller's transaction; takes some tenths of a second for each RSA key.

    Raises:
        Conflict: this site or another has it already.
    """
    first = await asyncio.to_thread(generate_rsa_key)
    spare = await asyncio.to_thread(generate_rsa_key)
    domain = await domains.create_domain(
        connection,
        site_id,
        name,
        selector=_new_selector(),
        private_key_sealed=seal(first, master_key, name),
        public_key=public_key_txt(first),
    )
    further = [(spare, "rsa-sha256", False)]
    if ed25519:
        further.append((generate_ed25519_key(), "ed25519-sha256", True))
    for private_key, algorithm, signs in further:
        await domains.add_key(
            connection,
            domain,
            selector=_new_selector(),
            algorithm=algorithm,
            private_key_sealed=seal(private_key, master_key, name),
            public_key=public_key_txt(private_key),
            signs=signs,
        )
    return domain


async def key_records(connection: Connection, domain: Domain) -> list[KeyRecord]:
    """The records that a domain's keys need, the signing one first."""
    return records_of(domain, (await domains.keys_of(connection, [domain.id]))[domain.id])


def records_of(domain: Domain, further: Sequence[DomainKey]) -> list[KeyRecord]:
    """The records of a domain's own key, which comes first, and of its further ones."""
    published = [
        (domain.selector, domain.public_key, True),
        *((key.selector, key.public_key, key.signs) for key in further),
    ]
    return [
        KeyRecord(f"{selector}._domainkey.{domain.name}", value, signs)
        for selector, value, signs in published
    ]


def _new_selector() -> str:
    # Unique to this domain and never issued twice: a CNAME that is left behind must not come to life for another owner.
    return f"gw{secrets.token_hex(5)}"
