"""What the demo shows: steps, a live bar in a terminal and plain lines elsewhere, and the table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_WIDTH = 40
_PLAIN_EVERY_S = 2.0
_COLOURS = {
    "delivered": "green", "bounced": "red", "in_doubt": "magenta", "deferred": "yellow", "leased": "cyan", "queued": "grey37",
}  # fmt: skip


class Screen:
    """One run's output. In a terminal progress is drawn over itself."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._live: Live | None = None
        self._start = time.monotonic()
        self._last_plain = 0.0

    def step(self, text: str) -> None:
        """Say what was done."""
        self._console.print(f"[dim]{time.monotonic() - self._start:5.1f} s[/dim]  ", end="")
        self._console.print(text, markup=False, soft_wrap=True)

    def progress(self, states: Mapping[str, int], total: int, per_s: float) -> None:
        """Show how far it is."""
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, refresh_per_second=10, transient=True)
                self._live.start()
            self._live.update(_bar(states, total, per_s))
        elif time.monotonic() - self._last_plain >= _PLAIN_EVERY_S:
            self._last_plain = time.monotonic()
            self.step(f"  {_words(states)} ({per_s:,.0f}/s)")

    def close(self) -> None:
        """End the live part."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show the summary."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
        table.add_column(justify="right", style="bold")
        table.add_column(justify="right")
        for name, value in rows:
            table.add_row(name, value)
        self._console.print(table)

    def verdict(self, good: bool, lines: Sequence[str]) -> None:
        """Say whether all is well."""
        for line in lines:
            self._console.print(line, markup=False, style="green" if good else "bold red", soft_wrap=True)


def _words(states: Mapping[str, int]) -> str:
    known = [*_COLOURS, *(state for state in states if state not in _COLOURS)]
    return ", ".join(f"{states[state]:,} {state.replace('_', ' ')}" for state in known if states.get(state))


def _bar(states: Mapping[str, int], total: int, per_s: float) -> Text:
    text = Text()
    for state, colour in _COLOURS.items():
        text.append("█" * round(_WIDTH * states.get(state, 0) / max(total, 1)), style=colour)
    text.append("░" * max(0, _WIDTH - len(text)), style="grey23")
    text.append(f" {per_s:,.0f}/s  {_words(states)}")
    return text
