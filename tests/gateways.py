"""A running gateway, CVM modules for it to ask that say what a test wants, and clients of each protocol."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hosts import CORPUS, temporary_directory
from serving import PATIENCE, end, free_port, logged, until

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Code, Credential, Fact

CVM_GATEWAY = Path(sys.executable).with_name("cvm-gateway")

FACTS = ((Fact.USERNAME, b"joe"), (Fact.USERID, b"5001"), (Fact.GROUPID, b"5002"), (Fact.DIRECTORY, b"/home/joe"))

Reply = tuple[int, tuple[tuple[int, bytes], ...]]
"""A code and facts."""


def accepted(reason: bytes = b"mailbox") -> Reply:
    return Code.SUCCESS, (*FACTS, (Fact.REASON, reason))


def rejected(reason: bytes = b"no-mailbox") -> Reply:
    return Code.PERMFAIL, ((Fact.OUTOFSCOPE, b"0"), (Fact.REASON, reason))


def out_of_scope(reason: bytes = b"remote") -> Reply:
    return Code.PERMFAIL, ((Fact.OUTOFSCOPE, b"1"), (Fact.REASON, reason))


def temporary(reason: bytes = b"home-sticky") -> Reply:
    return Code.IO, ((Fact.REASON, reason),)


OUTCOMES: dict[str, Reply] = {
    "accepted": accepted(),
    "rejected": rejected(),
    "out_of_scope": out_of_scope(),
    "temporary_failure": temporary(),
}


class Module:
    """A CVM module on a Unix socket or by UDP; `says` decides: a reply, or bytes that are sent as they are."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.says: Callable[[Recipient], Reply | bytes | None] = lambda _: accepted()
        """None: no answer at all, while the module lives."""
        self.asked: list[Recipient] = []
        self.requests: list[packets.Request] = []
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        scheme, _, place = address.partition(":")
        if scheme == "cvm-local":
            self._socket = socket.socket(socket.AF_UNIX)
            Path(place).unlink(missing_ok=True)
            self._socket.bind(place)
            self._socket.listen(1024)
            serve = self._accept
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            host, _, port = place.rpartition(":")
            self._socket.bind((host, int(port)))
            serve = self._receive
        self._socket.settimeout(0.05)
        self._start(serve)

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, packets.Malformed):  # whoever asks may be killed in the middle of it
            connection.settimeout(PATIENCE)
            packet = b""
            while data := connection.recv(4096):
                packet += data
            answer = self._answer(packet)
            if answer is None:
                self._ended.wait(PATIENCE)
            else:
                connection.sendall(answer)

    def _receive(self) -> None:
        while not self._ended.is_set():
            try:
                packet, sender = self._socket.recvfrom(4096)
            except TimeoutError:
                continue
            except OSError:
                return
            if (answer := self._answer(packet)) is not None:
                self._socket.sendto(answer, sender)

    def _answer(self, packet: bytes) -> bytes | None:
        request = packets.parse_request(packet)
        recipient = Recipient(request.credentials.get(1, b""), request.credentials.get(2))
        self.asked.append(recipient)
        self.requests.append(request)
        reply = self.says(recipient)
        if reply is None or isinstance(reply, bytes):
            return reply
        code, facts = reply
        if Credential.REASON not in request.credentials:
            facts = tuple(fact for fact in facts if fact[0] != Fact.REASON)
        return packets.pack_response(request.version, request.nonce, code, facts)

    def say(self, reply: Reply | bytes | None) -> None:
        """The same to everybody."""
        self.says = lambda _: reply
        self.asked.clear()

    def stop(self) -> None:
        """It ends: nobody listens there any more."""
        self._ended.set()
        self._socket.close()
        for thread in self._threads:
            thread.join(PATIENCE)


@contextmanager
def module(address: str) -> Iterator[Module]:
    """A module until the end of the block."""
    made = Module(address)
    try:
        yield made
    finally:
        made.stop()


