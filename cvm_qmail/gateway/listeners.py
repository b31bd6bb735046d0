"""The names of listeners: ``PROTOCOL:ADDRESS``.

    socketmap:unix:/run/cvm-gateway/socketmap     policy:inet:127.0.0.1:10040     qmail-verify:127.0.0.1:11113
    deliverable:127.0.0.1:8998                    http:127.0.0.1:8080             http:unix:/run/cvm-gateway/http

An IPv6 address is written in brackets.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from cvm_qmail.transports.datagram import split

PATH_LIMIT = 107
"""Bytes of a Unix socket's path (sun_path, without the NUL)."""

PROTOCOLS = {
    "socketmap": ("unix", "inet"),
    "policy": ("unix", "inet"),
    "qmail-verify": ("",),
    "deliverable": ("",),
    "http": ("unix", ""),
}
"""The kinds of addresses that a protocol can have; the empty one is HOST:PORT without a word before it."""

FORMS = """\
  socketmap:unix:PATH  socketmap:inet:HOST:PORT
  policy:unix:PATH     policy:inet:HOST:PORT
  qmail-verify:HOST:PORT
  deliverable:HOST:PORT
  http:HOST:PORT       http:unix:PATH
"""


class Listener(NamedTuple):
    """A protocol and the address at which its requests arrive."""

    name: str
    """The name as it was given."""
    protocol: str
    path: bytes | None
    """Of a Unix socket."""
    host: str
    port: str

    @property
    def kind(self) -> socket.SocketKind:
        """Of the socket."""
        return socket.SOCK_DGRAM if self.protocol == "qmail-verify" else socket.SOCK_STREAM


def parse(name: str) -> Listener:
    """The listener of this name.  Raises ValueError."""
    protocol, _, address = name.partition(":")
    if protocol not in PROTOCOLS:
        raise ValueError(f"{name}: found the protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    kind, colon, rest = address.partition(":")
    kinds = PROTOCOLS[protocol]
    if colon and kind == "unix" and kind in kinds:
        path = os.fsencode(rest)
        if not path.startswith(b"/") or len(path) > PATH_LIMIT or b"\0" in path:
            raise ValueError(f"{name}: expected an absolute path of at most {PATH_LIMIT} bytes")
        return Listener(name, protocol, path, "", "")
    if colon and kind == "inet" and kind in kinds:
        address = rest
    elif "" not in kinds:
        raise ValueError(f"{name}: expected {protocol}:unix:PATH or {protocol}:inet:HOST:PORT")
    try:
        host, port = split(address)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return Listener(name, protocol, None, host, port)
