"""Servers that speak MySQL's protocol, and answer as a test wants."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from serving import PATIENCE

from cvm_vpopmail.credentials import Password, Server

FINE = b"\0\0\0\2\0\0\0"
"""The body of an OK packet."""
OFFERS_TLS = 0x800
_OTHERS = 0x0001 | 0x0008 | 0x0200 | 0x2000 | 0x8000 | 0x80000
"""Capabilities: long password, a database at the start, protocol 4.1, transactions, authentication, its plug-ins."""


def packet(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body) | number << 24) + body


def greeting(capabilities: int) -> bytes:
    flags = capabilities | _OTHERS
    start = (
        b"\x0a8.0.0\0" + struct.pack("<I", 1) + b"12345678\0" + struct.pack("<HBHH", flags & 0xFFFF, 45, 2, flags >> 16)
    )
    return packet(0, start + b"\x15" + bytes(10) + b"123456789012\0" + b"mysql_native_password\0")


def received(peer: socket.socket) -> bytes:
    """The body of one packet; empty: the connection is closed."""
    with suppress(ConnectionError):
        return _exactly(peer, int.from_bytes(_exactly(peer, 4)[:3], "little"))
    return b""


def _exactly(peer: socket.socket, size: int) -> bytes:
    """So many bytes; fewer at the end."""
    data = b""
    while len(data) < size and (more := peer.recv(size - len(data))):
        data += more
    return data


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[Server]:
    """A server whose one connection is handled so."""

    def run() -> None:
        with suppress(ConnectionError), listener.accept()[0] as peer:
            peer.settimeout(PATIENCE)  # whoever keeps a connection open fails the test, and does not hang it
            answer(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield Server("127.0.0.1", listener.getsockname()[1], "", "cvm", Password(b"secret"), "vpopmail")
        finally:
            thread.join()
