"""Every route with thousands of requests that fit its schema, and that do not: no 5xx, nothing of another site, every answer as the document says."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from gateway.config import ApiConfig
from tests.support.api import World, open_world
from tests.support.schemathesis import mixed, run, served, write_config
from tests.support.two_sites import OWN, THEIRS, digests, furnish, suspend_shared_lane

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
SEED = os.environ.get("FUZZ_SEED")
PHASES = os.environ.get("FUZZ_PHASES", "coverage,fuzzing,stateful")
ONLY = tuple(os.environ.get("FUZZ_ONLY", "").split(";")) if os.environ.get("FUZZ_ONLY") else ()


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    plenty = ApiConfig(requests_per_s=1_000_000.0, requests_burst=1_000_000)
    async with open_world(db, tmp_path, api=plenty) as opened:
        yield opened


def seed() -> int | None:
    """None: always the same requests. FUZZ_SEED=random draws one, and a failure says which."""
    return None if SEED is None else random.randrange(2**31) if SEED == "random" else int(SEED)


@pytest.mark.slow
async def test_a_sites_key_gets_what_the_document_says_and_nothing_of_another_site(
    world: World, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    own = await furnish(world, pool, OWN, marked=False)
    theirs = await furnish(world, pool, THEIRS, marked=True)
    lane = await suspend_shared_lane(pool)
    world.services.stopping.set()  # a stream ends after its first look
    before = await digests(pool, theirs.client.site_id)
    assert sum(not text.startswith("0 rows") for text in before.values()) >= 14, before
    ids = {**mixed(own.ids, theirs.ids), "lane": [lane]}
    config = write_config(tmp_path, ids, [f"a@{OWN}", f"News <news@{OWN}>"])
    drawn = seed()
    async with served(world.services) as (address, watched):
        status, said = await run(
            address, config, key=own.client.key or "", examples=EXAMPLES, seed=drawn, phases=PHASES, only=ONLY
        )
    Path("/tmp/fuzz_said.txt").write_text(said)
    print(said[-3000:], watched.answers)
    assert watched.leaks == []
    assert await digests(pool, theirs.client.site_id) == before
    assert status == 0, f"repeat: make fuzz SEED={drawn} EXAMPLES={EXAMPLES}\n{said}"
