"""F40: no scheduler while a broadcast should start, or for so long that no day is prepared: the next ones catch up, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.store import sites
from gateway.store.tenancy import OPERATOR, as_site
from tests.support.fleet import SENDING_DOMAIN, Fleet
from tests.support.node import Node

pytestmark = pytest.mark.slow

PEOPLE = 1_500
"""More than one chunk, so that two schedulers have something to divide."""
_DAYS = (
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relname ~ '_[0-9]{8}$'"
)


async def _post(http: httpx.AsyncClient, path: str, body: Any, **options: Any) -> Mapping[str, Any]:
    answer = await http.post(path, json=body, **options)
    assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
    return answer.json()


async def _schedule(http: httpx.AsyncClient, send_at: datetime) -> str:
    """Import a list and schedule a broadcast to it; its id."""
    rows = "".join(f"u{n}@d{n % 20}.test\n" for n in range(PEOPLE))
    imported = await http.post(
        "/v1/imports?list=people", content=f"email\n{rows}", headers={"content-type": "text/csv"}
    )
    assert imported.is_success, imported.text
    template = await _post(http, "/v1/templates", {"name": "n", "subject": "s", "text": "Dear {{ email }}"})
    draft = await _post(
        http,
        "/v1/broadcasts",
        {
            "name": "n", "list": imported.json()["list"], "template": template["id"],
            "from": f"news@{SENDING_DOMAIN}",
        },
    )  # fmt: skip
    await _post(http, f"/v1/broadcasts/{draft['id']}/actions/schedule", {"send_at": send_at.isoformat()})
    return draft["id"]


async def test_a_broadcast_whose_time_came_meanwhile_is_sent_once(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        await fleet.submit(20, domains=20)  # makes the lanes, without limits
        async with as_site(fleet.pool, OPERATOR) as connection:
            _, key = await sites.issue_key(connection, fleet.site_id, "scenario", ["admin"])
        sender = Node(fleet, "sender")
        schedulers = [Node(fleet, name, "schedule") for name in ("first", "second")]
        try:
            await sender.start()
            async with httpx.AsyncClient(
                base_url=sender.api, headers={"authorization": f"Bearer {key}"}, timeout=30
            ) as http:
                due = datetime.now(UTC) + timedelta(seconds=3)
                broadcast = await _schedule(http, due)

                async def shown() -> str:
                    return (await http.get(f"/v1/broadcasts/{broadcast}")).json()["state"]

                await fleet.until("its time has passed", lambda: datetime.now(UTC) > due)
                await fleet.settled()
                assert await shown() == "scheduled"
                assert fleet.ledger().accepts == 20

                async def is_completed() -> bool:
                    return await shown() == "completed"

                await asyncio.gather(*(node.start() for node in schedulers))
                await fleet.until("it is completed", is_completed, timeout_s=60)
                assert await schedulers[0].stop() == 0
                await schedulers[0].start()
                assert await shown() == "completed"
        finally:
            await asyncio.gather(*(node.stop() for node in (sender, *schedulers)))
        rows = await fleet.rows("SELECT id FROM ended WHERE broadcast_id <> 0")
        assert len(rows) == PEOPLE
        fleet.submitted += [row["id"] for row in rows]
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == set(fleet.submitted)


async def test_days_that_nobody_prepared_do_not_stop_the_next_ones(db: str, tmp_path: Path) -> None:
    """A month turns, say, with no scheduler for more than the week that is prepared."""
    async with Fleet(db, tmp_path) as fleet:
        await fleet.stop_upkeep()
        for row in await fleet.rows(_DAYS):
            await fleet.pool.execute(f"DROP TABLE {row['relname']}")
        await fleet.submit(50)
        await fleet.start("here")
        await fleet.settled()
        assert (await fleet.rows("SELECT count(*) AS n FROM ended_rest"))[0]["n"] == 50

        async def prepared() -> bool:
            days = {row["relname"] for row in await fleet.rows(_DAYS)}
            return {
                f"{table}_{datetime.now(UTC) + timedelta(days=7):%Y%m%d}" for table in ("ended", "event")
            } <= days

        fleet.start_upkeep()
        await fleet.until("the days to come are prepared", prepared)
        await fleet.submit(50)
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        await fleet.stop_upkeep()


async def test_days_are_not_waited_for_while_a_backup_reads(db: str, tmp_path: Path) -> None:
    """Whoever ends a delivery would wait behind whoever waits for the backup."""
    async with Fleet(db, tmp_path) as fleet:
        await fleet.stop_upkeep()
        async with fleet.pool.acquire() as backup, backup.transaction():
            await backup.execute("LOCK TABLE ended, event IN ACCESS SHARE MODE")
            assert (await fleet.rows("SELECT make_partitions(40) AS n"))[0]["n"] == 0
        assert (await fleet.rows("SELECT make_partitions(40) AS n"))[0]["n"] > 0
