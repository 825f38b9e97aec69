"""Mailboxes in bodies: `local@domain`, `Display Name <local@domain>`, or an object of both.

Owns their reading; whether a site may send from the domain is in `submission/senders`. Must not know messages or broadcasts.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.errors import Invalid
from gateway.model.address import AddressError, parse
from gateway.mta.header import check_value, join_mailbox, split_mailbox

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
