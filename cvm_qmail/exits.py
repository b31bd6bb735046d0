"""How programs end: exit statuses, exceptions that become a message and a status, and messages on standard error.

Source: qmail-command(8): 100 is a permanent failure, 111 a temporary one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

USAGE = 1
PERMANENT = 100
TEMPORARY = 111


class Failure(Exception):
    """The program cannot continue: a human-readable message, and its exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def status_of(program: str, run: Callable[[], int]) -> int:
    """Runs the program `run` and returns its exit status; what it raises becomes a message and a status."""
    try:
        return run()
    except Failure as failure:
        message, status = str(failure), failure.status
    except OSError as error:
        message, status = str(error), TEMPORARY
    except KeyboardInterrupt:
        message, status = "interrupted", TEMPORARY
    complain(f"{program}: {message}")
    return status


def complain(text: str) -> None:
    """Prints a line on standard error, if there is one and somebody reads it.

    Without one, print() would use standard output, where the client expects the response.
    """
    if sys.stderr is not None:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            pass


def describe_exception() -> str:
    """The exception being handled: its type and where it was raised, for the log.

    Its message is left out, since it may quote a request.
    """
    import traceback  # command mode must not pay for it

    kind, _, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    path = " ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}:{frame.name}" for frame in frames)
    return f"{kind.__name__ if kind else 'nothing'} at {path}"
