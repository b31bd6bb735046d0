"""One request on standard input, its response on standard output.

Law: the answer comes in time even if the look-up hangs in the kernel, so it is made in a child; the
parent only waits.  The exit status is the response code.

Source: cvm 0.97 (module_command.c, client_xfer_command.c).
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

REQUEST_LIMIT = 512
DRAIN_LIMIT = 1 << 20
"""Bytes of an over-long request that are read, so that the client is not killed by its pipe."""

Respond = Callable[[bytes], bytes]


def read_request(fd: int = 0) -> bytes:
    """Standard input until end of file, bounded.  Raises OSError."""
    request = b""
    while len(request) <= DRAIN_LIMIT and (data := os.read(fd, 65536)):
        request += data
    return request[: REQUEST_LIMIT + 1]


def run(request: bytes, respond: Respond, late: Callable[[bytes, bool], bytes], timeout: float) -> int:
    """Answers `request` on standard output; the exit status.  Raises OSError.

    `late` answers in the place of `respond` after `timeout` seconds, or (True) when it died.
    """
    ready, answer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(answer, respond(request))
        finally:
            os._exit(0)
    os.close(answer)
    if select.select([ready], [], [], timeout)[0]:
        response = os.read(ready, REQUEST_LIMIT)
        if not response and request:
            response = late(request, True)
    else:
        os.kill(child, signal.SIGKILL)  # it may be beyond reach for a while; nobody waits for it
        response = late(request, False)
    if response:
        os.write(1, response)
    return response[0] if response else 2
