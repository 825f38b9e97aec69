"""The two streams of mail, and the priority each has in the queue. Pure.

Owns the words of the database's `stream` and the numbers in `queue.priority`. Must not know a message.
"""

from __future__ import annotations

from enum import StrEnum


class Stream(StrEnum):
    """What a message is: asked for by what its reader did, or sent to many."""

    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"

    @property
    def priority(self) -> int:
        """The lower leaves first; marketing opt-outs hold for 1 alone."""
        return 0 if self is Stream.TRANSACTIONAL else 1
