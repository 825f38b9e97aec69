"""`throttles.toml` while the gateway runs: a change reaches every lane within seconds, without a restart.

Owns the watch of the file. A file that is wrong is refused, with what is wrong, and the limits before stay in force. Lanes
that another process makes meanwhile get the limits that it was started with; so once the file has changed, all lanes are
brought up to date again from time to time.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from gateway.clock import Clock
from gateway.config.strict_toml import read_toml
from gateway.dispatch.upkeep import apply_limits
from gateway.errors import ConfigError, StoreUnavailable
from gateway.store.pool import open_pool, outages_named
from gateway.telemetry import Event, log
from gateway.throttle.shaping import Shaping, parse_throttles

LOOK_EVERY_S: Final = 1.0
AGAIN_EVERY_S: Final = 10.0


class Throttles:
    """The file as it was read last, and the rules in force."""

    # Mutable on purpose: a memory of one file.
    def __init__(self, path: Path, started_with: Shaping) -> None:
        self._path = path
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
            rules = parse_throttles(document)
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
    throttles = Throttles(path, shaping)
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
