"""One request on standard input, its response on standard output.

Invariants: the response comes in time even if the lookup hangs in the kernel: it is made in a child, and
the parent only waits.  The exit status is the first byte of the response.

Source: cvm 0.97 (module_command.c, client_xfer_command.c).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cvm_qmail.process.children import run_with_deadline

DRAIN_LIMIT = 1 << 20
"""Bytes of a request beyond the limit that are read, so that the client does not get SIGPIPE."""

Respond = Callable[[bytes], bytes]


def read_request(limit: int, fd: int = 0) -> bytes:
    """Standard input until end of file; one byte more than `limit` of a longer request.  Raises OSError."""
    request = b""
    while len(request) <= DRAIN_LIMIT and (data := os.read(fd, 65536)):
        request += data
    return request[: limit + 1]


def run(request: bytes, respond: Respond, late: Callable[[bytes, bool], bytes], seconds: float) -> int:
    """Answers `request` on standard output; returns the exit status.  Raises OSError.

    `late` answers instead of `respond` after so many seconds, or (True) if the child died.
    """

    def answer(write: Callable[[bytes], None]) -> None:
        write(respond(request))

    response, ended = run_with_deadline(answer, seconds)
    if not ended or (not response and request):
        response = late(request, ended)
    if response:
        os.write(1, response)
    return response[0] if response else 2
