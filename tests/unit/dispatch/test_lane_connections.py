"""Connections that are full: what waits is looked at again after every await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gateway.dispatch.lane import LaneRunner
from gateway.model.delivery import Granted, Leased
from gateway.model.disposition import BounceClass, Disposition, Outcome
from tests.support.clock import FakeClock

_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Full:
    """A session that takes one message."""

    def __init__(self) -> None:
        self.usable, self.transactions = True, 0
        self.one_by_one = self.refused_ahead = False

    def quit(self) -> None:
        self.usable = False

    def abort(self) -> None:
        self.usable = False


class Host:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sent: list[int] = []
        self.back: list[Leased] = []
        self.errors: list[BaseException] = []
        self.hand_back: Callable[[list[Leased]], None] = self.back.extend
        self.failed: Callable[[BaseException], None] = self.errors.append

    def may_leave(self, delivery: Leased) -> bool:
        return True

    async def connect(self, delivery: Leased) -> Any:
        return Full()

    def forget(self, delivery: Leased) -> None:
        raise AssertionError("nothing is opened ahead here")

    async def send(self, delivery: Leased, session: Any, turn: Any, ahead: Any) -> Disposition | None:
        session.transactions += 1
        self.sent.append(delivery.id)
        await asyncio.sleep(0)
        return Disposition(Outcome.DELIVERED, BounceClass.OK, 250, None, "ok")

    def refused(self, delivery: Leased | None, lane: LaneRunner, disposition: Disposition) -> None:
        raise AssertionError("nothing is refused here")


def _leased(number: int) -> Leased:
    return Leased(
        id=number, epoch=1, lane_id=1, site_id=1, message_id=1, broadcast_id=0, priority=1, attempts=0, crashes=0, doubts=0,
        recipient="a@b.example", variables=None, accepted_at=_DAY, expires_at=_DAY, suppressed=False, planned_at=0.0, late_at=1e9,
        last_moment=1e9,
    )  # fmt: skip


async def test_two_full_connections_and_one_delivery_left() -> None:
    host = Host()
    lane = LaneRunner(
        1, host, max_rows=10, max_patience_s=0.1, messages_per_connection=1, on_progress=lambda: None
    )
    lane.take(Granted(1, 1e6, 1000, 2, [_leased(1), _leased(2), _leased(3)]))
    await lane.finish()
    assert sorted(host.sent) == [1, 2, 3]
    assert host.errors == []
    assert host.back == []
