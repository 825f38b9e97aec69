"""Who follows something for long: how many at a time, in one process and with one key.

Owns the places. Must not know what is followed. A place is given back when its stream ends, whoever ends it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from gateway.errors import RateLimited

FOLLOWERS_MAX: Final = 200
"""Clients that follow something in one process."""
PER_KEY_MAX: Final = 20
"""Of these, with one key: nobody takes all places."""
_RETRY_S: Final = 5.0


class Followers:
    """The places that are taken."""

    # Mutable on purpose: a count for each key that follows now.
    def __init__(self) -> None:
        self._taken: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(self._taken.values())

    @contextmanager
    def place(self, key_id: int) -> Generator[None]:
        """Take a place for a key, until the block ends.

        Raises:
            RateLimited: there is none left, or the key has as many as it may.
        """
        if len(self) >= FOLLOWERS_MAX:
            raise RateLimited(_RETRY_S, f"{FOLLOWERS_MAX} clients follow broadcasts here")
        if self._taken.get(key_id, 0) >= PER_KEY_MAX:
            raise RateLimited(_RETRY_S, f"{PER_KEY_MAX} clients follow broadcasts with this key")
        self._taken[key_id] = self._taken.get(key_id, 0) + 1
        try:
            yield
        finally:
            self._taken[key_id] -= 1
            if not self._taken[key_id]:
                del self._taken[key_id]
