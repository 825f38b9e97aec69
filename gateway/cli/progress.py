"""How far long work has come: a bar on stderr, for people at a terminal; nothing for programs.

Owns when there is a bar. stdout is the command's answer and stays free of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(what: str, total: int | None, *, shown: bool = True) -> Generator[Callable[..., None]]:
    """Show a bar while the block runs; it is moved by calls with how much is done, and the total where that has changed.

    Args:
        what: the words before the bar.
        total: how much there is; None: not known yet.
        shown: whether to show it, where stderr is a terminal.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not (shown and sys.stderr.isatty()),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=total)

        def move(done: int, of: int | None = None) -> None:
            if of is None:
                bar.update(task, completed=done)
            else:
                bar.update(task, completed=done, total=of)

        yield move
