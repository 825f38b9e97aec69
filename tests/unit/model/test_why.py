"""Why a delivery is where it is: for every state a reason in words, with what would release it, and the decisive one first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.delivery import OPEN, DeliveryState
from gateway.model.why import PACE, Code, Reason, eta_s, explain
from gateway.model.why_facts import Facts, Hold, Lane, Suppression, Surroundings
from gateway.throttle import bucket

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)
LANE = Lane(name="d.example", rate_per_s=10.0, burst=1.0)
SUSPENDED = Lane(
    "d.example", 10.0, 1.0, suspended=True, suspended_until=LATER, suspended_why="421 4.7.0 not now"
)


def facts(state: str, **known: Any) -> Facts:
    return Facts(**{"state": DeliveryState(state), "accepted_at": NOW, "expires_at": NOW + timedelta(days=1), "lane": LANE} | known)  # fmt: skip


def told(state: str, around: Surroundings | None = None, **known: Any) -> list[Reason]:
    return explain(facts(state, **known), around or Surroundings(NOW))


def codes(reasons: list[Reason]) -> list[str]:
    return [reason.code for reason in reasons]


@given(
    state=st.sampled_from(DeliveryState),
    holds=st.lists(st.sampled_from(["fleet", "site", "broadcast"]), unique=True),
    lane=st.sampled_from([LANE, SUSPENDED, None]),
    lives=st.booleans(),
    attempts=st.integers(0, 9),
)
def test_every_delivery_has_a_reason_and_what_is_open_says_what_would_release_it(
    state: DeliveryState, holds: list[str], lane: Lane | None, lives: bool, attempts: int
) -> None:
    around = Surroundings(NOW, tuple(Hold(kind, "paused", NOW) for kind in holds), dispatching=lives)
    reasons = explain(facts(state, lane=lane, attempts=attempts, owner_lives=lives), around)
    assert reasons
    assert all(reason.text for reason in reasons)
    assert len({reason.code for reason in reasons}) == len(reasons)
    if state in OPEN:
        assert all(reason.release for reason in reasons)
    assert msgspec.json.decode(msgspec.json.encode(reasons))[0]["code"] == reasons[0].code


def test_a_delivery_behind_others_waits_for_the_lanes_tokens() -> None:
    (reason,) = told("queued", ahead=490, sharing=2)
    assert reason.code is Code.LANE_RATE
    assert reason.text == "it waits for its turn: d.example takes 10 a second, and 490 of yours are before it"
    assert (reason.ahead, reason.rate_per_s, reason.eta_s) == (490, 10.0, 101.3)
    assert reason.release == "by itself, in about 101 seconds"


def test_what_was_not_counted_is_said() -> None:
    (reason,) = told("queued", ahead=1_000, more_ahead=True)
    assert "more than 1,000 of yours" in reason.text
    assert reason.release == "by itself, in about 103 seconds or more"


def test_tokens_spent_in_advance_are_waited_for_though_nobody_is_before_it() -> None:
    (reason,) = told("queued", lane=msgspec.structs.replace(LANE, owes_s=30.0))
    assert (reason.code, reason.eta_s) == ("lane_rate", 30.0)


def test_what_nothing_holds_is_next() -> None:
    assert codes(told("queued")) == ["next"]
    assert codes(told("queued", lane=None)) == ["next"]
    assert codes(told("queued", Surroundings(NOW, dispatching=False))) == ["no_dispatcher"]


def test_a_suspended_lane_says_until_when_and_after_which_reply() -> None:
    (reason,) = told("queued", lane=SUSPENDED)
    assert (reason.code, reason.until, reason.reply) == ("lane_suspended", LATER, "421 4.7.0 not now")


def test_the_widest_hold_comes_first_and_all_are_told() -> None:
    around = Surroundings(
        NOW,
        (
            Hold("broadcast", "paused", NOW),
            Hold("site", "unpaid", NOW, LATER),
            Hold("fleet", "restored", NOW),
        ),
    )
    reasons = told("queued", around, lane=SUSPENDED)
    assert codes(reasons) == ["held_fleet", "held_site", "broadcast_paused", "lane_suspended"]
    assert (reasons[1].text, reasons[1].until) == ("the site is on hold: unpaid", LATER)
    assert reasons[2].release == "POST /v1/broadcasts/{id}/actions/resume"


def test_a_cancelled_broadcast_is_told_before_its_deliveries_have_ended() -> None:
    around = Surroundings(NOW, (Hold("broadcast", "cancelled", NOW),))
    assert codes(told("queued", around)) == ["broadcast_cancelled"]
    (ended,) = told("cancelled", broadcast_id=7, ended_at=NOW)
    assert (ended.text, ended.since) == ("its broadcast was cancelled", NOW)
    assert told("cancelled")[0].text == "its sender cancelled it"


def test_what_was_sent_for_later_is_scheduled_and_not_deferred() -> None:
    (reason,) = told("deferred", due_at=LATER)
    assert (reason.code, reason.until) == ("scheduled", LATER)
    (reason,) = told(
        "deferred", due_at=LATER, attempts=1, reply="450 4.2.0 try later", bounce_class="greylist"
    )
    assert (reason.code, reason.until, reason.bounce_class) == ("deferred", LATER, "greylist")
    assert reason.text == "it was not taken yet, after 1 attempt: 450 4.2.0 try later"
    (reason,) = told("deferred", due_at=LATER, reply="421 4.7.0 not now")
    assert reason.text == "it was not taken yet: 421 4.7.0 not now", (
        "the whole lane was refused: no attempt of its own"
    )


def test_a_suspension_that_is_over_before_the_next_attempt_does_not_hold_it() -> None:
    assert codes(told("deferred", due_at=LATER, attempts=1, lane=SUSPENDED)) == ["deferred"]
    sooner = LATER - timedelta(minutes=1)
    assert codes(told("deferred", due_at=sooner, attempts=1, lane=SUSPENDED)) == [
        "deferred",
        "lane_suspended",
    ]


def test_what_is_in_doubt_says_whether_it_is_sent_again() -> None:
    (again,) = told("in_doubt", due_at=LATER)
    assert (again.until, "sent again" in again.release) == (LATER, True)
    expires = NOW + timedelta(days=1)
    (last,) = told("in_doubt", due_at=expires, expires_at=expires)
    assert (last.until, "unresolved" in last.release) == (expires, True)


def test_a_suppressed_one_says_by_which_suppression_and_since_when() -> None:
    found = Suppression("all", "hard_bounce", NOW - timedelta(days=3))
    (reason,) = told("suppressed", suppression=found, ended_at=NOW)
    assert reason.text == "its address is suppressed for all mail: hard_bounce"
    assert reason.since == NOW - timedelta(days=3)
    assert told("suppressed")[0].text == "its address was suppressed; it is not any more"


def test_a_dead_dispatchers_delivery_is_told_apart() -> None:
    assert codes(told("leased")) == ["sending"]
    assert codes(told("leased", owner_lives=False)) == ["dispatcher_lost"]


@pytest.mark.parametrize(
    ("state", "says"),
    [("delivered", "took it"), ("bounced", "for good (invalid): 550 5.1.1 no"), ("expired", "after 3 attempts: 550 5.1.1 no"),
     ("quarantined", "550 5.1.1 no"), ("unresolved", "not known")],
)  # fmt: skip
def test_an_end_says_what_ended_it(state: str, says: str) -> None:
    (reason,) = told(state, attempts=3, reply="550 5.1.1 no", bounce_class="invalid", ended_at=LATER)
    assert reason.code == state
    assert says in reason.text
    assert (reason.since, reason.reply) == (LATER, "550 5.1.1 no")


@given(
    ahead=st.integers(0, 1_000),
    sharing=st.integers(0, 100),
    owes=st.floats(0, 3600),
    burst=st.floats(1, 1_000),
)
def test_more_before_it_never_means_sooner(ahead: int, sharing: int, owes: float, burst: float) -> None:
    lane = Lane("d", 10.0, burst, owes)
    assert (
        0
        <= eta_s(lane, ahead, sharing)
        <= eta_s(lane, ahead + 1, sharing)
        <= eta_s(lane, ahead + 1, sharing + 1)
    )


def test_a_lane_is_estimated_at_the_pace_that_it_is_sent_at() -> None:
    assert bucket.PACE == PACE
