"""The desk: what all sessions of a sink share. Pure.

Owns the count of tries by recipient, and the ledger's lines between the verdict and their ``write()``.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.load.world import Answer, World


class Desk:
    """What all sessions of a sink share: the world, tries so far, ledger lines not yet written, counters.

    ``hide`` keeps the first message that was taken and answered with 250 out of the lines: a ledger that lies by one.
    ``on_dot`` is told of every final dot: when it was received, and the domain of its message's first recipient.
    ``last_head`` is the head of the last message whose content came whole, with the CRLF before it.
    """

    __slots__ = ("_hide", "_lines", "_tries", "accepts", "last_head", "on_dot", "world")

    def __init__(
        self, world: World, *, hide: bool = False, on_dot: Callable[[float, bytes], None] | None = None
    ) -> None:
        self.world = world
        self.accepts = 0
        self.last_head = b""
        self.on_dot = on_dot
        self._hide = hide
        self._lines: list[bytes] = []
        self._tries: dict[bytes, int] = {}  # only recipients with more than one answer

    def answer(self, recipient: bytes) -> Answer:
        """The world's answer to this try of ``recipient``, which is counted."""
        script = self.world.script(recipient)
        if len(script) == 1:
            return script[0]
        tries = self._tries.get(recipient, 0)
        self._tries[recipient] = tries + 1
        return script[min(tries, len(script) - 1)]

    def record(self, line: bytes, *, accepted: bool = False, replied: bool = False) -> None:
        """Put one line of the ledger, ``accepted`` and ``replied`` as it says."""
        if accepted:
            self.accepts += 1
            if replied and self._hide:
                self._hide = False
                return
        self._lines.append(line)

    def take_lines(self) -> bytes:
        """The ledger lines since the last call, whole; empty when there are none."""
        if not self._lines:
            return b""
        lines = b"".join(self._lines)
        self._lines.clear()
        return lines
