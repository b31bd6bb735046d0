"""The client side of CVM: ask a module one question.

    ask("cvm-local:/run/cvm/rcpt", b"joe", b"example.org", secret=b"...")  ->  packets.Response

Invariants: every call ends in bounded time, unlike with the C client.  If a server cannot be reached, does not answer
in time or sends a malformed answer, it raises `NoAnswer`: for mail, a temporary failure.

Source: cvm 0.97 (client_xfer_local.c, client_xfer_udp.c, client_xfer_command.c, v2client.c).
"""

from __future__ import annotations

import math
import os
import select
import socket
import time
from collections.abc import Callable
from struct import Struct
from typing import IO, NamedTuple

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Credential

TIMEOUT = 10.0
"""Seconds for a whole call."""

NONCE = 8
"""The number of random bytes in a request over UDP, where anyone could answer."""

_TIMEVAL = Struct("@ll")

UDP_TRIES = (1.0, 2.0, 4.0)
"""Seconds to wait for an answer after each datagram."""


class NoAnswer(Exception):
    """No usable answer came; the message names the module and says why."""


class Module(NamedTuple):
    """A CVM module by the name that clients use.

    ``cvm-local:PATH``, ``cvm-udp:HOST:PORT``, ``cvm-command:PROGRAM``, or just a program.
    """

    scheme: str
    address: str

    @classmethod
    def parse(cls, text: str) -> Module:
        """The module that `text` names.  Raises ValueError."""
        scheme, colon, address = text.partition(":")
        if not colon or scheme not in _TRANSFERS:
            scheme, address = "cvm-command", text
        if not address:
            raise ValueError(f"{text!r}: expected cvm-local:PATH, cvm-udp:HOST:PORT or cvm-command:PROGRAM")
        return cls(scheme, address)


def ask(
    module: str,
    account: bytes,
    domain: bytes | None = None,
    *,
    version: int = 2,
    timeout: float = TIMEOUT,
    secret: bytes | None = None,
    password: bytes | None = None,
    more: dict[int, bytes] | None = None,
) -> packets.Response:
    """The response of `module`.

    Raises `NoAnswer`, ValueError for the module's name, `packets.Malformed` for a request that does not fit.
    """
    given = {Credential.DOMAIN: domain, Credential.SECRET: secret, Credential.PASSWORD: password, **(more or {})}
    credentials = {Credential.ACCOUNT: account, **{k: value for k, value in given.items() if value is not None}}
    scheme, _ = Module.parse(module)
    nonce = os.urandom(NONCE) if scheme == "cvm-udp" and version == 2 else b""
    packet = packets.pack_request(packets.Request(version, nonce, credentials))
    return exchange(module, packet, timeout)


def exchange(module: str, packet: bytes, timeout: float = TIMEOUT) -> packets.Response:
    """Sends a packet as it is; the response.  Raises `NoAnswer`, ValueError."""
    answer = transfer(module, packet, timeout)
    try:
        return packets.parse_response(answer, packet[0] if packet else 2)
    except packets.Malformed as bad:
        raise NoAnswer(f"{module}: {bad}" if answer else f"{module}: closed without an answer") from None


def transfer(module: str, packet: bytes, timeout: float = TIMEOUT) -> bytes:
    """Sends a packet as it is; the bytes that came back.  Raises `NoAnswer`, ValueError."""
    scheme, address = Module.parse(module)
    try:
        return _TRANSFERS[scheme](address, packet, time.monotonic() + timeout)
    except TimeoutError:
        raise NoAnswer(f"{module}: no answer within {timeout:g} seconds") from None
    except OSError as error:
        raise NoAnswer(f"{module}: {error.strerror or error}") from None


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _local(path: str, packet: bytes, end: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        _connect(connection, path, end)
        connection.settimeout(_left(end))
        connection.sendall(packet)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while len(answer) <= packets.LIMIT:
            connection.settimeout(_left(end))
            data = connection.recv(packets.LIMIT + 1)
            if not data:
                break
            answer += data
    return answer


def _connect(connection: socket.socket, path: str, end: float) -> None:
    """Connects, and waits while the server's queue is full, as the C program's short queue often is.

    SO_SNDTIMEO is used because a socket with a Python time-out gets EAGAIN there instead of waiting.
    """
    seconds, fraction = divmod(max(_left(end), 1e-3), 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), int(fraction * 1e6)))
    try:
        connection.connect(path)
    except BlockingIOError:
        raise TimeoutError from None


def _udp(address: str, packet: bytes, end: float) -> bytes:
    from cvm_qmail.transports import datagram

    family, kind, protocol, _, sockaddr = socket.getaddrinfo(*datagram.split(address), type=socket.SOCK_DGRAM)[0]
    start = packet[: 2 + packet[1]] if len(packet) > 1 and packet[0] == 2 else b""
    with socket.socket(family, kind, protocol) as asking:
        asking.connect(sockaddr)
        for seconds in UDP_TRIES:
            asking.settimeout(_left(end))
            asking.send(packet)
            until = min(end, time.monotonic() + seconds)
            try:
                while True:
                    asking.settimeout(_left(until))
                    answer = asking.recv(packets.LIMIT + 1)
                    if answer[1 : len(start)] == start[1:]:  # else it is from another sender, or an old one
                        return answer
            except TimeoutError:
                continue
    raise TimeoutError


def _command(program: str, packet: bytes, end: float) -> bytes:
    import subprocess

    child = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        try:
            answer = _through(child.stdin, child.stdout, packet, end)
            if len(answer) <= packets.LIMIT and child.wait(_left(end)) < 0:
                raise NoAnswer(f"{program}: ended by signal {-child.returncode}")
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            child.kill()
            child.wait()
    return answer


def _through(to: IO[bytes], back: IO[bytes], packet: bytes, end: float) -> bytes:
    """Writes a packet and reads to the end of file, or until the answer is too long."""
    os.set_blocking(to.fileno(), False)
    waiting = select.poll()
    waiting.register(to, select.POLLOUT)
    waiting.register(back, select.POLLIN)
    answer = b""
    while len(answer) <= packets.LIMIT:
        for fd, _ in waiting.poll(math.ceil(_left(end) * 1000)):
            if fd == back.fileno():
                data = os.read(fd, packets.LIMIT + 1)
                if not data:
                    return answer
                answer += data
            else:
                packet = packet[_written(fd, packet) :]
                if not packet:
                    waiting.unregister(to)
                    to.close()
    return answer


def _written(fd: int, packet: bytes) -> int:
    """How many bytes the program has taken; all, if it takes no more."""
    try:
        return os.write(fd, packet)
    except BrokenPipeError:
        return len(packet)


_TRANSFERS: dict[str, Callable[[str, bytes, float], bytes]] = {
    "cvm-local": _local,
    "cvm-udp": _udp,
    "cvm-command": _command,
}
