"""Undoes what a process inherits and must not depend on: ignored and blocked signals, closed standard descriptors.

A child keeps the signals that its parent ignored (a shell's background job: SIGINT; some daemons: SIGCHLD)
and the mask of blocked signals.

Source: execve(2), signal(7).
"""

from __future__ import annotations

import os
import signal


def reset_signals() -> None:
    """Restores the signals that our programs use, whatever the parent ignored or blocked."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def hold_standard_descriptors() -> None:
    """Opens closed standard descriptors: else a socket could get the number that the log is written to."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        pass
    os.close(fd)
