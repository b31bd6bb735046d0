"""Real servers for tests, and patience without sleeping."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from hosts import temporary_directory

from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.packets import Credential

T = TypeVar("T")

CVM_QMAIL = Path(sys.executable).with_name("cvm-qmail")
PLUGINS = os.pathsep.join(filter(None, [str(Path(__file__).parent / "plugins"), os.environ.get("PYTHONPATH")]))
"""For PYTHONPATH: a plug-in whose lookups hang, wait or die, see plugins/misbehaving.py."""

AN_HOUR = "3600000"
"""As a time-out: never."""

SERVICE = 5077, 5078
"""Uid and gid of the service's own user."""

_CAPABILITIES = "-all,+setuid,+setgid,+dac_read_search"
AS_SERVICE = (
    *("setpriv", f"--reuid={SERVICE[0]}", f"--regid={SERVICE[1]}", "--clear-groups", "--no-new-privs"),
    *(f"--{kind}={_CAPABILITIES}" for kind in ("inh-caps", "ambient-caps", "bounding-set")),
)
"""Becomes that user, as the services in contrib do."""

WHOLE = os.environ.get("CORPUS") == "whole"
"""Whether what is checked on some hosts of a corpus is checked on all of them."""


def some(systems: Sequence[T], every: int, first: int = 0) -> Sequence[T]:
    """One of so many hosts of a corpus, from the `first` one on; all of them with CORPUS=whole.

    For another way to the same answers.  Each way has a sample of its own.
    """
    return systems if WHOLE else systems[first::every]


PATIENCE = 60.0
"""Seconds after which a condition is not going to come true, on a machine that has much else to do, too."""


def until(condition: Callable[[], T], what: str = "") -> T:
    """Waits for a condition, never for a time; its value."""
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < PATIENCE, f"did not come true: {what or condition}"
        time.sleep(min(max(0.005, waited / 20), 0.1))  # asking costs processor time, too, for which others wait
    return value


class Served(Protocol):
    """A host of any kind."""

    @property
    def environment(self) -> dict[str, str]:
        """What a server needs to look at it."""


class Server(NamedTuple):
    """A server that is running."""

    process: subprocess.Popen[bytes]
    module: str
    """As clients name it."""
    log: Path
    errors: Path

    @property
    def path(self) -> Path:
        return Path(self.module.removeprefix("cvm-local:"))

    def ask(self, account: str | bytes, domain: str | bytes | None = "example.org", **how: Any) -> packets.Response:
        """What the server says of an address."""
        domain = domain.encode("latin-1") if isinstance(domain, str) else domain
        account = account.encode("latin-1") if isinstance(account, str) else account
        return client.ask(self.module, account, domain, **how)

    def send(self, packet: bytes) -> bytes:
        """Bytes there, bytes back."""
        return client.transfer(self.module, packet)

    def logged(self, text: str) -> str:
        """The first log line that holds `text`, when it is there."""
        return logged(self.log, text)

    def warned(self, text: str) -> str:
        """The first line on standard error that holds `text`, when it is there."""
        return logged(self.errors, text)

    def connect(self) -> socket.socket:
        """A connection to its Unix socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.path))
        return connection

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def stop(self) -> int:
        """Stops it; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def request(account: str, domain: str | None = "example.org", nonce: bytes = b"") -> bytes:
    """The packet of a request."""
    credentials = {Credential.ACCOUNT: account.encode("latin-1")}
    if domain is not None:
        credentials[Credential.DOMAIN] = domain.encode("latin-1")
    return packets.pack_request(packets.Request(2, nonce, credentials))


def rest(connection: socket.socket) -> bytes:
    """What comes until end of file; closes."""
    received = b""
    with connection:
        while data := connection.recv(4096):
            received += data
    return received


def finish(connection: socket.socket, packet: bytes = b"") -> bytes:
    """Sends `packet` as the last of a request; the answer."""
    connection.sendall(packet)
    connection.shutdown(socket.SHUT_WR)
    return rest(connection)


def run(
    *arguments: str | Path, host: Served | None = None, data: bytes = b"", **more: str | None
) -> subprocess.CompletedProcess[bytes]:
    """cvm-qmail, or another program if the first argument is a path, to its end; `more`: environment variables."""
    command = arguments if arguments and isinstance(arguments[0], Path) else (CVM_QMAIL, *arguments)
    return subprocess.run(
        command, env=environment(host, more), input=data, capture_output=True, timeout=PATIENCE, check=False
    )


def accepting(path: str | Path) -> bool:
    """Whether somebody listens on this Unix socket.  Sends a whole request: a bare connection kills the C program."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        probe.sendall(b"\2\0\0")
        probe.shutdown(socket.SHUT_WR)
        probe.recv(512)
        return True


def end(process: subprocess.Popen[Any]) -> None:
    """Has a process end that may have ended by itself; kills it if it does not."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def logged(path: Path, text: str) -> str:
    """The first line of a file that holds `text`, when it is there."""
    return until(lambda: next((line for line in path.read_text().splitlines() if text in line), ""), text)


def alive(pid: int) -> bool:
    """Whether this process runs (one that nobody has waited for yet does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter: between opening and reading
        return False


def _ports() -> Iterator[int]:
    """Those of this process among the ports that the kernel gives to no outgoing connection, one after the other."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(10_000 + worker, 32_000, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    begin = random.SystemRandom().randrange(len(own))  # other runs of the tests begin elsewhere
    return itertools.cycle((*own[begin:], *own[:begin]))


_own_ports = _ports()


def free_port() -> int:
    """A port of this host that nobody uses, by TCP or UDP, and that no other test is given meanwhile."""
    while True:
        port = next(_own_ports)
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams, suppress(OSError):
            stream.bind(("", port))
            datagrams.bind(("", port))
            return port


def environment(host: Served | None, more: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment, the host's, and `more`; None takes a variable away."""
    merged: dict[str, str | None] = {**os.environ, **(host.environment if host else {}), **more}
    return {name: value for name, value in merged.items() if value is not None}


@contextmanager
def serving(
    host: Served,
    *arguments: str,
    program: str | Path = CVM_QMAIL,
    wrapper: Sequence[str | Path] = (),
    scheme: str = "cvm-local",
    path: Path | None = None,
    wait: bool = True,
    as_service: bool = False,
    **more: str | None,
) -> Iterator[Server]:
    """A server of `host`; keyword arguments in capitals are environment variables.

    `wrapper`: a program and its arguments that become the server, like setpriv.  `as_service`: it runs as the
    service's own user, and not without its sandbox.
    """
    with temporary_directory() as directory:
        if as_service:
            os.chown(directory, *SERVICE)
            wrapper, more = AS_SERVICE, {"CVM_SANDBOX": "required", **more}
        module = (
            f"{scheme}:{path or directory / 'socket'}" if scheme == "cvm-local" else f"{scheme}:127.0.0.1:{free_port()}"
        )
        log, errors = directory / "log", directory / "errors"
        with log.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [*wrapper, program, *arguments, module], env=environment(host, more), stdout=out, stderr=err
            )
        server = Server(process, module, log, errors)
        try:
            if wait:
                until(lambda: process.poll() is not None or "Starting." in log.read_text(), "the server starts")
                assert process.poll() is None, errors.read_text()
            yield server
        finally:
            end(process)
