"""A listening socket that the service manager passed.

Source: sd_listen_fds(3).
"""

from __future__ import annotations

import os
import socket

from cvm_qmail.exits import PERMANENT, Failure

FIRST = 3
"""The descriptor of the first socket that is passed."""


def activated(kind: socket.SocketKind) -> socket.socket | None:
    """The socket that the service manager passed; None if it passed none.  Raises `Failure` if it is not usable."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not (count := os.environ.get("LISTEN_FDS")):
        return None
    if count != "1":
        raise Failure(f"LISTEN_FDS: found {count!r}, expected 1", PERMANENT)
    try:
        passed = socket.socket(fileno=FIRST)
    except OSError as error:
        raise Failure(f"LISTEN_FDS: descriptor {FIRST}: {error.strerror}, expected a socket", PERMANENT) from None
    if passed.type != kind:
        raise Failure(f"LISTEN_FDS: found a socket of type {passed.type.name}, expected {kind.name}", PERMANENT)
    passed.setblocking(False)
    os.set_inheritable(FIRST, False)
    return passed
