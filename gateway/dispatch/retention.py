"""The chores of forgetting: what is due by `[retention]`, and who asked for it; a part at a time.

Owns when a thing is due. Must not know what erasing it takes (`store/retention`). Part of upkeep: any number of processes may run it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from gateway.clock import Clock
from gateway.config import RetentionConfig
from gateway.store import privacy, retention
from gateway.store.pool import Connection
from gateway.telemetry import Event, Metrics, log

LOOK: Final = 500
"""Messages that one step looks at: their contents may be large, and nobody waits for it."""


async def erase_step(connection: Connection, kept: RetentionConfig, clock: Clock, metrics: Metrics) -> bool:
    """Erase a part of the contents that are due; whether there may be more."""
    more = False
    for stream, days in (
        ("transactional", kept.transactional_content_days),
        ("marketing", kept.marketing_content_days),
    ):
        if not days:
            continue
        done = await retention.erase_due(connection, stream, clock.now() - timedelta(days=days), LOOK)
        more = more or done.looked == LOOK
        if done.erased:
            metrics.contents_erased.labels(stream).inc(done.erased)
            log.info(Event.CONTENTS_ERASED, stream=stream, messages=done.erased)
    return more


async def forget_step(connection: Connection) -> bool:
    """Do a part of an erasure that was asked for; whether there may be more to do now."""
    part = await privacy.erase_step(connection)
    if part is not None and part.is_last:
        log.info(Event.RECIPIENT_ERASED, erasure_id=part.erasure_id, deliveries=part.deliveries)
    return part is not None


async def drop_step(connection: Connection, kept: RetentionConfig, clock: Clock) -> int:
    """Drop the days of events that are due; how many."""
    if not kept.events_days:
        return 0
    days = await retention.drop_event_days(connection, clock.now() - timedelta(days=kept.events_days))
    if days:
        log.info(Event.EVENTS_DROPPED, days=days)
    return days
