"""How a scenario's messages get the signatures that it names: keys in the database, and the configuration's sections.

Owns what must be prepared for each way of signing. What the gateway cannot do yet is `CannotSign`, with the reason; that a
message really arrived with the signatures that were asked for is checked at the receiver.
"""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from bench.load.scenario import Signing
from bench.stage import make_site
from gateway.config import Config, MailConfig

Sections = dict[str, Mapping[str, object]]


class CannotSign(Exception):
    """The gateway at hand has no such signatures."""


def sections(signing: Signing) -> Sections:
    """The configuration's sections that a way of signing needs beside the defaults. Raises CannotSign."""
    if signing == "rsa":
        return {}
    if signing == "rsa+rsa":
        if "platform_domain" not in MailConfig.__struct_fields__:
            raise CannotSign("the gateway does not sign for a platform's domain beside the customer's")
        raise CannotSign("bench/load/signing.py does not know yet how the platform's key is set up")
    raise CannotSign("the gateway does not sign with Ed25519 yet")


async def prepare(connection: asyncpg.Connection, config: Config, signing: Signing) -> None:
    """Make the site and its sending domain with the keys of a way of signing, before any process starts."""
    del signing  # one RSA key is all that a domain can have yet
    await make_site(connection, config)
