"""cvmctl top: rates, latencies and reasons, live on a terminal of any size.

Keys: q quits, p pauses, r resets the rates.  Exit status: 0; 111 no counters, or no terminal.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click

from cvm_qmail.cvmctl.host.counters import stats_of
from cvm_qmail.cvmctl.top.screen import DOMAINS, Moment, View, screen
from cvm_qmail.cvmctl.top.tail import Tail
from cvm_qmail.cvmctl.ui.output import STYLES, TEMPORARY, Failure, console, on_terminal

INTERVAL = 1.0
"""Seconds between two updates."""

WINDOW = 10.0
"""Seconds that rates and latencies are of."""


@click.command()
@click.argument("path", required=False)
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=INTERVAL, show_default=True, help="Seconds between updates."
)
@click.option("--log", type=click.Path(exists=True, dir_okay=False), help="The server's log, to show rejected domains.")
def top(path: str | None, interval: float, log: str | None) -> None:
    """Show live what a server is answering.

    Rates and latencies are of the last ten seconds, or since the last update if that is longer.  Keys: q quits, p
    pauses, r resets the rates.  The exit status is 111 if there are no counters.
    """
    history = History(Moment(time.time(), stats_of(path)))
    if not on_terminal() or not sys.stdin.isatty():
        raise Failure("top needs a terminal (cvmctl status prints once)", TEMPORARY)
    with suppress(KeyboardInterrupt):
        _live(path, history, interval, None if log is None else Tail(log))


def _live(path: str | None, history: History, interval: float, tail: Tail | None) -> None:
    """Shows the counters until q is pressed."""
    from rich.live import Live
    from rich.text import Text

    view = View()
    with _keys() as pressed, Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            if tail is not None:
                view = view._replace(domains=tail.domains.most_common(DOMAINS))
            size = os.get_terminal_size()
            shown = Text(no_wrap=True, overflow="crop")
            for line in screen(history.first, history.last, size.columns, size.lines, view):
                shown.append(f"{line.text}\n", STYLES[line.style])
            shown.right_crop(1)
            live.update(shown, refresh=True)
            key = pressed(interval)
            if key == "q":
                return
            if key == "p":
                view = view._replace(paused=not view.paused)
            if key == "r":
                history.forget()
            if view.paused:
                continue
            if tail is not None:
                tail.look()
            try:
                history.add(Moment(time.time(), stats_of(path)))
                view = view._replace(gone="")
            except Failure as failure:
                if failure.exit_code != TEMPORARY:
                    raise
                view = view._replace(gone=failure.message)  # it may come back


class History:
    """The counters of the last seconds."""

    def __init__(self, now: Moment) -> None:
        self._moments = deque([now])

    @property
    def first(self) -> Moment:
        """From when rates are counted."""
        return self._moments[0]

    @property
    def last(self) -> Moment:
        """The latest."""
        return self._moments[-1]

    def forget(self) -> None:
        """Rates begin anew, with what comes next."""
        self._moments = deque([self.last])

    def add(self, now: Moment) -> None:
        """A new look; the counters of another process begin at nothing."""
        if (now.stats.about.pid, now.stats.about.started) != (self.last.stats.about.pid, self.last.stats.about.started):
            self._moments.clear()
        self._moments.append(now)
        while len(self._moments) > 2 and now.at - self._moments[1].at >= WINDOW:
            self._moments.popleft()


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Reads single keys while it is open; the terminal is as before afterwards."""
    before = termios.tcgetattr(0)
    tty.setcbreak(0)

    def pressed(seconds: float) -> str:
        return os.read(0, 1).decode("ascii", "replace") if select.select([0], [], [], seconds)[0] else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
