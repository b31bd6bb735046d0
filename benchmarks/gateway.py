"""How many questions a second cvm-gateway answers, in front of the daemon, on the benchmarks' small host.

    python benchmarks/gateway.py [--seconds N] [--rounds N] [--markdown]

Each row is one kind of client, as many processes of it as the row says, for some seconds; the figure is the median of
the rounds, with the least and the greatest, and what the gateway's process spends on a question.  Clients, gateway and
daemon share the machine's cores.  Every answer is compared with that of the daemon, asked before by itself: a wrong one
ends the run with exit status 1.  A goal that is missed is said, and no more.

The sockets of the gateway's other side are the daemon's Unix socket.  Lines are logged to a file, as in real life.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import world
from bench import OURS, PATIENCE, Server, Wrong, accepting, clean_environment, machine
from world import Address

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Fact

CVM_GATEWAY = OURS.with_name("cvm-gateway")

AT_ONCE = 16
"""Datagrams that a client of qmail-verify has under way in the second of its rows."""


class Asked(NamedTuple):
    """The bytes of a request, and how an answer has to begin."""

    request: bytes
    answers: tuple[bytes, ...]


class Kind(NamedTuple):
    """A kind of client."""

    name: str
    clients: int
    run: Callable[[Path, int, list[Asked], float], int]
    request: Callable[[bytes], bytes]
    answers: Mapping[str, tuple[bytes, ...]]
    port: str = ""
    """The listener that has a port."""
    goal: float = 0.0


# -- clients ------------------------------------------------------------------------------------------


def kept_open(directory: Path, _port: int, asked: list[Asked], end: float) -> int:
    """One connection, one request at a time: socketmap and policy."""
    name = "policy" if asked[0].request.startswith(b"request=") else "socketmap"
    done = 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory / name))
        for request, answers in cycle(asked):
            connection.sendall(request)
            check(connection.recv(4096), answers)
            done += 1
            if time.monotonic() > end:
                return done
    return done


def one_each(_directory: Path, port: int, asked: list[Asked], end: float) -> int:
    """A connection for each request: HTTP, as the plug-ins of Haraka and qpsmtpd do it."""
    done = 0
    for request, answers in cycle(asked):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request)
            answer = b""
            while data := connection.recv(4096):
                answer += data
        check(answer.rpartition(b"\n")[2], answers)
        done += 1
        if time.monotonic() > end:
            break
    return done


def datagrams(at_once: int) -> Callable[[Path, int, list[Asked], float], int]:
    """qmail-verify's questions, so many under way at a time."""

    def run(_directory: Path, port: int, asked: list[Asked], end: float) -> int:
        done = 0
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(at_once)]
        with ExitStack() as stack:
            for client in sockets:
                stack.enter_context(client)
                client.connect(("127.0.0.1", port))
                client.settimeout(5)
            questions = cycle(asked)
            while time.monotonic() < end:
                batch = [next(questions) for _ in sockets]
                for client, question in zip(sockets, batch, strict=True):
                    client.send(question.request)
                for client, question in zip(sockets, batch, strict=True):
                    check(client.recv(100), question.answers)
                done += at_once
        return done

    return run


def check(answer: bytes, answers: tuple[bytes, ...]) -> None:
    """Raises `Wrong` for an answer that begins with none of these."""
    if not answer.startswith(answers):
        raise Wrong(f"answered {answer[:60]!r}, expected {answers}")


def netstring(address: bytes) -> bytes:
    """A socketmap request."""
    payload = b"rcpt " + address
    return b"%d:%s," % (len(payload), payload)


def policy(address: bytes) -> bytes:
    """A policy request, of the size that Postfix sends."""
    more = b"".join(b"%s=%s\n" % (name, b"x" * 12) for name in (b"helo_name", b"queue_id", b"instance", b"client_name"))
    return b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.7\nsender=ann@example.net\n" + (
        b"%srecipient=%s\n\n" % (more, address)
    )


def http(address: bytes) -> bytes:
    """A request of Haraka's plug-in."""
    target = address.replace(b"@", b"%40")
    return (
        b"GET /qd1/deliverable?%s HTTP/1.1\r\nhost: 127.0.0.1:8998\r\nconnection: close\r\naccept: */*\r\n"
        b"accept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\n\r\n"
    ) % target


SOCKETMAP = {"accepted": (b"4:OK 1,",), "rejected": (b"9:NOTFOUND ,",), "out of scope": (b"9:NOTFOUND ,",)}
POLICY = {"accepted": (b"action=dunno\n",), "rejected": (b"action=550 ",), "out of scope": (b"action=dunno\n",)}
NUMBERS = {"accepted": (b"241",), "rejected": (b"0",), "out of scope": (b"255",)}
STATUSES = {"accepted": (b"\x90", b"\xa0", b"\xc0"), "rejected": (b"\xe1",), "out of scope": (b"\x10", b"\x20")}

