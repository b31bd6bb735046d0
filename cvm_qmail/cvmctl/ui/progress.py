"""A progress bar for long tasks, on standard error, if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cvm_qmail.cvmctl.ui import output

STEPS = 200
"""Moves of the bar from its beginning to its end."""

UNKNOWN = 1 << 20
"""The total that is assumed where it is unknown: it decides how often the bar moves."""


@contextmanager
def progress(what: str, total: int | None, *, wanted: bool = True) -> Iterator[Callable[[int], None]]:
    """A function to call with how much was done.  `total` None: unknown."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    # no thread of its own: a process with threads must not be forked
    with Progress(*columns, console=output.console(err=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task(output.escaped(what), total=total)
        bar.refresh()
        waiting = 0
        least = max(1, (total or UNKNOWN) // STEPS)

        def step(count: int) -> None:
            nonlocal waiting
            waiting += count
            if waiting >= least:
                bar.update(task, advance=waiting)
                bar.refresh()
                waiting = 0

        yield step
