"""A delivery whose domain takes no mail bounces, unless it would not have been begun either way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.config import Config
from gateway.dispatch.attempt import AttemptMaker
from gateway.dispatch.lease import Lease
from gateway.dispatch.outcome import Policies
from gateway.dispatch.stall import Stalls
from gateway.dispatch.trace import Traces
from gateway.model.delivery import DeliveryState, Leased, Result
from gateway.model.disposition import BounceClass, Disposition, Outcome
from gateway.mta.journal import Journal
from gateway.mta.reply import classify
from gateway.telemetry import Metrics
from tests.support.clock import FakeClock
from tests.unit.dispatch.test_lane import leased

LEASE_S = 30.0
NULL_MX = Disposition(Outcome.BOUNCED, BounceClass.INVALID, 0, "5.1.10", "takes no mail (null MX)")


class Told:
    """In place of the acknowledger: what the queue would be told."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def put(self, result: Result) -> None:
        self.results.append(result)


class Bench:
    """A maker of attempts with a proven lease; nothing that would make, connect or store anything."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.told, self.back = FakeClock(), Told(), list[Leased]()
        self.lease = Lease(self.clock, LEASE_S)
        self.lease.renew(self.clock.monotonic())
        self.journal = Journal(folder, 1)
        config = Config()
        make: Any = AttemptMaker
        self.attempts: AttemptMaker = make(
            config=config, own_name="gw.test", clock=self.clock, lease=self.lease, stalls=Stalls(self.clock), journal=self.journal, contents=None,
            acknowledger=self.told, policies=Policies(config.retry, config.doubt), judge=classify, resolver=None, queue=None, pool=None,
            metrics=Metrics(CollectorRegistry()), traces=Traces(1, self.clock), hand_back=self.back.extend, failed=lambda _: None,
        )  # fmt: skip

    def judge(self, delivery: Leased) -> tuple[list[DeliveryState], list[int]]:
        """What is told of it, and whether it went back."""
        self.attempts.hopeless(delivery, NULL_MX)
        return [result.state for result in self.told.results], [one.id for one in self.back]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.journal.close()


def test_it_bounces_and_its_address_is_suppressed(bench: Bench) -> None:
    assert bench.judge(leased(7, 1_000.0)) == ([DeliveryState.BOUNCED], [])
    [result] = bench.told.results
    assert (result.counts, result.enhanced, result.suppress is not None) == (True, "5.1.10", True)
    assert bench.journal.open_count == 1, "until it is acknowledged"


def test_one_that_was_suppressed_is_not_bounced(bench: Bench) -> None:
    assert bench.judge(leased(7, 1_000.0, suppressed=True)) == ([DeliveryState.SUPPRESSED], [])
    assert bench.told.results[0].suppress is None
    assert bench.journal.open_count == 0


def test_one_that_has_expired_is_not_bounced(bench: Bench) -> None:
    assert bench.judge(leased(7, 1_000.0, last_moment=1_000.0)) == ([DeliveryState.EXPIRED], [])
    assert bench.told.results[0].suppress is None


@pytest.mark.parametrize("hold", [("site", 1), ("broadcast", 0), ("fleet", 0)])
def test_one_that_is_held_goes_back_whatever_else_it_is(bench: Bench, hold: tuple[str, int]) -> None:
    bench.attempts.holds = frozenset({hold})
    assert bench.judge(leased(7, 1_000.0, suppressed=True)) == ([], [7])


def test_without_a_proven_lease_it_goes_back(bench: Bench) -> None:
    bench.clock.skip(LEASE_S)
    assert bench.judge(leased(7, 1_000.0)) == ([], [7])
    assert bench.journal.open_count == 0
