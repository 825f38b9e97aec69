"""How a part that runs is told of a changed configuration: it gives a function, which is called with each change. Pure."""

from __future__ import annotations

from collections.abc import Callable

from gateway.config.sections import Config
from gateway.throttle.shaping import Shaping

Retune = Callable[[Config, Shaping], object]
"""Takes what holds from now on; called on the loop, must not wait."""

Follow = Callable[[Retune], None]
"""Registers a `Retune`."""


def never(react: Retune) -> None:
    """The `Follow` of a part whose configuration stays as it is."""
