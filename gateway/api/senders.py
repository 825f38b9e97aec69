"""From addresses: a mailbox whose domain is a verified domain of the site.

Owns the reading of a From field and the memory of domains just looked up (only verified ones, for 5 seconds: a domain that was
just verified works at once, and dispatch looks again before it signs). Must not know messages or broadcasts.
"""

from __future__ import annotations

from typing import Final

import asyncpg
import msgspec

from gateway.clock import Clock
from gateway.errors import DomainUnverified, Invalid
from gateway.model.address import AddressError, parse
from gateway.mta.header import check_value, join_mailbox, split_mailbox
from gateway.store import domains
from gateway.store.tenancy import as_site

_REMEMBERED_S: Final = 5.0
_MAX_REMEMBERED: Final = 10_000
_DISPLAY_LIMIT: Final = 200


class Mailbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address with a display name."""

    email: str
    name: str = ""


class Sender(msgspec.Struct, frozen=True):
    """A checked mailbox: as the message has it, and the domain of its address."""

    mailbox: str
    domain: str


def read_mailbox(value: str | Mailbox, pointer: str) -> Sender:
    """Check `local@domain`, `Display Name <local@domain>` or an object of both.

    Raises:
        Invalid: no address, or a display name that cannot stand in a header; below `pointer`.
    """
    if isinstance(value, Mailbox):
        name, address = value.name, value.email
        at_name, at_address = f"{pointer}/name", f"{pointer}/email"
    else:
        at_name = at_address = pointer
        check_value(value, pointer)
        name, address = split_mailbox(value)
    check_value(name, at_name)
    if len(name) > _DISPLAY_LIMIT or "<" in name or ">" in name:
        raise Invalid(
            [(at_name, f"expected a display name of at most {_DISPLAY_LIMIT} characters without < and >")]
        )
    try:
        parsed = parse(address)
    except AddressError as error:
        raise Invalid([(at_address, str(error))]) from error
    return Sender(join_mailbox(name.strip(), parsed.wire), parsed.domain)


class Senders:
    """Knows which domains a site may send from."""

    # Mutable on purpose: a small cache.
    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock
        self._verified: dict[tuple[int, str], tuple[float, int]] = {}

    async def domain_id(self, site_id: int, domain: str) -> int:
        """Return the id of a verified domain of the site.

        Raises:
            DomainUnverified: the site has no such domain, or it is not verified.
            StoreUnavailable: Postgres does not answer.
        """
        now = self._clock.monotonic()
        known = self._verified.get((site_id, domain))
        if known is not None and known[0] > now:
            return known[1]
        async with as_site(self._pool, site_id) as connection:
            found = await domains.find_verified(connection, site_id, domain)
        if found is None:
            raise DomainUnverified(f"{domain} is no verified domain of this site; nothing is sent from it")
        if len(self._verified) >= _MAX_REMEMBERED:
            self._verified.clear()
        self._verified[site_id, domain] = (now + _REMEMBERED_S, found)
        return found
