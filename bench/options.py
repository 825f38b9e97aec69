"""What every benchmark is given: how much of it, and where its progress goes."""

from __future__ import annotations

import sys
import time

import msgspec


class CannotMeasure(Exception):
    """A benchmark cannot run on this machine: says what is missing, and how to get it."""


class Options(msgspec.Struct, frozen=True):
    """`quick`: a small run that shows that it works; `runs`: how many are measured, after the warm-up; `only`: one scenario."""

    quick: bool = False
    runs: int = 5
    only: str = ""


class Progress:
    """Lines of progress on stderr, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:7.1f} s  {text}", file=sys.stderr, flush=True)
