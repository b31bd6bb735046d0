"""cvmctl status of a gateway: by its http listener, well, degraded, down, and what is no gateway."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from calling import called
from gateways import Gateway, Pair, gateway, module, policy, rejected
from hosts import temporary_directory
from serving import PATIENCE, environment

from cvm_qmail.process import sandbox

STATISTICS = {
    "version": "1.1.0",
    "process": {"pid": 17, "about": {"sandbox": {"process": "gateway", "landlock": 4, "seccomp": True}}},
    "started": 1.0,
    "now": 2.0,
    "outcomes": {"temporary_failure": 1},
    "reasons": [{"reason": "backend-down", "count": 1}],
    "backends": [{"module": "m", "up": False, "since": 1.0, "detail": "\x1b[2J", "asking": 0, "failures": {}}],
    "throttled": [],
    "connections": 0,
}


def status(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return called("status", *arguments, env=environment(None, more))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with (
        temporary_directory() as directory,
        module(f"cvm-local:{directory}/module") as asked,
        gateway(asked.address) as running,
    ):
        asked.say(rejected())
        for number in range(3):
            running.ask("policy", policy(b"%d@ours.test" % number))
        yield Pair(asked, running)


def listener(running: Gateway) -> str:
    return f"http:127.0.0.1:{running.ports['http']}"


def confined(running: Gateway) -> str:
    """What the kernel says of a gateway's process, in the words of its status."""
    seccomp = "Seccomp:\t2" in Path(f"/proc/{running.process.pid}/status").read_text()
    return sandbox.described({"seccomp": seccomp, "landlock": sandbox.landlock.version()})


def test_it_says_what_its_process_has_of_the_sandbox(pair: Pair) -> None:
    done = status(listener(pair.gateway))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f" at {listener(pair.gateway)}: well")
    pid = pair.gateway.process.pid
    assert f"    gateway {pid}: {confined(pair.gateway)}" in lines
    assert "3 questions" in lines
    assert "  3 rejected" in lines
    assert "  3 no-mailbox" in lines
    url = f"http://127.0.0.1:{pair.gateway.ports['http']}/"
    assert status(url).stdout.splitlines()[0] == lines[0].replace(listener(pair.gateway), url)


def test_as_json(pair: Pair) -> None:
    found = json.loads(status(listener(pair.gateway), "--json").stdout)
    assert (found["state"], found["complaints"], found["program"]) == ("well", [], "cvm-gateway")
    assert found["process"]["pid"] == pair.gateway.process.pid
    box = found["process"]["about"]["sandbox"]
    assert (box["process"], sandbox.described(box)) == ("gateway", confined(pair.gateway))
    assert found["outcomes"]["rejected"] == 3


def test_without_a_sandbox_it_says_so(pair: Pair) -> None:
    with gateway(pair.module.address, CVM_SANDBOX="off") as running:
        lines = status(listener(running)).stdout.splitlines()
        assert f"    gateway {running.process.pid}: no Landlock, no filter for system calls" in lines


def test_a_unix_socket_is_one_as_well(pair: Pair) -> None:
    with temporary_directory() as directory:
        name = f"http:unix:{directory}/http"
        with gateway(pair.module.address, listeners=[name]) as running:
            done = status(name)
            assert done.returncode == 0
            assert f"gateway {running.process.pid}: " in done.stdout
        done = status(name)
        assert (done.returncode, done.stdout) == (111, "")
        assert f"{name}: No such file or directory" in done.stderr


def test_a_module_that_is_down_is_a_degraded_gateway() -> None:
    with temporary_directory() as directory, gateway(f"cvm-local:{directory}/nobody") as running:
        running.outcome()
        done = status(listener(running))
        assert done.returncode == 1
        assert f"cvm-local:{directory}/nobody is down: " in done.stdout.splitlines()[0]
        assert json.loads(status(listener(running), "--json").stdout)["state"] == "degraded"


class Listening(NamedTuple):
    name: str
    asked: list[bytes]


@contextmanager
def answering(response: bytes) -> Iterator[Listening]:
    """A listener that gives one client this response."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(PATIENCE)  # if nobody asks
        asked: list[bytes] = []

        def answer() -> None:
            client, _ = server.accept()
            client.settimeout(PATIENCE)
            with client, suppress(ConnectionError):  # it does not read what is too long
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += client.recv(4096)
                asked.append(request)
                client.sendall(response)

        thread = threading.Thread(target=answer)
        thread.start()
        yield Listening(f"http:127.0.0.1:{server.getsockname()[1]}", asked)
        thread.join()


def ok(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_what_comes_from_the_gateway_is_escaped() -> None:
    with answering(ok(STATISTICS)) as there:
        done = status(there.name)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "m is down: \\x1b[2J" in done.stdout
    assert "    gateway 17: Landlock 4, a filter for system calls" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("response", "exit_status", "said"),
    [
        (ok([]), 100, "the answer is not a gateway's statistics"),
        (ok({**STATISTICS, "process": None}), 100, "the answer is not a gateway's statistics"),
        (ok({**STATISTICS, "started": 1e300}), 100, "the answer is not a gateway's statistics"),
        (ok("x" * (1 << 20)), 100, "the answer is not a gateway's statistics"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", 100, "it requires another token: CVM_GATEWAY_TOKEN"),
        (b"HTTP/1.1 421 No\r\nContent-Length: 7\r\n\r\nno\x1b\nmore", 100, "found status 421 (no\\x1b), expected 200"),
        (b"220 mx.example.org ESMTP\r\n", 111, "220 mx.example.org ESMTP"),
        (b"", 111, "Remote end closed connection without response"),
    ],
    ids=["list", "no process", "no time", "long", "token", "other host", "smtp", "nothing"],
)
def test_what_is_no_gateway_is_said(response: bytes, exit_status: int, said: str) -> None:
    with answering(response) as there:
        done = status(there.name)
    assert (done.returncode, done.stdout) == (exit_status, "")
    assert said in done.stderr


@pytest.mark.parametrize("name", ["http:", "http:127.0.0.1", "http:unix:here", "http://127.0.0.1/", "http://h:1/x"])
def test_what_is_no_listener_is_said(name: str) -> None:
    done = status(name)
    assert (done.returncode, done.stdout) == (100, "")
    assert "http:" in done.stderr


def test_the_token_is_sent() -> None:
    with answering(ok(STATISTICS)) as there:
        status(there.name, CVM_GATEWAY_TOKEN="open sesame")
    assert b"\r\nAuthorization: Bearer open sesame\r\n" in there.asked[0]