class Gateway(NamedTuple):
    """A gateway that runs, with a listener for each protocol."""

    process: subprocess.Popen[bytes]
    directory: Path
    ports: dict[str, int]
    log: Path
    errors: Path

    @property
    def listeners(self) -> list[str]:
        return all_listeners(self.directory, self.ports)

    def connect(self, protocol: str) -> socket.socket:
        """A connection to a listener."""
        if protocol in ("socketmap", "policy"):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self.directory / protocol))  # blocking: it waits while the queue is full
            connection.settimeout(PATIENCE)
            return connection
        if protocol == "qmail-verify":
            connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            connection.settimeout(PATIENCE)
            connection.connect(("127.0.0.1", self.ports[protocol]))
            return connection
        return socket.create_connection(("127.0.0.1", self.ports[protocol]), PATIENCE)

    def ask(self, protocol: str, request: bytes) -> bytes:
        """One answer to the bytes of one request; empty: the connection was closed without one."""
        with self.connect(protocol) as connection:
            connection.sendall(request)
            if protocol == "qmail-verify":
                return connection.recv(65536)
            answer = b""
            while not is_whole(protocol, answer) and (data := connection.recv(65536)):
                answer += data
            return answer

    def get(self, target: str, protocol: str = "http", *headers: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        head, body = self.response(target, protocol, *headers)
        return int(head.split()[1]), body

    def response(self, target: str, protocol: str = "http", *headers: str) -> tuple[str, bytes]:
        """Status line with headers, and body, of a GET."""
        host = [] if any(header.startswith("Host:") for header in headers) else ["Host: x"]
        lines = [f"GET {target} HTTP/1.1", *host, *headers, "Connection: close", "", ""]
        with self.connect(protocol) as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1"))
            answer = b""
            while data := connection.recv(65536):
                answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.decode("latin-1"), body

    def outcome(self, address: str = "joe@ours.test", protocol: str = "http") -> Any:
        """What the JSON says of an address."""
        return json.loads(self.get("/v1/recipients/" + address.replace("@", "%40"), protocol)[1])

    def logged(self, text: str) -> str:
        """The first log line that holds `text`, when it is there."""
        return logged(self.log, text)

    def stop(self) -> int:
        """Stops it; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def is_whole(protocol: str, answer: bytes) -> bool:
    """Whether an answer has come as a whole."""
    if protocol == "socketmap":
        length, colon, rest = answer.partition(b":")
        return bool(colon) and len(rest) > int(length)
    if protocol == "policy":
        return answer.endswith(b"\n\n")
    return False  # HTTP: to end of file


def all_listeners(directory: Path, ports: dict[str, int]) -> list[str]:
    return [
        f"socketmap:unix:{directory}/socketmap",
        f"policy:unix:{directory}/policy",
        *(f"{protocol}:127.0.0.1:{port}" for protocol, port in ports.items()),
    ]


@contextmanager
def gateway(asks: str, *arguments: str, listeners: list[str] | None = None, **variables: str) -> Iterator[Gateway]:
    """A gateway that asks this module; keyword arguments are environment variables."""
    with temporary_directory() as directory:
        directory.chmod(0o755)
        ports = {
            "qmail-verify": free_port(),
            "deliverable": free_port(),
            "http": free_port(),
        }
        log, errors = directory / "log", directory / "errors"
        command = [CVM_GATEWAY, *arguments, *(all_listeners(directory, ports) if listeners is None else listeners)]
        module_of = {} if "--routes" in arguments else {"CVM_GATEWAY_MODULE": asks}
        environment = {**os.environ, **module_of, **variables}
        with log.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        try:
            until(lambda: process.poll() is not None or "Starting." in log.read_text(), "the gateway starts")
            assert process.poll() is None, errors.read_text()
            yield Gateway(process, directory, ports, log, errors)
        finally:
            end(process)
        assert "Traceback" not in errors.read_text(), errors.read_text()
        assert "internal error" not in log.read_text(), log.read_text()


class Pair(NamedTuple):
    """A module and the gateway that asks it."""

    module: Module
    gateway: Gateway


# -- clients ------------------------------------------------------------------------------------------


def netstring(payload: bytes) -> bytes:
    return b"%d:%s," % (len(payload), payload)


def policy(address: bytes, **attributes: str) -> bytes:
    """A policy request."""
    given = {"request": "smtpd_access_policy", "protocol_state": "RCPT", **attributes}
    lines = b"".join(f"{name}={value}\n".encode("latin-1") for name, value in given.items())
    return lines + b"recipient=%s\n\n" % address


def percent(address: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in address)


def http_get(target: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target


REQUESTS: dict[str, Callable[[bytes], bytes]] = {
    "socketmap": lambda address: netstring(b"rcpt " + address),
    "policy": policy,
    "qmail-verify": lambda address: address + b"\0",
    "deliverable": lambda address: http_get(b"/qd1/deliverable?" + percent(address)),
    "http": lambda address: http_get(b"/v1/recipients/" + percent(address)),
}
"""The bytes of a question, by protocol."""


def read_outcome(protocol: str, answer: bytes) -> str:
    """What each client makes of an answer, in our words: what made it do which thing is recorded in the corpus."""
    if protocol == "socketmap":
        words = {b"OK": "accepted", b"NOTFOUND": "not found", b"TEMP": "temporary_failure"}
        return words[answer.partition(b":")[2].partition(b" ")[0]]
    if protocol == "policy":
        action = answer.partition(b"\n")[0]
        words = {b"action=dunno": "accepted", b"action=defer_if_permit": "temporary_failure"}
        return "rejected" if action.startswith(b"action=5") else words[action.partition(b" ")[0]]
    if protocol == "qmail-verify":
        if not answer:
            return "temporary_failure"
        return "rejected" if answer[0] & 15 else "out_of_scope" if answer[0] == 0x10 else "accepted"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split()[1]
    if protocol == "http":
        outcome = json.loads(body)["outcome"]
        assert (status == b"503") == (outcome == "temporary_failure")
        return str(outcome)
    if status != b"200":
        assert status == b"503"
        return "temporary_failure"
    return {b"0": "rejected", b"255": "out_of_scope"}.get(body, "accepted" if 0xF1 <= int(body) <= 0xF6 else "?")


def expected(protocol: str, outcome: str) -> str:
    """How a client sees an outcome: some protocols do not distinguish all four."""
    if protocol == "socketmap" and outcome in ("rejected", "out_of_scope"):
        return "not found"
    if protocol == "policy" and outcome == "out_of_scope":
        return "accepted"
    return outcome


# -- the corpus ---------------------------------------------------------------------------------------


def exchanges(name: str) -> list[dict[str, Any]]:
    """The exchanges of a file of the corpus."""
    return list(json.loads((CORPUS / "frontends" / f"{name}.json").read_text())["exchanges"])
