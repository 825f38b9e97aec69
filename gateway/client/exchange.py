"""How often a call is made, and how long is waited between: the core that the sync and the async client share. Pure.

Owns repetition. Must not know HTTP's wire, clocks or the loop: `exchange` is a generator that says what to do next (`Ask`, `Wait`) and is
told what came of it. Everything may be repeated: GET, PUT and DELETE by what they mean (RFC 9110 §9.2.2), POST by its
Idempotency-Key, and PATCH since here it says what a thing is to be, not by how much. The API key is none of its concern, nor of its Structs.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final, TypeVar

import msgspec

from gateway.client.call import Call, read_answer
from gateway.client.errors import ClientError, NotFound, Unreachable, read_problem

T = TypeVar("T")

AGAIN: Final = frozenset({429, 502, 503, 504})
"""502 and 504 are a proxy's word for connection trouble behind it."""


class Retry(msgspec.Struct, frozen=True):
    """When a call is repeated: after connection trouble, 429 and 503.

    The waits grow from `first_s` by doubling up to `longest_s`, each drawn between nothing and that ("full jitter"), so that clients which
    failed together do not come back together. A Retry-After is waited for in full, unless it is longer than `retry_after_limit_s`.
    """

    tries: int = 5
    first_s: float = 0.25
    longest_s: float = 10.0
    retry_after_limit_s: float = 60.0

    def wait_s(self, made: int, retry_after_s: float | None, dice: Random) -> float | None:
        """How long to wait after `made` tries; None: give up."""
        if made >= self.tries:
            return None
        drawn = dice.uniform(0.0, min(self.longest_s, self.first_s * 2.0 ** (made - 1)))
        if retry_after_s is None:
            return drawn
        return retry_after_s + drawn if retry_after_s <= self.retry_after_limit_s else None


ALWAYS: Final = Retry()
"""What a client does unless it is told otherwise."""

NEVER: Final = Retry(tries=1)
"""Each call once."""


class Ask(msgspec.Struct, frozen=True):
    """Send it with these headers and the client's own, and say what came: an `Answer` or a `Trouble`."""

    headers: Mapping[str, str]


class Wait(msgspec.Struct, frozen=True):
    """Wait so long, and say None."""

    seconds: float


class Answer(msgspec.Struct, frozen=True):
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: datetime
    """When it came: a Retry-After may be a date."""


class Trouble(msgspec.Struct, frozen=True):
    """No answer came: refused, reset, timed out. `lasting`: another try would end alike."""

    error: Exception
    lasting: bool = False


Step = Ask | Wait
Outcome = Answer | Trouble | None


def exchange(call: Call[T], key: str, retry: Retry, dice: Random) -> Generator[Step, Outcome, T]:
    """Make a call until it has an answer that stands; returns what the call gives.

    Args:
        call: what is asked.
        key: the Idempotency-Key of a POST that brings none.
        retry: how often.
        dice: for the waits.

    Raises:
        Problem: the gateway refused.
        Unreachable: no try had an answer.
        Garbled: the answer is not the gateway's.
    """
    sent: dict[str, str] = {}
    if call.body:
        sent["content-type"] = call.content_type
    if call.method == "POST":
        sent["idempotency-key"] = call.idempotency_key or key
    made, unheard = 0, False
    while True:
        outcome = yield Ask(sent)
        made += 1
        retry_after_s = None
        again = True
        if isinstance(outcome, Answer):
            request_id = outcome.headers.get("x-request-id", "")
            if 200 <= outcome.status < 300:
                return read_answer(call, outcome.body, request_id)
            retry_after_s = read_retry_after(outcome.headers.get("retry-after"), outcome.at)
            error: ClientError = read_problem(outcome.status, outcome.body, request_id, retry_after_s)
            if call.method == "DELETE" and unheard and isinstance(error, NotFound):
                return read_answer(call, b"", request_id)  # the try that was not answered has done it
            again = outcome.status in AGAIN
        else:
            assert outcome is not None, "an Ask is answered by an Answer or a Trouble"
            unheard = True
            again = not outcome.lasting
            said = str(outcome.error) or type(outcome.error).__name__
            error = Unreachable(f"{call.method} {call.path}: no answer: {said} (tries: {made})")
            error.__cause__ = outcome.error
        wait_s = retry.wait_s(made, retry_after_s, dice) if again else None
        if wait_s is None:
            raise error
        yield Wait(wait_s)


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a Retry-After asks for (RFC 9110 §10.2.3), as a number or a date; None when it says nothing."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
