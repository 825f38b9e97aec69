"""`throttles.toml` and `bounces.toml` while the gateway runs: a change is in force within seconds, without a restart.

Owns the watch of the files. One that is wrong is refused, with what is wrong, and what was before stays in force. Limits are in
Postgres and one process keeps them; lanes that another process makes meanwhile get the limits that it was started with, so once
the file has changed, all lanes are brought up to date again from time to time. Each dispatcher reads the rules for replies itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from gateway.clock import Clock
from gateway.config.strict_toml import Document, read_toml
from gateway.dispatch.upkeep import apply_limits
from gateway.errors import ConfigError, StoreUnavailable
from gateway.mta.bounce_rules import RuledJudge, parse_bounces
from gateway.store.pool import open_pool, outages_named
from gateway.telemetry import Event, log
from gateway.throttle.shaping import Shaping, parse_throttles

T = TypeVar("T")

LOOK_EVERY_S: Final = 1.0
AGAIN_EVERY_S: Final = 10.0


class Watched(Generic[T]):
    """A file as it was read last, and the value in force that came of it."""

    # Mutable on purpose: a memory of one file.
    def __init__(self, path: Path, parse: Callable[[Document], T], started_with: T) -> None:
        self._path, self._parse = path, parse
        self._text: str | None = None
        self._problem = ""
        self._started_with = started_with
        self.rules = started_with

    @property
    def changed(self) -> bool:
        """Whether the rules in force are not those that the other processes were started with."""
        return self.rules != self._started_with

    def look(self) -> bool:
        """Read the file; whether there are new rules. What is wrong is logged once, and changes nothing."""
        try:
            document = read_toml(self._path)
            if document.text == self._text:
                return False
            self._text = document.text
            rules = self._parse(document)
        except ConfigError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.error(Event.CONFIG_REFUSED, path=str(self._path), problem=self._problem)
            return False
        self._problem = ""
        if rules == self.rules:
            return False
        self.rules = rules
        log.info(Event.CONFIG_LOADED, path=str(self._path))
        return True


async def keep_rules(
    path: Path, judge: RuledJudge, *, stop: asyncio.Event, look_every_s: float = LOOK_EVERY_S
) -> None:
    """Hold a judge of replies to the file until `stop`; what it was made with stays where the file is wrong."""
    watched = Watched(path, parse_bounces, judge.rules)
    while not stop.is_set():
        if await asyncio.to_thread(watched.look):
            judge.rules = watched.rules
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), look_every_s)


async def keep_limits(
    path: Path,
    dsn: str,
    *,
    shaping: Shaping,
    clock: Clock,
    stop: asyncio.Event,
    look_every_s: float = LOOK_EVERY_S,
) -> None:
    """Hold the lanes to the file until `stop`. Outages of Postgres are waited out.

    Raises:
        StoreUnavailable: Postgres does not answer at the start.
    """
    throttles = Watched(path, parse_throttles, shaping)
    pool = await open_pool(
        dsn, role="gateway_dispatch", min_size=0, max_size=1, application_name="gateway tuning"
    )
    apply_at = float("inf")
    try:
        while not stop.is_set():
            now = clock.monotonic()
            if await asyncio.to_thread(throttles.look):
                apply_at = now
            if apply_at <= now:
                try:
                    with outages_named("applying the throttles"):
                        await apply_limits(pool, throttles.rules)
                    apply_at = now + AGAIN_EVERY_S if throttles.changed else float("inf")
                except StoreUnavailable as error:
                    log.warning(Event.CONFIG_REFUSED, path=str(path), problem=f"not applied yet: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), look_every_s)
    finally:
        pool.terminate()
