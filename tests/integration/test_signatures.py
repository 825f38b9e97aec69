"""What a domain publishes verifies what its mail is signed with: every key, before and after a rotation, and the platform's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import dkim
import msgspec
import pytest

from gateway.clock import SystemClock
from gateway.config import Config, MailConfig
from gateway.dispatch.content import Contents
from gateway.dispatch.message import names_of
from gateway.dispatch.signers import platform_signer
from gateway.errors import ConfigError
from gateway.model.delivery import Leased
from gateway.model.ids import decode
from gateway.mta.keys import generate_rsa_key, public_key_txt
from gateway.store.queue import Queue
from tests.support.api import Client, World, open_world

_NOW = datetime.now(UTC)  # the verifier looks at x=


def published(*domains: Mapping[str, Any]) -> dict[bytes, bytes]:
    records = [record for domain in domains for record in domain["records"]]
    return {f"{record['name']}.".encode(): record["value"].encode() for record in records}


async def sent(world: World, app: Client, pool: asyncpg.Pool, platform: MailConfig) -> bytes:
    """One message as it would leave, without its dot-stuffing."""
    answer = await app.post(
        "/v1/messages",
        {
            "from": "Größe <a@acme.example>",
            "to": "b@c.example",
            "subject": "s ü",
            "text": "t",
            "html": "<p>ü  t</p>",
        },
    )
    message_id = decode("msg", answer["id"])
    async with pool.acquire() as connection:
        rows = await Queue(1, SystemClock(), 0.1).messages(connection, [message_id])
    contents = Contents(names_of(Config()), world.services.master_key, platform_signer(platform))
    contents.add([message_id], rows)
    mail = contents.make(
        Leased(
            id=message_id * 1024, epoch=1, lane_id=1, site_id=1, message_id=message_id, broadcast_id=0, priority=0, attempts=0, crashes=0,
            doubts=0, recipient="b@c.example", variables=None, accepted_at=_NOW, expires_at=_NOW + timedelta(days=2), suppressed=False,
            planned_at=0.0, late_at=0.0, last_moment=0.0,
        )
    )  # fmt: skip
    return mail.content


def signatures(message: bytes) -> list[tuple[str, str, str]]:
    header = re.sub(rb"\r\n[ \t]+", b"", message.partition(b"\r\n\r\n")[0])
    found: list[tuple[str, str, str]] = []
    for line in header.decode().split("\r\n"):
        if line.startswith("DKIM-Signature:"):
            tags = dict(tag.strip().split("=", 1) for tag in line[15:].split(";") if "=" in tag)
            found.append((tags["d"], tags["s"], tags["a"]))
    return found


def verified(message: bytes, records: Mapping[bytes, bytes]) -> bool:
    """Whether dkimpy takes every RSA signature; it reads Ed25519 only with a library of its own (tests/unit/mta/test_sign.py does)."""
    verifier = dkim.DKIM(message)
    found = enumerate(signatures(message))
    return all(
        verifier.verify(idx=place, dnsfunc=lambda name, timeout=5: records.get(name))
        for place, (_, _, algorithm) in found
        if algorithm == "rsa-sha256"
    )


async def test_every_published_key_verifies_before_and_after_a_rotation(
    db: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    own_key = generate_rsa_key()
    (tmp_path / "platform.pem").write_bytes(own_key)
    platform = MailConfig(
        platform_domain="platform.example",
        platform_selector="p1",
        platform_key_file=str(tmp_path / "platform.pem"),
    )
    own = {b"p1._domainkey.platform.example.": public_key_txt(own_key).encode()}
    async with open_world(db, tmp_path) as world:
        site = await world.operator.post("/v1/sites", {"name": "Acme"})
        key = await world.operator.post("/v1/keys", {"site": site["id"], "scopes": ["admin"]})
        app = Client(world.http, key["key"])
        domain = await app.post("/v1/domains", {"name": "acme.example", "ed25519": True})
        assert len(domain["records"]) == 3, "the key that signs, its successor, and the Ed25519 one"
        await world.operator.post(f"/v1/domains/{domain['id']}/actions/mark_verified")

        before = await sent(world, app, pool, platform)
        assert [(d, a) for d, _, a in signatures(before)] == [
            ("acme.example", "rsa-sha256"), ("acme.example", "ed25519-sha256"), ("platform.example", "rsa-sha256"),
        ]  # fmt: skip
        assert verified(before, published(domain) | own)

        rotated = await app.post(f"/v1/domains/{domain['id']}/actions/rotate", {})
        assert published(rotated) == published(domain), "nobody has to publish anything"
        after = await sent(world, app, pool, MailConfig())
        assert signatures(after)[0][1] != signatures(before)[0][1]
        assert verified(after, published(rotated))
        assert verified(before, published(rotated) | own), "mail under way still verifies"
        with pytest.raises(dkim.ValidationError):
            verified(before + b"x", published(rotated) | own)


async def test_a_domain_without_a_spare_key_says_so(db: str, pool: asyncpg.Pool, tmp_path: Path) -> None:
    async with open_world(db, tmp_path) as world:
        site = await world.operator.post("/v1/sites", {"name": "Acme"})
        key = await world.operator.post("/v1/keys", {"site": site["id"], "scopes": ["admin"]})
        app = Client(world.http, key["key"])
        domain = await app.post("/v1/domains", {"name": "acme.example"})
        await pool.execute("DELETE FROM domain_key")
        answer = await app.call("POST", f"/v1/domains/{domain['id']}/actions/rotate", {})
        assert (answer.status_code, answer.json()["type"]) == (409, "conflict")
        assert "spare" in answer.json()["detail"]


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), (b"words", "PEM")])
def test_a_platform_key_that_cannot_be_used_names_its_config_key(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        platform_signer(
            msgspec.structs.replace(MailConfig(), platform_domain="p.example", platform_key_file=str(file))
        )
    assert caught.value.key == "mail.platform_key_file"
    assert says in str(caught.value) or says in caught.value.hint
