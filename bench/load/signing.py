"""How a scenario's messages get the signatures that it names: keys in the database, and the configuration's sections.

Owns what must be prepared for each way of signing. That a message really arrived with the signatures that were asked for is
checked at the receiver.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import asyncpg

from bench.load.scenario import Signing
from bench.stage import FROM_DOMAIN, SITE, make_site
from gateway.config import Config
from gateway.mta.keys import generate_ed25519_key, generate_rsa_key, load_or_create_master_key, seal

PLATFORM: Final = "platform.test"

Sections = dict[str, Mapping[str, object]]


def sections(signing: Signing, folder: Path) -> Sections:
    """The configuration's sections that a way of signing needs beside the defaults; key files are made in `folder`."""
    if signing != "rsa+rsa":
        return {}
    path = folder / "platform.pem"
    path.write_bytes(generate_rsa_key())
    return {"mail": {"platform_domain": PLATFORM, "platform_key_file": str(path)}}


async def prepare(connection: asyncpg.Connection, config: Config, signing: Signing) -> None:
    """Make the site and its sending domain with the keys of a way of signing, before any process starts."""
    await make_site(connection, config)
    if signing == "ed25519":  # alone, which no operator would do yet: to see what RSA costs
        sealed = seal(generate_ed25519_key(), load_or_create_master_key(config.master_key_path), FROM_DOMAIN)
        await connection.execute(
            "update domain set algorithm = 'ed25519-sha256', private_key_sealed = $2 where site_id = $1",
            SITE,
            sealed,
        )
