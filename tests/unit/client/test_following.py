"""How a stream is followed, told step by step: no socket, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec

from gateway.api import sse
from gateway.client.call import Stream
from gateway.client.errors import Garbled, NotFound, Unavailable, Unreachable
from gateway.client.exchange import ALWAYS, NEVER, Answer, Retry, Trouble, Wait
from gateway.client.following import FollowOutcome, More, Open, Opened, Tell, follow
from gateway.client.results import BroadcastStats

STREAM = Stream("/v1/broadcasts/brd_1/stream", BroadcastStats)
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
AGAIN = sse.retry(2_000)
CUT = Trouble(ConnectionResetError("reset by peer"))
END = sse.event("end", b"{}", "b")


def stats(accepted: int) -> bytes:
    return msgspec.json.encode(BroadcastStats(accepted, False, "sending", {"queued": accepted}))


def progress(accepted: int, event_id: str) -> bytes:
    return sse.event("progress", stats(accepted), event_id)


def problem(status: int, type_: str) -> Answer:
    body = {"type": type_, "title": "t", "status": status, "detail": "d"}
    return Answer(status, {}, msgspec.json.encode(body), NOW)


class Story(msgspec.Struct):
    told: list[int] = []
    opens: list[str | None] = []
    waits: list[float] = []
    error: Exception | None = None


def tell(outcomes: Sequence[FollowOutcome], retry: Retry = ALWAYS) -> Story:
    """Follow; all outcomes must be asked for."""
    story, left = Story(), list(outcomes)
    steps = follow(STREAM, retry, Random(1))
    outcome: FollowOutcome = None
    try:
        while True:
            step: Any = steps.send(outcome)
            outcome = None
            match step:  # pyright: ignore[reportMatchNotExhaustive]
                case Tell():
                    story.told.append(step.item.accepted)
                case Wait():
                    story.waits.append(step.seconds)
                case Open():
                    story.opens.append(step.headers.get("last-event-id"))
                    outcome = left.pop(0)
                case More():
                    outcome = left.pop(0)
    except StopIteration:
        pass
    except Exception as error:
        story.error = error
    assert not left, "it ended before its story"
    return story


def test_a_stream_is_told_until_its_end() -> None:
    story = tell([Opened(), AGAIN + progress(1, "a"), sse.HEARTBEAT, progress(2, "b") + END])
    assert (story.told, story.opens, story.waits, story.error) == ([1, 2], [None], [], None)


def test_a_stream_that_breaks_is_taken_up_after_its_last_event() -> None:
    story = tell(
        [Opened(), AGAIN + progress(1, "a"), CUT, Opened(), b"", CUT, Opened(), progress(3, "c") + END]
    )
    assert (story.told, story.opens) == ([1, 3], [None, "a", "a", "a"])
    assert 2.0 <= story.waits[0] <= 2.25, "the server said when"
    assert story.error is None


def test_when_only_the_end_was_missed_nothing_more_is_told() -> None:
    story = tell([Opened(), progress(1, "a"), CUT, Answer(204, {}, b"", NOW)])
    assert (story.told, story.opens, story.error) == ([1], [None, "a"], None)


def test_whatever_is_heard_begins_the_count_of_tries_anew() -> None:
    for heard in (sse.HEARTBEAT, progress(1, "a")):
        story = tell([Opened(), heard, b""] * 12 + [Opened(), END])
        assert (len(story.opens), story.error) == (13, None)


def test_it_gives_up_when_nothing_is_heard() -> None:
    story = tell([Opened(), b""] * 5)
    assert isinstance(story.error, Unreachable)
    assert "tries: 5" in str(story.error)
    assert isinstance(tell([CUT], NEVER).error, Unreachable)
    assert isinstance(tell([problem(503, "unavailable")], NEVER).error, Unavailable)


def test_a_refusal_is_told_at_once() -> None:
    story = tell([Opened(), progress(1, "a"), b"", problem(404, "not_found")])
    assert isinstance(story.error, NotFound)
    assert story.told == [1]
    assert isinstance(tell([Answer(200, {}, b"<html>", NOW)]).error, Garbled)
    assert isinstance(tell([Opened(), sse.event("progress", b"[]", "a")]).error, Garbled)
