"""Lists by key: `?limit=&after=` → `{"data": […], "has_more": …, "next": …}`.

Owns the form of a page. Must not know what is on it. One row more than asked for is read, to know whether there are more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")
R = TypeVar("R")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page; `next` is the `after` of the following one, null at the end."""

    data: list[T]
    has_more: bool
    next: str | None


def page(rows: Sequence[R], limit: int, show: Callable[[R], T], key: Callable[[R], str]) -> Page[T]:
    """Make a page of up to `limit` rows from up to `limit + 1`."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page([show(row) for row in shown], more, key(shown[-1]) if more else None)
