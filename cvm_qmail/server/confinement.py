"""The supervisor's sandbox, in which everything that a worker or the shadow process does must still be possible."""

from __future__ import annotations

import os

from cvm_qmail.process import landlock, policies, sandbox
from cvm_qmail.process.bpf import TRACE
from cvm_qmail.process.landlock import Rule


def confine(mode: str, path: bytes | None, stats: str | None) -> None:
    """Enters it.  `mode`: the value of CVM_SANDBOX.

    `path`: the socket, which may have to be made again.  `stats`: the file of counters, which is removed at the end.
    """
    rules = [landlock.READ_ALL]
    if stats:
        rules.append(Rule(os.path.dirname(os.path.abspath(stats)), landlock.REMOVE))
    if path is not None:
        rules.append(Rule(_kept(path), landlock.SOCKETS))
    if os.isatty(1):  # each process opens it again
        rules.append(Rule("/proc/self/fd/1", landlock.WRITE))
    # TRACE: workers have a filter of their own, and the supervisor must be notified of what that one refuses.
    sandbox.enter("supervisor", mode, policies.supervisor(), rules, None, verdict=TRACE)


def _kept(path: bytes) -> bytes:
    """The directory below which a socket may be made again: the parent of its own, which may be gone too."""
    directory = os.path.dirname(os.path.abspath(path))
    above = os.path.dirname(directory)
    return directory if above == b"/" else above
