"""cvmctl top: the keys on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import called
from hosts import Host
from serving import PATIENCE, environment, serving

CVMCTL = Path(sys.executable).with_name("cvmctl")


def test_without_a_terminal_it_says_what_to_use(tmp_path: Path) -> None:
    done = called("top", str(tmp_path), env=environment(None, {}))
    assert done.returncode == 111


class Terminal:
    """One with cvmctl top on it."""

    def __init__(self, path: Path) -> None:
        self._main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [CVMCTL, "top", path, "--interval", "0.2"],
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment(None, {"TERM": "xterm"}),
        )
        os.close(other)

    def shows(self, text: bytes) -> None:
        """Reads until it does."""
        seen, end = b"", time.monotonic() + PATIENCE
        while text not in seen:
            assert select.select([self._main], [], [], max(0.0, end - time.monotonic()))[0], seen[-5000:]
            seen += os.read(self._main, 65536)

    def press(self, key: bytes) -> None:
        os.write(self._main, key)

    def end(self, interrupt: Callable[[], object] | None = None) -> int:
        """The exit status after q, or what else is to end it."""
        (interrupt or (lambda: self.press(b"q")))()
        while self.process.poll() is None and select.select([self._main], [], [], PATIENCE)[0]:
            try:
                os.read(self._main, 65536)
            except OSError:
                break
        os.close(self._main)
        return self.process.wait(PATIENCE)


@pytest.mark.root
def test_keys(host: Host) -> None:
    with serving(host) as server:
        server.ask("joe")
        terminal = Terminal(server.path)
        terminal.shows(b"accepted: mailbox")
        terminal.press(b"p")
        terminal.shows(b"PAUSED")
        terminal.press(b"p")
        server.ask("nobody")
        terminal.shows(b"rejected: no-mailbox")
        terminal.press(b"r")
        terminal.shows(b"0.0 requests a second, 2 in all")
        assert terminal.end() == 0


@pytest.mark.root
def test_an_interrupt_ends_it_as_q_does(host: Host) -> None:
    with serving(host) as server:
        terminal = Terminal(server.path)
        terminal.shows(b"0 in all")
        assert terminal.end(lambda: terminal.process.send_signal(signal.SIGINT)) == 0


@pytest.mark.root
def test_a_server_that_ends_and_comes_back(host: Host) -> None:
    with serving(host) as server:
        server.ask("joe")
        terminal = Terminal(server.path)
        terminal.shows(b"accepted: mailbox")
        server.stop()
        terminal.shows(b"no counters at")
        with serving(host, path=server.path):
            terminal.shows(b"well")
            terminal.shows(b"0.0 requests a second, 0 in all")
            assert terminal.end() == 0
