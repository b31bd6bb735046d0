"""Mail servers that run a program for each recipient: how they call it, and what they make of what it does.

The calls (environment, arguments, descriptors) are those recorded of the real servers, corpus/frontends.  What a server
makes of an exit status and a text is written down here as a function for each, which gateway/test_rcptcheck.py holds to
everything that was recorded, so that it may judge our programs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hosts import CORPUS
from serving import PATIENCE

FRONTENDS = CORPUS / "frontends"


def recorded(name: str) -> list[dict[str, Any]]:
    """What was recorded of one client."""
    exchanges: list[dict[str, Any]] = json.loads((FRONTENDS / f"{name}.json").read_text())["exchanges"]
    return exchanges


class Done(NamedTuple):
    """How a program ended, and what it wrote."""

    status: int
    """Its exit status; less than zero: the signal that ended it."""
    output: bytes = b""
    """What came on descriptor 1."""
    text: bytes = b""
    """What came on descriptor 4."""
    log: bytes = b""
    """What came on descriptor 2."""


def notqmail(done: Done) -> str:
    """The reply of qmail-smtpd with notqmail's pull request 233."""
    said = done.output.decode("latin-1")
    if done.status == 120 or done.status < 0:
        return said + "421 unable to execute recipient check (#4.3.0)\r\n"
    if done.status == 111:
        return said + "421 unable to verify recipient (#4.3.0)\r\n"
    if done.status == 100:
        return said + "553 sorry, no mailbox here by that name. (#5.1.1)\r\n"
    return said + "250 ok\r\n"


def with_text(done: Done) -> str:
    """The reply of sagredo's and agerstla's qmail-smtpd, which read descriptor 4."""
    texts = {100: "550 sorry, no mailbox here by that name. (#5.1.1)\r\n"}
    texts[113] = "421 you have exceeded your messaging limits (#4.3.0)\r\n"
    if done.status == 120 or done.status < 0:
        return "421 unable to execute recipient check (#4.3.0)\r\n"
    if done.status == 111:
        return "421 unable to verify recipient (#4.3.0)\r\n"
    if done.status not in texts:
        return "250 ok\r\n"
    if not done.text:
        return texts[done.status]
    text = done.text.decode("latin-1").removesuffix("\n").removesuffix("\r")[:1021]
    return f"{text}\r\n" if text[:3].isdigit() and text[0] in "45" else "451 temporary problem (#4.4.2)\r\n"


def spp(done: Done) -> str:
    """The replies of qmail-smtpd with qmail-spp."""
    lines = done.output.decode("latin-1").split("\n")
    lines[-1] = lines[-1][:-1]  # of a line without an end, the last byte is lost
    said, verdict = "", ""
    for line in lines:
        command, text = line[:1], line[1:].partition("\0")[0] + "\r\n"
        if command == "P":
            said += text
        elif command and command in "ERNOAD":
            verdict = {"E": text, "R": text, "D": "<EOF>"}.get(command, "")
            break
    if done.status == 120:
        verdict += "451 qmail-spp failure: /build/rec.py: can't execute (#4.3.0)\r\n"
    elif done.status < 0:
        verdict += "451 qmail-spp failure: /build/rec.py: child crashed (#4.3.0)\r\n"
    return said + (verdict or "250 ok\r\n")


def sqmail(done: Done) -> str:
    """The reply of s/qmail, for an address without its break character."""
    said = done.output.decode("latin-1")
    if done.status == 0:
        return said + "250 ok\r\n"
    if done.status == 111:
        return said + "421 unable to check recipients (#4.3.0)\r\n"
    return said + "550 sorry, no mailbox by that name  (#5.7.1)\r\n"


