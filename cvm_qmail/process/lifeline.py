"""Children that must not outlive their parent.

Source: fcntl(2) (F_SETSIG), prctl(2).
"""

from __future__ import annotations

import fcntl
import os
import signal

from cvm_qmail.process.children import readable


def die_with_parent(pipe: int) -> bool:
    """Arranges for SIGKILL when the last writer of `pipe` exits; returns False if it already has.

    The parent alone keeps the writing end open.  PR_SET_PDEATHSIG would be simpler, but the kernel forgets
    it at every setfsuid(2).
    """
    # A description of this process's own: the owner and the signal belong to it.
    ours = os.open(b"/proc/self/fd/%d" % pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(ours, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(ours, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    return not readable([ours], 0)
