"""What a client does with answers and with silence, told step by step: no socket, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.call import Call
from gateway.client.errors import (
    Garbled,
    Invalid,
    NotFound,
    RateLimited,
    ServerFault,
    Unavailable,
    Unreachable,
)
from gateway.client.exchange import (
    ALWAYS,
    NEVER,
    Answer,
    Ask,
    Outcome,
    Retry,
    Trouble,
    Wait,
    exchange,
    read_retry_after,
)
from gateway.client.results import ContactList

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
GOOD = msgspec.json.encode({"id": "lst_1", "name": "n", "members": 2, "created_at": NOW, "new": "unknown"})
GET = Call("GET", "/v1/lists/lst_1", ContactList)
POST = Call("POST", "/v1/lists", ContactList, body=b'{"name":"n"}')
DELETE = Call("DELETE", "/v1/lists/lst_1", type(None))


def good() -> Answer:
    return Answer(200, {}, GOOD, NOW)


def refused(status: int, type_: str, **more: Any) -> Answer:
    headers = {"x-request-id": "r1"} | more.pop("headers", {})
    body = {"type": type_, "title": "t", "status": status, "detail": "d", "request_id": "r1", **more}
    return Answer(status, headers, msgspec.json.encode(body), NOW)


def lost() -> Trouble:
    return Trouble(ConnectionResetError("reset by peer"))


class Story(msgspec.Struct):
    value: Any = None
    error: Exception | None = None
    asks: list[Ask] = []
    waits: list[float] = []


def tell(call: Call[Any], outcomes: Sequence[Outcome], retry: Retry = ALWAYS, seed: int = 1) -> Story:
    """Drive a call; all outcomes must be asked for."""
    story, left = Story(), list(outcomes)
    steps = exchange(call, "made-key", retry, Random(seed))
    outcome: Outcome = None
    try:
        while True:
            step = steps.send(outcome)
            if isinstance(step, Wait):
                story.waits.append(step.seconds)
                outcome = None
            else:
                story.asks.append(step)
                outcome = left.pop(0)
    except StopIteration as end:
        story.value = end.value
    except Exception as error:
        story.error = error
    assert not left, "it gave up before its story had ended"
    return story


def test_a_good_answer_is_read_and_unknown_fields_are_passed_over() -> None:
    story = tell(GET, [good()])
    assert story.value == ContactList("lst_1", "n", 2, NOW)
    assert story.asks == [Ask({})]


@pytest.mark.parametrize(
    "first",
    [lost(), refused(503, "unavailable"), refused(429, "rate_limited"), Answer(502, {}, b"<html>", NOW)],
)
def test_what_fails_for_a_moment_is_asked_again(first: Outcome) -> None:
    story = tell(POST, [first, good()])
    assert story.value.id == "lst_1"
    assert len(story.waits) == 1


def test_every_try_of_a_post_has_the_same_idempotency_key() -> None:
    story = tell(POST, [lost(), refused(503, "unavailable"), good()])
    assert [ask.headers["idempotency-key"] for ask in story.asks] == ["made-key"] * 3
    assert story.asks[0].headers["content-type"] == "application/json"
    own = tell(msgspec.structs.replace(POST, idempotency_key="order-4711"), [good()])
    assert own.asks[0].headers["idempotency-key"] == "order-4711"
    assert "idempotency-key" not in tell(GET, [good()]).asks[0].headers


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(422, "invalid", errors=[{"pointer": "/to/0", "detail": "no address"}]), Invalid),
        (refused(500, "about:blank"), ServerFault),
        (Answer(200, {}, b"<html>", NOW), Garbled),
        (Answer(301, {}, b"", NOW), Garbled),
    ],
)
def test_what_would_end_alike_is_not_asked_again(answer: Answer, kind: type[Exception]) -> None:
    story = tell(GET, [answer])
    assert type(story.error) is kind
    assert story.waits == []


def test_it_gives_up_after_its_tries_and_says_why() -> None:
    story = tell(GET, [lost()] * 5)
    assert isinstance(story.error, Unreachable)
    assert "no answer: reset by peer (tries: 5)" in str(story.error)
    assert isinstance(story.error.__cause__, ConnectionResetError)
    assert isinstance(tell(GET, [refused(503, "unavailable")], NEVER).error, Unavailable)


def test_trouble_of_its_own_making_is_not_repeated() -> None:
    assert isinstance(tell(GET, [Trouble(ValueError("x"), lasting=True)]).error, Unreachable)


def test_a_retry_after_is_waited_for_in_full() -> None:
    story = tell(GET, [refused(429, "rate_limited", headers={"retry-after": "7"}), good()])
    assert 7.0 <= story.waits[0] <= 7.25
    date = {"retry-after": "Thu, 26 Nov 2026 12:00:30 GMT"}
    story = tell(GET, [refused(503, "unavailable", headers=date), good()])
    assert 30.0 <= story.waits[0] <= 30.25


def test_a_retry_after_beyond_its_patience_is_told_instead() -> None:
    story = tell(GET, [refused(429, "rate_limited", headers={"retry-after": "3600"})])
    assert isinstance(story.error, RateLimited)
    assert story.error.retry_after_s == 3600.0
    assert story.waits == []


def test_a_delete_whose_answer_was_lost_is_done_when_nothing_is_left() -> None:
    story = tell(DELETE, [lost(), refused(404, "not_found")])
    assert (story.value, story.error) == (None, None)
    assert isinstance(tell(DELETE, [refused(404, "not_found")]).error, NotFound)
    assert isinstance(tell(DELETE, [refused(503, "unavailable"), refused(404, "not_found")]).error, NotFound)
    assert tell(DELETE, [Answer(204, {}, b"", NOW)]).error is None


@given(st.integers(1, 12), st.integers(0, 2**32), st.none() | st.floats(0, 60))
def test_waits_are_drawn_below_a_bound_that_doubles(made: int, seed: int, asked_s: float | None) -> None:
    retry = Retry(tries=13, first_s=0.5, longest_s=8.0, retry_after_limit_s=60.0)
    wait_s = retry.wait_s(made, asked_s, Random(seed))
    assert wait_s is not None
    bound_s = min(8.0, 0.5 * 2 ** (made - 1))
    assert (asked_s or 0.0) <= wait_s <= (asked_s or 0.0) + bound_s
    assert retry.wait_s(13, asked_s, Random(seed)) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), (" 12 ", 12.0), ("Thu, 26 Nov 2026 11:00:00 GMT", 0.0), ("soon", None), ("-1", None), ("", None), (None, None)],
)  # fmt: skip
def test_a_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, NOW) == seconds
