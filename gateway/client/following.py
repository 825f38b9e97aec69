"""How a stream of events is followed: taken up again where it broke, until it has ended. The core of both clients. Pure.

Owns that order, as `client/exchange` does for single calls: a generator that says what to do next (`Open`, `More`, `Tell`, `Wait`) and is told
what came. A stream that breaks is opened again with the last event's id (Last-Event-ID), after what the server asked for and a wait that
grows; whatever is heard in between, a heartbeat too, begins the count of tries anew.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from random import Random
from typing import Any, Final, Generic, TypeVar

import msgspec

from gateway.client.call import Stream
from gateway.client.errors import ClientError, Garbled, Unreachable, read_problem
from gateway.client.events import EventError, Parser
from gateway.client.exchange import AGAIN, Answer, Retry, Trouble, Wait, read_retry_after

T = TypeVar("T")

SILENCE_S: Final = 60.0
"""A stream that says nothing for so long is dead: there is a heartbeat every 15 s."""
_ENDED: Final = 204


class Open(msgspec.Struct, frozen=True):
    """Open the stream, after closing what was open, and say what came: `Opened`, an `Answer` that is no stream, or a `Trouble`."""

    headers: Mapping[str, str]


class Opened(msgspec.Struct, frozen=True):
    """It is a stream; `More` of it comes."""


class More(msgspec.Struct, frozen=True):
    """Read on, and give a piece (empty: it has ended), or a `Trouble`."""


class Tell(msgspec.Struct, Generic[T], frozen=True):
    """Give this to whoever follows, and say None."""

    item: T


FollowStep = Open | More | Tell[T] | Wait
FollowOutcome = Opened | Answer | Trouble | bytes | None


def follow(
    stream: Stream[T], retry: Retry, dice: Random
) -> Generator[FollowStep[T], FollowOutcome, None]:  # fmt: skip
    """Follow a stream to its end.

    Raises:
        Problem: the gateway refused.
        Unreachable: it could not be opened, or broke, too often in a row.
        Garbled: what comes is not the gateway's.
    """
    last_id, failed = "", 0
    while True:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        outcome = yield Open(headers | ({"last-event-id": last_id} if last_id else {}))
        pause_s: float | None = None
        again = True
        if isinstance(outcome, Opened):
            parser = Parser()
            while True:
                piece = yield More()
                if not isinstance(piece, bytes) or not piece:
                    break
                try:
                    for event in parser.feed(piece):
                        failed = 0
                        if event is None:
                            continue
                        last_id = event.id or last_id
                        if event.name == "end":
                            return
                        if event.name == "progress":
                            yield Tell(_read(stream, event.data))
                except EventError as error:
                    raise Garbled(f"GET {stream.path}: {error}") from error
            pause_s = parser.retry_s
            error = _silence(stream, piece if isinstance(piece, Trouble) else None, failed + 1)
        elif isinstance(outcome, Answer):
            if outcome.status == _ENDED:
                return
            request_id = outcome.headers.get("x-request-id", "")
            pause_s = read_retry_after(outcome.headers.get("retry-after"), outcome.at)
            error = read_problem(outcome.status, outcome.body, request_id, pause_s)
            again = outcome.status in AGAIN
        else:
            trouble = outcome if isinstance(outcome, Trouble) else None
            error, again = _silence(stream, trouble, failed + 1), trouble is None or not trouble.lasting
        failed += 1
        wait_s = retry.wait_s(failed, pause_s, dice) if again else None
        if wait_s is None:
            raise error
        yield Wait(wait_s)


def _silence(stream: Stream[Any], trouble: Trouble | None, tries: int) -> ClientError:
    if trouble is None:
        return Unreachable(f"GET {stream.path}: the stream ended before what it tells of (tries: {tries})")
    said = str(trouble.error) or type(trouble.error).__name__
    error = Unreachable(f"GET {stream.path}: no answer: {said} (tries: {tries})")
    error.__cause__ = trouble.error
    return error


def _read(stream: Stream[T], data: bytes) -> T:
    try:
        return msgspec.json.decode(data, type=stream.answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Garbled(f"GET {stream.path}: an event is not what this client knows ({error})") from error