KINDS = (
    Kind("socketmap, 1 connection", 1, kept_open, netstring, SOCKETMAP),
    Kind("socketmap, 8 connections", 8, kept_open, netstring, SOCKETMAP),
    Kind("policy, 1 connection", 1, kept_open, policy, POLICY),
    Kind("policy, 8 connections", 8, kept_open, policy, POLICY),
    Kind("deliverable (HTTP), 1 client", 1, one_each, http, NUMBERS, "deliverable"),
    Kind("deliverable (HTTP), 8 clients", 8, one_each, http, NUMBERS, "deliverable", 3000),
    Kind("qmail-verify (UDP), 1 at a time", 1, datagrams(1), lambda address: address + b"\0", STATUSES, "qmail-verify"),
    Kind(
        f"qmail-verify (UDP), {AT_ONCE} at a time",
        1,
        datagrams(AT_ONCE),
        lambda address: address + b"\0",
        STATUSES,
        "qmail-verify",
        5000,
    ),
)


# -- measuring ----------------------------------------------------------------------------------------


def verdicts(daemon: Server, addresses: list[Address]) -> dict[bytes, str]:
    """What the daemon says itself."""
    found = {}
    for address in addresses:
        code, _, facts = packets.parse_response(daemon.ask(address.packet))
        scope = dict(facts).get(Fact.OUTOFSCOPE)
        word = "accepted" if not code else "rejected" if scope == b"0" else "out of scope"
        found[b"%s@%s" % address] = word
    return found


def load(kind: Kind, directory: Path, ports: dict[str, int], asked: list[Asked], seconds: float) -> float:
    """Questions a second of one round."""
    readable, writable = os.pipe()
    children = []
    began = time.monotonic()
    for number in range(kind.clients):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                mine = asked[:]
                random.Random(number).shuffle(mine)
                done = kind.run(directory, ports.get(kind.port, 0), mine, began + seconds)
                os.write(writable, b"%d\n" % done)
                status = 0
            except (Wrong, OSError) as error:
                print(f"{kind.name}: {error}", file=sys.stderr)
            finally:
                os._exit(status)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
    elapsed = time.monotonic() - began
    os.close(writable)
    with os.fdopen(readable, "rb") as counts:
        done = sum(map(int, counts.read().split()))
    if failed:
        raise Wrong(kind.name)
    return done / elapsed


def free_port(kind: socket.SocketKind) -> int:
    """A port that nobody uses."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(stack: ExitStack, command: list[str | Path], log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """A server that ends with the stack."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**clean_environment(), **variables}, stdout=out, stderr=out)
    stack.callback(process.wait, PATIENCE)
    stack.callback(process.terminate)
    return process


def wait_for(there: Callable[[], bool]) -> None:
    """Waits for a server.  Raises `Wrong`."""
    end = time.monotonic() + PATIENCE
    while not there():
        if time.monotonic() > end:
            raise Wrong("a server does not start")
        time.sleep(0.01)


def measure(directory: Path, seconds: float, rounds: int) -> list[tuple[Kind, list[float], float]]:
    """Each kind of client with its rates, and microseconds of the gateway's CPU a question."""
    ports = {"deliverable": free_port(socket.SOCK_STREAM), "qmail-verify": free_port(socket.SOCK_DGRAM)}
    root = directory / "host"
    root.mkdir()
    host = world.small(root)
    rows = []
    with ExitStack() as stack:
        path = directory / "daemon"
        environment = {"QMAIL_ROOT": str(host.root), "CVM_LOOKUP_SECRET": ""}
        process = started(stack, [OURS, f"cvm-local:{path}"], directory / "daemon.log", **environment)
        wait_for(lambda: accepting(path))
        daemon = Server(process, path, directory / "daemon.log", "cvm-qmail")
        listeners = [f"{name}:unix:{directory}/{name}" for name in ("socketmap", "policy")]
        listeners += [f"{name}:127.0.0.1:{port}" for name, port in ports.items()]
        log = directory / "gateway.log"
        gateway = started(stack, [CVM_GATEWAY, *listeners], log, CVM_GATEWAY_MODULE=f"cvm-local:{path}")
        wait_for(lambda: "Starting." in log.read_text())
        server = Server(gateway, path, log, "cvm-gateway")
        said = verdicts(daemon, world.mix())
        time.sleep(2)  # a file that changed just before is read anew for every request
        for kind in KINDS:
            asked = [Asked(kind.request(address), kind.answers[word]) for address, word in said.items()]
            load(kind, directory, ports, asked, seconds / 4)
            before, began = server.cpu(), time.monotonic()
            rates = [load(kind, directory, ports, asked, seconds) for _ in range(rounds)]
            done = statistics.mean(rates) * (time.monotonic() - began)
            rows.append((kind, rates, (server.cpu() - before) / done * 1e6))
            os.truncate(log, 0)
    return rows


def main() -> int:
    """The command; exit status 1 after a wrong answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="the table for docs/gateway.md")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="cvm-gateway-bench.") as name:
        Path(name).chmod(0o755)
        try:
            rows = measure(Path(name), options.seconds, options.rounds)
        except Wrong as wrong:
            print(f"WRONG: {wrong}", file=sys.stderr)
            return 1
    if options.markdown:
        print("\n| client | questions a second | goal | CPU of the gateway a question |\n| --- | --- | --- | --- |")
    for kind, rates, cpu in rows:
        goal = f"≥ {kind.goal:,.0f}" if kind.goal else ""
        span = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        if options.markdown:
            print(f"| {kind.name} | {span} | {goal} | {cpu:.0f} us |")
        else:
            missed = "  MISSED" if kind.goal and statistics.median(rates) < kind.goal else ""
            print(f"{kind.name:35} {span:32} {goal:9} {cpu:5.0f} us{missed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
