"""Who follows is told of each change, also of one that came before it did."""

from structlog.testing import capture_logs

from gateway.app.brief import Tuning
from gateway.app.tuning import Tunings
from gateway.config import Config, DispatchConfig
from gateway.throttle.shaping import Limits, Shaping

FIRST = Tuning(Config())
SECOND = Tuning(Config(dispatch=DispatchConfig(workers=2)), Shaping(Limits(burst=7)))


def test_each_change_reaches_every_follower() -> None:
    tunings, heard, parts = Tunings(FIRST), list[Tuning](), list[tuple[int, int]]()
    tunings.follow(heard.append)
    tunings.retunes(lambda config, shaping: parts.append((config.dispatch.workers, shaping.default.burst)))
    assert (heard, parts) == ([], [])
    tunings.take(SECOND)
    assert (heard, parts) == ([SECOND], [(2, 7)])
    assert tunings.now == SECOND


def test_a_change_from_before_is_told_at_once() -> None:
    tunings, heard = Tunings(FIRST), list[Tuning]()
    tunings.take(SECOND)
    tunings.follow(heard.append)
    assert heard == [SECOND]


def test_a_follower_that_fails_keeps_no_other_from_hearing() -> None:
    def fails(tuning: Tuning) -> None:
        raise ValueError(tuning.config.dispatch.workers)

    tunings, heard = Tunings(FIRST), list[Tuning]()
    tunings.follow(fails)
    tunings.follow(heard.append)
    with capture_logs() as logs:
        tunings.take(SECOND)
        tunings.follow(fails)
    assert heard == [SECOND]
    assert [(line["event"], line["part"].rpartition(".")[2]) for line in logs] == [
        ("config.not_followed", "fails")
    ] * 2
