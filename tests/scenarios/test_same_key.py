"""F37: the same request with the same Idempotency-Key, 100 times at once, at two nodes: one message, and the same answer each time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from gateway.model.ids import Prefix, decode
from gateway.store import sites
from gateway.store.tenancy import OPERATOR, as_site
from tests.support.fleet import SENDING_DOMAIN, Fleet
from tests.support.node import Node

pytestmark = pytest.mark.slow

TIMES = 100


async def test_a_hundred_at_once_are_one_message(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        async with as_site(fleet.pool, OPERATOR) as connection:
            _, key = await sites.issue_key(connection, fleet.site_id, "scenario", ["send", "contacts"])
        nodes = [Node(fleet, "first"), Node(fleet, "second", "api")]
        limits = httpx.Limits(max_connections=TIMES)
        headers = {"authorization": f"Bearer {key}", "idempotency-key": "the-same"}
        body = {
            "from": f"news@{SENDING_DOMAIN}", "to": [f"u{n}@d.test" for n in range(3)], "subject": "Once",
            "text": "Dear {{ n }}", "variables": {"n": 1},
        }  # fmt: skip
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            async with httpx.AsyncClient(headers=headers, limits=limits, timeout=30) as http:

                async def post(path: str, what: object) -> list[httpx.Response]:
                    return await asyncio.gather(
                        *(http.post(nodes[n % 2].api + path, json=what) for n in range(TIMES))
                    )

                answers = await post("/v1/messages", body)
                other = await http.post(f"{nodes[1].api}/v1/messages", json=body | {"subject": "Twice"})
                http.headers["idempotency-key"] = "another"
                contacts = await post("/v1/contacts", {"email": "ada@one.example"})
            assert {answer.status_code for answer in answers} == {202}
            assert len({answer.content for answer in answers}) == 1
            assert (other.status_code, other.json()["type"]) == (422, "idempotency_mismatch")
            assert {answer.status_code for answer in contacts} == {201}
            assert len({answer.content for answer in contacts}) == 1
            fleet.submitted += [decode(Prefix.DELIVERY, one["id"]) for one in answers[0].json()["deliveries"]]
            await fleet.settled()
        finally:
            await asyncio.gather(*(node.stop() for node in nodes))
        assert (await fleet.check()).duplicates == ()
        assert fleet.ledger().accepts == 3
        (count,) = await fleet.rows("SELECT count(*) AS n FROM contact")
        assert count["n"] == 1
