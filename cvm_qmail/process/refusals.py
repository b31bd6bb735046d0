"""System calls that the sandbox refused to a worker: the supervisor is notified of each before it fails.

    worker: makes the listener, sends it     ----->  supervisor: waits for it and for signals
    worker: makes a refused call; waits      ----->  supervisor: `take` marks the worker, then lets the call fail

Invariants: the worker is marked before its call returns, so that it never answers with the result.  The number of
refused calls of one worker is bounded.

Source: seccomp_unotify(2), unix(7) (SCM_RIGHTS).
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from cvm_qmail.process import seccomp
from cvm_qmail.process.seccomp import Call
from cvm_qmail.process.syscalls import architecture


class Refusals:
    """The supervisor's side, and the channel to it."""

    def __init__(self) -> None:
        # a message arrives whole, with its descriptor
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._receiving.setblocking(False)
        self._listeners: dict[int, int] = {}
        """The process of each listener."""

    def hand_over(self, listener: int) -> None:
        """In the worker: gives the listener to the supervisor; the channel and other workers' listeners are closed."""
        if listener >= 0:
            socket.send_fds(self._sending, [b"%d" % os.getpid()], [listener])
            os.close(listener)
        self._sending.close()
        self._receiving.close()
        for other in self._listeners:
            os.close(other)

    @property
    def descriptors(self) -> Sequence[int]:
        """The descriptors that become readable when `take` has something to do."""
        return [self._receiving.fileno(), *self._listeners]

    def take(self, ready: Sequence[int], before: Callable[[Call], None], after: Callable[[Call], None]) -> None:
        """Handles these descriptors; `before` and `after` are called for each refused call.

        A signal would interrupt the call, so `after` may send one and `before` may not.
        """
        for descriptor in ready:
            if descriptor == self._receiving.fileno():
                self._welcome()
            elif descriptor in self._listeners:
                self._answer(descriptor, before, after)

    def forget(self, pid: int) -> None:
        """A process has ended."""
        for listener in [listener for listener, owner in self._listeners.items() if owner == pid]:
            del self._listeners[listener]
            os.close(listener)

    def _welcome(self) -> None:
        with suppress(BlockingIOError):
            pid, received, _, _ = socket.recv_fds(self._receiving, 20, 1)
            self._listeners.update(dict.fromkeys(received, int(pid)))

    def _answer(self, listener: int, before: Callable[[Call], None], after: Callable[[Call], None]) -> None:
        events = select.poll()
        events.register(listener, select.POLLIN)
        if any(event & select.POLLIN for _, event in events.poll(0)):
            call = seccomp.receive(listener)
            if call is not None:
                before(call)
                seccomp.refuse(listener, call)
                after(call)
        elif events.poll(0):  # its process has ended
            self.forget(self._listeners[listener])


def describe(number: int) -> str:
    """The call's number, and its name if it is known."""
    here = architecture()
    name = here.name_of(number) if here is not None else ""
    return f"{number} ({name})" if name else str(number)
