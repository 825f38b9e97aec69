"""One request to the control API as data, and an answer read back. Pure.

Owns the form that every call has before it becomes HTTP: method, path, query, body, and the type of its answer. Must not know how it is
sent (`client/sync`, `client/aio`) or repeated (`client/exchange`). Lists come by key: `{"data": […], "has_more": …, "next": …}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import quote

import msgspec

from gateway.client.errors import Garbled

T = TypeVar("T")

JSON: Final = "application/json"
CSV: Final = "text/csv"
PAGE_SIZE: Final = 100

_ENCODER: Final = msgspec.json.Encoder()


class Call(msgspec.Struct, Generic[T], frozen=True):
    """One request. `answer`: the type of its answer, None for an empty one, str for text.

    `idempotency_key` is for POSTs: empty, the client makes one, the same for every repetition. A `body` that is a path is read from its file
    each time that it is sent. `timeout_s`: how long the answer may take, where that is not as with other calls.
    """

    method: str
    path: str
    answer: type[T]
    query: Mapping[str, str] = {}
    body: bytes | Path = b""
    content_type: str = JSON
    idempotency_key: str = ""
    timeout_s: float | None = None


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; `next` is the `after` of the following one."""

    data: list[T]
    has_more: bool
    next: str | None = None


class Pages(msgspec.Struct, Generic[T], frozen=True):
    """A whole list, to be fetched page by page."""

    path: str
    answer: type[Page[T]]
    query: Mapping[str, str] = {}
    page_size: int = PAGE_SIZE

    def page(self, after: str | None) -> Call[Page[T]]:
        """The call that fetches the page after `after` (None: the first)."""
        query = {**self.query, "limit": str(self.page_size)}
        if after is not None:
            query["after"] = after
        return Call("GET", self.path, self.answer, query)


class Stream(msgspec.Struct, Generic[T], frozen=True):
    """Server-Sent Events to follow: `answer` is what each `progress` says, and `end` ends it."""

    path: str
    answer: type[T]


def at(path: str, *ids: str) -> str:
    """Put ids into a path, one for each `{}`, escaped.

    Raises:
        ValueError: an id is empty, or is `.` or `..`: that would be another path.
    """
    for one in ids:
        if one in ("", ".", ".."):
            raise ValueError(f"{one!r} is no id, for {path}")
    return path.format(*(quote(one, safe="") for one in ids))


def body_of(value: object) -> bytes:
    """A body in JSON: fields that stand at their defaults are left out."""
    return _ENCODER.encode(value)


def given(said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said, less what is None."""
    return {name: value for name, value in said.items() if value is not None}


def query_of(**parameters: str | None) -> dict[str, str]:
    """The parameters that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}


def time_of(moment: datetime | None) -> str | None:
    """A time as a parameter has it.

    Raises:
        ValueError: it has no time zone.
    """
    if moment is not None and moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return None if moment is None else moment.isoformat()


def read_answer(call: Call[T], body: bytes, request_id: str) -> T:
    """Read the body of a good answer; fields that this client does not know are passed over.

    Raises:
        Garbled: it is not what the call gives.
    """
    try:
        if call.answer is type(None):
            return cast(T, None)
        if call.answer is str:
            return cast(T, body.decode())
        return msgspec.json.decode(body, type=call.answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Garbled(
            f"{call.method} {call.path}: the answer is not what this client knows ({error})", request_id
        ) from error