class MailServer(NamedTuple):
    """A server that runs a program for each recipient."""

    name: str
    reply: Callable[[Done], str]

    @property
    def exchanges(self) -> list[dict[str, Any]]:
        """What was recorded of it."""
        return recorded(self.name)

    @property
    def by(self) -> str:
        """How it hands over the address: the name of a variable, or fd3."""
        return "SMTPRCPTTO" if self.name.startswith("spp") else "fd3" if "pam" in self.name else "RECIPIENT"

    def recipients(self) -> list[bytes]:
        """Every address that it was seen to hand over."""
        found: dict[bytes, None] = {}
        for exchange in self.exchanges:
            given = exchange.get(self.by) or []
            for address in [given] if isinstance(given, str) else given:
                found[address.partition("\0")[0].encode("latin-1")] = None
        return list(found)

    def call(
        self,
        program: Path,
        address: bytes,
        *,
        closed: Sequence[int] = (),
        during: Callable[[int], None] = lambda _pid: None,
        wrapper: Sequence[str] = (),
        unset: Sequence[str] = (),
        fd3: bytes | None = None,
        **more: str | bytes,
    ) -> Done:
        """Runs `program` as the server does; `more`: variables; `closed`: descriptors that are not there.

        `during` gets the process id when the program runs.  Asserts that nothing was read from the SMTP client.
        """
        plain = next(exchange for exchange in self.exchanges if exchange["case"] == "plain")
        env = {os.fsencode(name): value.encode("latin-1") for name, value in plain["env"].items() if name != "LC_CTYPE"}
        if self.by != "fd3":
            env[self.by.encode()] = address
        env |= {os.fsencode(name): v if isinstance(v, bytes) else os.fsencode(v) for name, v in more.items()}
        env = {name: value for name, value in env.items() if os.fsdecode(name) not in unset}
        arguments = [str(program), *plain["argv"][1:]]
        with contextlib.ExitStack() as stack:
            pipes = {number: _pipe(stack) for number in (1, 2, 4)}
            client, ours = (stack.enter_context(end) for end in socket.socketpair())
            client.sendall(b"QUIT\r\n")
            fds: dict[int, int] = {}
            for number, kind in plain["fds"].items():
                fds[int(number)] = ours.fileno() if kind.startswith("socket") else pipes.get(int(number), (0, 0))[1]
            if self.by == "fd3":
                reader, writer = _pipe(stack)
                os.write(writer, address + b"\0\0\0" if fd3 is None else fd3)
                os.close(writer)
                fds[3] = reader
            for number in closed:
                fds.pop(number, None)
            pid = _spawn([*wrapper, *arguments], env, fds)
            for _, writer in pipes.values():
                os.close(writer)
            during(pid)
            status = _wait(pid)
            output = _drain(client) if plain["fds"].get("1", "").startswith("socket") else _read(pipes[1][0])
            assert _drain(ours) == b"QUIT\r\n", "the client's next command was read"
            return Done(status, output, _read(pipes[4][0]), _read(pipes[2][0]))


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose ends are out of the way of 0 to 9."""
    ends = []
    for fd in os.pipe2(os.O_CLOEXEC):
        ends.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20))
        os.close(fd)
    for fd in ends:
        stack.callback(_close, fd)
    return ends[0], ends[1]


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


def _spawn(command: Sequence[str], env: Mapping[bytes, bytes], fds: Mapping[int, int]) -> int:
    """Runs a program with these descriptors and no others."""
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for number, fd in fds.items()}
    actions: list[Any] = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in moved.items()]
    actions += [(os.POSIX_SPAWN_CLOSE, number) for number in range(5) if number not in fds]
    try:
        return os.posix_spawn(
            command[0], list(command), dict(env), file_actions=actions, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]
        )
    finally:
        for fd in moved.values():
            os.close(fd)


def _wait(pid: int) -> int:
    """The exit status of a child; less than zero: the signal."""
    ended = os.pidfd_open(pid)
    try:
        assert select.select([ended], [], [], PATIENCE)[0], f"process {pid} does not end"
    finally:
        os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _read(fd: int) -> bytes:
    data = b""
    while select.select([fd], [], [], 0)[0] and (more := os.read(fd, 65536)):
        data += more
    return data


def _drain(connection: socket.socket) -> bytes:
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return connection.recv(65536)
    return b""


MAIL_SERVERS = (
    MailServer("rcptcheck.notqmail-233", notqmail),
    MailServer("rcptcheck.agerstla", with_text),
    MailServer("rcptcheck.sagredo", with_text),
    MailServer("spp.agerstla", spp),
    MailServer("spp.sagredo", spp),
    MailServer("recipients-pam.sqmail", sqmail),
)
