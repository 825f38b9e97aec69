"""Every route with thousands of requests that fit its schema, and that do not, from schemathesis: no 5xx, every answer as the document says,
nothing of another site, and nothing of it changed.

The requests are the same every time. `make fuzz` draws others, and more; where it fails it says how to repeat that.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.config import ApiConfig
from tests.support.api import World, open_world
from tests.support.schemathesis import Run, Watched, mixed, run, served
from tests.support.two_sites import MARK, OWN, THEIRS, Furnished, digests, furnish, suspend_shared_lane

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
SEED = os.environ.get("FUZZ_SEED")
SENDERS = [f"a@{OWN}", f"News <news@{OWN}>"]


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    plenty = ApiConfig(requests_per_s=1_000_000.0, requests_burst=1_000_000)
    async with open_world(db, tmp_path, api=plenty) as opened:
        opened.services.stopping.set()  # who follows a broadcast is let go at once
        yield opened


@pytest.fixture
async def own(world: World, pool: asyncpg.Pool) -> Furnished:
    return await furnish(world, pool, OWN, marked=False)


@pytest.fixture
async def theirs(world: World, pool: asyncpg.Pool) -> Furnished:
    return await furnish(world, pool, THEIRS, marked=True)


def drawn() -> int | None:
    """The seed; none: always the same requests."""
    if SEED in (None, "none"):
        return None
    return random.randrange(2**31) if SEED == "random" else int(SEED)


@pytest.mark.parametrize("cut", range(1, 12))
async def test_a_word_of_the_other_site_is_seen_in_whatever_pieces_it_leaves(cut: int) -> None:
    word = f"a {MARK.upper()}secret".encode()

    async def leaks(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": word[:cut], "more_body": True})
        await send({"type": "http.response.body", "body": word[cut:]})

    async def nothing(_: object) -> None: ...

    watched = Watched(leaks)
    await watched({"type": "http", "method": "GET", "path": "/x", "query_string": b""}, nothing, nothing)
    assert [one.request for one in watched.leaks] == ["GET /x?"]


@pytest.mark.slow
async def test_a_sites_key_gets_what_the_document_says_and_nothing_of_another_site(
    world: World, pool: asyncpg.Pool, own: Furnished, theirs: Furnished, tmp_path: Path
) -> None:
    ids = {**mixed(own.ids, theirs.ids), "lane": [await suspend_shared_lane(pool)]}
    before = await digests(pool, theirs.client.site_id)
    held = {table for table, text in before.items() if not text.startswith("0 rows")}
    assert held >= {"message", "template", "contact", "list", "list_member", "broadcast", "suppression", "import", "import_error", "api_key",
                    "domain", "queue", "ended", "acceptance", "site"}  # fmt: skip
    one = Run(key=own.client.key or "", examples=EXAMPLES, seed=drawn())
    async with served(world.services) as (address, watched):
        status, said = await run(address, tmp_path, one, ids, SENDERS)
    assert watched.answers > 1_000, said
    assert watched.leaks == [], one.again
    assert await digests(pool, theirs.client.site_id) == before, one.again
    assert status == 0, f"{said}\n{one.again}"


@pytest.mark.slow
async def test_an_operators_key_gets_what_the_document_says(
    world: World, pool: asyncpg.Pool, own: Furnished, theirs: Furnished, tmp_path: Path
) -> None:
    ids = {**mixed(own.ids, theirs.ids), "lane": [await suspend_shared_lane(pool)]}
    one = Run(key=world.operator.key or "", examples=EXAMPLES, seed=drawn())
    async with served(world.services) as (address, _):
        status, said = await run(address, tmp_path, one, ids, SENDERS)
    assert status == 0, f"{said}\n{one.again}"
