"""F39: two nodes under load, one after the other ended and started again as the next version, which brings its schema along.

The next version adds a column, and takes it away again in a contract: the first node to come back does the one and leaves the other,
since the second still is what it was; that one then does it. Apps send all the while, to whichever node answers.
"""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import httpx
import pytest

from gateway.model.ids import Prefix, decode
from gateway.store import sites
from gateway.store.tenancy import OPERATOR, as_site
from tests.support.fleet import SENDING_DOMAIN, Fleet
from tests.support.node import Node
from tests.support.version import NEWEST, make_next_version

pytestmark = pytest.mark.slow

EXPAND = "-- phase: expand\nALTER TABLE queue ADD COLUMN coming text;"
CONTRACT = f"-- phase: contract from {NEWEST + 1:04}\nALTER TABLE queue DROP COLUMN coming;"
TRIES = 200


class App:
    """Sends message after message, each to the node that answered last, or, when that one is gone, to the other."""

    def __init__(self, fleet: Fleet, key: str, nodes: list[Node]) -> None:
        self._fleet, self._key, self._nodes = fleet, key, nodes
        self._numbers = count()
        self.accepted = 0
        self.refused: list[str] = []
        self.enough = asyncio.Event()

    async def run(self) -> None:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {self._key}"}) as http:
            while not self.enough.is_set():
                await self._send(http, next(self._numbers))

    async def _send(self, http: httpx.AsyncClient, number: int) -> None:
        body = {
            "from": f"news@{SENDING_DOMAIN}",
            "to": f"u{number}@d{number % 20}.test",
            "subject": "Rolling",
            "text": "On.",
        }
        for _ in range(TRIES):
            try:
                # With a key a second try is no second message, whatever became of the first.
                answer = await http.post(
                    f"{self._nodes[0].api}/v1/messages", json=body, headers={"idempotency-key": f"n{number}"}
                )
            except httpx.TransportError:
                self._nodes.reverse()
                continue
            if not answer.is_success:
                self.refused.append(f"{answer.status_code} {answer.text}")
            else:
                self.accepted += 1
                self._fleet.submitted += [
                    decode(Prefix.DELIVERY, d["id"]) for d in answer.json()["deliveries"]
                ]
            return
        self.refused.append(f"message {number}: no node answered {TRIES} times")


async def test_nothing_fails_while_two_nodes_become_the_next_version(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        await fleet.submit(20, domains=20)  # makes the lanes, without limits
        async with as_site(fleet.pool, OPERATOR) as connection:
            _, key = await sites.issue_key(connection, fleet.site_id, "scenario", ["send"])
        first, second = Node(fleet, "first"), Node(fleet, "second")
        version = make_next_version(tmp_path, EXPAND, CONTRACT)
        app = App(fleet, key, [first, second])
        sending: asyncio.Task[None] | None = None

        async def more(messages: int) -> None:
            goal = app.accepted + messages
            await fleet.until(f"{goal} messages were accepted", lambda: app.accepted >= goal or app.refused)

        try:
            await first.start()
            await second.start()
            sending = asyncio.create_task(app.run())
            await more(50)
            assert await first.stop() == 0
            await more(50)
            await first.start("--migrate", cwd=version)
            await more(50)
            assert await second.stop() == 0
            await more(50)
            await second.start("--migrate", cwd=version)
            await more(50)
            app.enough.set()
            await sending
            await fleet.settled()
        finally:
            app.enough.set()
            if sending is not None:
                await asyncio.wait([sending])
            await asyncio.gather(first.stop(), second.stop())

        assert app.refused == []
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == set(fleet.submitted)
        assert await fleet.ever_in_doubt() == set()
        expanded, contracted = f"{NEWEST + 1:04}_next", f"{NEWEST + 2:04}_next"
        logs = [node.log.read_text() for node in (first, second)]
        assert f'"migrations":["{expanded}"]' in logs[0]
        assert [line for line in logs[0].splitlines() if "schema.waits" in line and contracted in line]
        assert f'"migrations":["{contracted}"]' in logs[1]
        for log in logs:
            assert '"level":"error"' not in log


async def test_a_node_of_the_old_version_starts_beside_the_expanded_schema_and_not_after_the_contract(
    db: str, tmp_path: Path
) -> None:
    version = make_next_version(tmp_path, EXPAND, CONTRACT)
    async with Fleet(db, tmp_path) as fleet:
        old, new = Node(fleet, "old"), Node(fleet, "new")
        try:
            await old.start()
            await new.start("--migrate", cwd=version)  # the contract waits: the old one works
            assert await old.stop() == 0
            await old.start()
            assert await old.stop() == 0
            assert await new.stop() == 0
            await new.start("--migrate", cwd=version)
            with pytest.raises(RuntimeError, match=f"only code from {NEWEST + 1:04} on works with it"):
                await old.start()
        finally:
            await asyncio.gather(old.stop(), new.stop())
