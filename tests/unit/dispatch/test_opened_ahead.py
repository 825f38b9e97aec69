"""What the journal says of a delivery that is opened behind another, and what becomes of it when it comes to nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.config import Config
from gateway.dispatch.attempt import AttemptMaker
from gateway.dispatch.lease import Lease
from gateway.dispatch.outcome import Policies
from gateway.dispatch.stall import STALL_S, Stalls
from gateway.dispatch.trace import Traces
from gateway.errors import StoreUnavailable
from gateway.model.delivery import DeliveryState, Leased, Result
from gateway.model.disposition import BounceClass, Disposition, Outcome
from gateway.mta.journal import Journal, replay
from gateway.mta.reply import classify
from gateway.mta.wire import Mail
from gateway.telemetry import Metrics
from tests.support.clock import FakeClock
from tests.unit.dispatch.test_lane import leased

_OK = Disposition(Outcome.DELIVERED, BounceClass.OK, 250, None, "ok")
FIRST, SECOND, THIRD = (leased(number, 1_000.0) for number in (1, 2, 3))


class Contents:
    """Makes a mail of any delivery whose message is at hand."""

    def __init__(self) -> None:
        self.gone = False

    def missing(self, message_ids: set[int]) -> list[int]:
        return list(message_ids) if self.gone else []

    def make(self, delivery: Leased) -> Mail:
        return Mail("b@b.example", delivery.recipient, b"hello %d\r\n" % delivery.id)


class Session:
    """Sends at once; a test looks around before the reply to the dot (`in_between`), or has it find nobody there (`stale`)."""

    trace = None

    def __init__(self) -> None:
        self.stale = False
        self.opened: list[Mail] = []
        self.before_opening: Callable[[], None] = lambda: None
        self.in_between: Callable[[], None] = lambda: None

    async def transact(
        self, mail: Mail, before_dot: Callable[[], None], turn: Callable[[], Awaitable[None]], ahead: Callable[[], Mail | None] | None
    ) -> Disposition:  # fmt: skip
        self.before_opening()
        if self.stale:
            return _OK
        await turn()
        if ahead is not None and (following := ahead()) is not None:
            self.opened.append(following)
        before_dot()
        self.in_between()
        return _OK


class Bench:
    """A maker of attempts over a real journal; Postgres is away."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.contents, self.session = folder, FakeClock(), Contents(), Session()
        self.told, self.back = list[Result](), list[Leased]()
        self.lease, self.journal = Lease(self.clock, 1e6), Journal(folder, 1)
        self.lease.renew(self.clock.monotonic())
        config = Config()
        make: Any = AttemptMaker
        told: Any = type("Told", (), {"put": lambda _, result: self.told.append(result)})()
        self.attempts: AttemptMaker = make(
            config=config, own_name="gw.test", clock=self.clock, lease=self.lease, stalls=Stalls(self.clock), journal=self.journal,
            contents=self.contents, acknowledger=told, policies=Policies(config.retry, config.doubt), judge=classify, resolver=None,
            queue=None, pool=self, metrics=Metrics(CollectorRegistry()), traces=Traces(1, self.clock), hand_back=self.back.extend,
            failed=lambda _: None,
        )  # fmt: skip

    @asynccontextmanager
    async def acquire(self) -> Any:
        raise StoreUnavailable("Postgres is not available")
        yield

    async def send(self, delivery: Leased, following: Leased | None = None) -> Disposition | None:
        async def turn() -> None: ...

        session: Any = self.session
        return await self.attempts.send(delivery, session, turn, lambda: following)

    def started(self) -> set[int]:
        """Who would be a suspect if the process died now."""
        return set(replay(self.folder, 1).started)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.journal.close()


async def test_what_waits_for_the_one_before_it_is_no_suspect(bench: Bench) -> None:
    seen: list[set[int]] = []
    bench.session.in_between = lambda: seen.append(bench.started())
    assert await bench.send(FIRST, SECOND) == _OK
    assert bench.session.opened == [bench.contents.make(SECOND)]
    assert seen == [set()]
    assert bench.started() == set()


async def test_what_is_taken_up_is_one_until_its_dot(bench: Bench) -> None:
    await bench.send(FIRST, SECOND)
    seen: list[set[int]] = []
    bench.session.before_opening = lambda: seen.append(bench.started())
    bench.session.in_between = lambda: seen.append(bench.started())
    assert await bench.send(SECOND) == _OK
    assert seen == [{2}, set()]
    assert {result.id: result.state for result in bench.told} == {
        1: DeliveryState.DELIVERED,
        2: DeliveryState.DELIVERED,
    }


async def test_what_was_not_taken_up_after_all_is_made_anew(bench: Bench) -> None:
    await bench.send(FIRST, SECOND)
    bench.attempts.forget(SECOND)
    assert bench.started() == set()
    assert await bench.send(SECOND) == _OK


@pytest.mark.parametrize("late", [True, False])
async def test_a_standstill_after_it_was_opened_takes_back_what_is_late(bench: Bench, late: bool) -> None:
    """Its token was for the moment at which it was opened, not for the one at which the reply before it came."""
    second = leased(2, 1_000.0, late_s=0.1 if late else 60.0)
    bench.session.in_between = lambda: bench.clock.skip(STALL_S + 0.1)
    await bench.send(FIRST, second)
    assert bench.attempts._stalls.since(1_000.0)  # pyright: ignore[reportPrivateUsage]
    bench.session.in_between = lambda: None
    assert await bench.send(second) == (None if late else _OK)
    assert bench.back == ([second] if late else [])


async def test_what_came_to_nothing_is_not_opened_ahead_again_until_it_was_tried_as_the_first(
    bench: Bench,
) -> None:
    await bench.send(FIRST, SECOND)
    bench.session.stale = True
    assert await bench.send(SECOND) is None
    assert bench.back == [SECOND]
    bench.session.stale = False
    await bench.send(THIRD, SECOND)
    assert [mail.content for mail in bench.session.opened] == [b"hello 2\r\n"], "the first time alone"
    await bench.send(SECOND)
    await bench.send(THIRD, SECOND)
    assert len(bench.session.opened) == 2


async def test_a_message_that_cannot_be_read_goes_back_untried(bench: Bench) -> None:
    bench.contents.gone = True
    assert await bench.send(FIRST) is None
    assert (bench.back, bench.told, bench.journal.open_count) == ([FIRST], [], 0)
