"""A change of `throttles.toml` or `bounces.toml` is in force without a restart; a wrong one changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from gateway.app import tuning
from gateway.app.tuning import keep_limits, keep_rules
from gateway.clock import SystemClock
from gateway.model.disposition import Stage
from gateway.mta.bounce_rules import BounceRules, RuledJudge
from gateway.mta.reply import Reply
from gateway.throttle.shaping import load_throttles

BEFORE = "[default]\nrate_per_s = 100.0\n"


@pytest.fixture
async def file(db: str, pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Path]:
    """A throttles file that is watched, over a database with two lanes."""
    path = tmp_path / "throttles.toml"
    path.write_text(BEFORE)
    await make_lanes(pool, "a.test", "b.test")
    stop = asyncio.Event()
    task = asyncio.create_task(
        keep_limits(path, db, shaping=load_throttles(path), clock=SystemClock(), stop=stop, look_every_s=0.01)
    )
    yield path
    stop.set()
    await task


async def make_lanes(pool: asyncpg.Pool, *domains: str) -> None:
    n = len(domains)
    await pool.execute("SELECT ensure_lanes($1, $2, $3, $4)", domains, [100.0] * n, [20.0] * n, [10] * n)


async def rates(pool: asyncpg.Pool) -> dict[str, float]:
    rows = await pool.fetch("SELECT name, rate_per_s FROM lane JOIN lane_state ON lane_id = id")
    return {row["name"]: row["rate_per_s"] for row in rows}


async def becomes(pool: asyncpg.Pool, wanted: dict[str, float]) -> None:
    async with asyncio.timeout(10):
        while await rates(pool) != wanted:
            await asyncio.sleep(0.01)


async def test_a_change_reaches_the_lanes(file: Path, pool: asyncpg.Pool) -> None:
    file.write_text(BEFORE + '[domain."a.test"]\nrate_per_s = 7.0\n')
    await becomes(pool, {"a.test": 7.0, "b.test": 100.0})
    file.write_text(BEFORE)
    await becomes(pool, {"a.test": 100.0, "b.test": 100.0})


async def test_lanes_made_later_with_the_old_limits_get_the_new_ones(
    file: Path, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "AGAIN_EVERY_S", 0.05)
    file.write_text("[default]\nrate_per_s = 50.0\n")
    await becomes(pool, {"a.test": 50.0, "b.test": 50.0})
    await make_lanes(pool, "c.test")
    await becomes(pool, {"a.test": 50.0, "b.test": 50.0, "c.test": 50.0})


async def test_a_wrong_file_is_refused_once_and_changes_nothing(file: Path, pool: asyncpg.Pool) -> None:
    with capture_logs() as logs:
        file.write_text("[default]\nrate_per_sec = 1.0\n")
        async with asyncio.timeout(10):
            while not logs:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # it has looked again
    assert [log["event"] for log in logs] == ["config.refused"]
    assert "throttles.toml:2: default.rate_per_sec: unknown key" in logs[0]["problem"]
    assert await rates(pool) == {"a.test": 100.0, "b.test": 100.0}
    file.write_text("[default]\nrate_per_s = 3.0\n")
    await becomes(pool, {"a.test": 3.0, "b.test": 3.0})


async def test_rules_for_replies_are_replaced_and_a_wrong_file_leaves_them(tmp_path: Path) -> None:
    path = tmp_path / "bounces.toml"
    rule = "[[rule]]\npattern = 'x'\nclass = '{}'\nwhy = 'a test'\n"
    path.write_text(rule.format("spam"))
    judge, stop = RuledJudge(BounceRules()), asyncio.Event()

    async def becomes(bounce_class: str) -> None:
        async with asyncio.timeout(10):
            while judge(Reply(550, None, "x"), Stage.DOT).bounce_class != bounce_class:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_rules(path, judge, stop=stop, look_every_s=0.01))
        await becomes("spam")
        with capture_logs() as logs:
            path.write_text(rule.format("spm"))
            async with asyncio.timeout(10):
                while not logs:
                    await asyncio.sleep(0.01)
            assert "bounces.toml:3: rule.1.class" in logs[0]["problem"]
            await becomes("spam")
        path.write_text(rule.format("auth"))
        await becomes("auth")
        stop.set()
