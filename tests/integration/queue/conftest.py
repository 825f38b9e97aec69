"""A bench on the test's own database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.queue import Bench


@pytest.fixture
async def bench(pool: asyncpg.Pool) -> AsyncIterator[Bench]:
    """A hand on the queue, under incarnation 1."""
    async with pool.acquire() as connection:
        yield Bench(connection)
