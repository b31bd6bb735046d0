"""Hostile, slow and silent clients; limits; restarts: nobody else pays for them."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from gateways import (
    OUTCOMES,
    REQUESTS,
    Gateway,
    Pair,
    expected,
    gateway,
    module,
    netstring,
    read_outcome,
    rejected,
)
from hosts import temporary_directory
from serving import PATIENCE, until

STREAMS = ("socketmap", "policy", "deliverable", "http")
QUESTION = b"joe@ours.test"


@pytest.fixture(autouse=True)
def accepting(pair: Pair) -> None:
    pair.module.say(OUTCOMES["accepted"])


def outcome(running: Gateway, protocol: str) -> str:
    return read_outcome(protocol, running.ask(protocol, REQUESTS[protocol](QUESTION)))


def resident(pid: int) -> int:
    """Kilobytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def mutations(request: bytes, seed: int) -> Iterator[bytes]:
    """Requests that are none, or perhaps are."""
    chance = random.Random(seed)
    while True:
        data = bytearray(request)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(5):
                case 0:
                    data[at : at + 1] = bytes([chance.choice((0, 10, 13, 32, 44, 58, 61, 255))])
                case 1:
                    data[at:at] = chance.randbytes(chance.randrange(1, 20))
                case 2:
                    del data[at : at + chance.randrange(1, 9)]
                case 3:
                    del data[at:]
                case 4:
                    data[at:at] = data[:at] * chance.randrange(3)
        yield bytes(data)


@pytest.mark.parametrize("protocol", REQUESTS)
def test_ten_thousand_malformed_requests_leave_no_trace(pair: Pair, protocol: str) -> None:
    running, pid = pair.gateway, pair.gateway.process.pid
    attempts = mutations(REQUESTS[protocol](QUESTION), seed=len(protocol))
    before = descriptors(pid)

    def send(count: int) -> None:
        for n in range(count):
            data = next(attempts)
            if protocol == "qmail-verify":
                datagrams.send(data)
                if not n % 100:  # else they would only be dropped
                    outcome(running, protocol)
                continue
            with running.connect(protocol) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)

    with running.connect("qmail-verify") as datagrams:
        send(2000)  # what has to grow has grown then
        outcome(running, protocol)
        grown = resident(pid)
        send(8000)
        until(lambda: outcome(running, protocol) == "accepted", "what is waiting has been answered")
    assert resident(pid) < grown + 6000
    until(lambda: descriptors(pid) <= before + 1, "no descriptor is left")


TOO_MUCH = {
    "socketmap": b"999999:" + b"x" * 70_000,
    "policy": b"request=smtpd_access_policy\nrecipient=" + b"x" * 200_000,
    "deliverable": b"GET /qd1/deliverable?" + b"x" * 70_000,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 300_000,
}


@pytest.mark.parametrize("protocol", TOO_MUCH)
def test_a_request_that_is_too_large_ends_its_connection(pair: Pair, protocol: str) -> None:
    with pair.gateway.connect(protocol) as client:
        try:
            client.sendall(TOO_MUCH[protocol])
            while client.recv(65536):
                pass
        except ConnectionError:
            pass
    assert outcome(pair.gateway, protocol) == "accepted"


def test_a_thousand_idle_connections_beside_load_cost_nothing() -> None:
    with temporary_directory() as directory, module(f"cvm-local:{directory}/m") as asked:
        asked.say(OUTCOMES["accepted"])
        with gateway(asked.address, CVM_GATEWAY_CONNECTIONS="1200") as running, ExitStack() as clients:
            idle = [clients.enter_context(running.connect(STREAMS[n % 4])) for n in range(1000)]
            for n, client in enumerate(idle):
                if n % 2:
                    client.sendall(REQUESTS[STREAMS[n % 4]](QUESTION)[:9])  # the beginning of a request
            for protocol in REQUESTS:
                for _ in range(50):
                    assert outcome(running, protocol) == "accepted"
            assert running.get("/v1/statistics")[0] == 200
            for client in idle:  # nobody was closed for the others
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    client.recv(1)


def test_with_too_many_connections_the_longest_silent_one_goes() -> None:
    with temporary_directory() as directory, module(f"cvm-local:{directory}/m") as asked:
        asked.say(OUTCOMES["accepted"])
        with gateway(asked.address, CVM_GATEWAY_CONNECTIONS="5") as running, ExitStack() as clients:
            idle = [clients.enter_context(running.connect("socketmap")) for _ in range(5)]
            assert outcome(running, "socketmap") == "accepted"
            assert idle[0].recv(1) == b""
            idle[4].sendall(REQUESTS["socketmap"](QUESTION))
            assert idle[4].recv(100) == b"4:OK 1,"
            assert "closed-for-others" in running.get("/metrics")[1].decode()


def test_who_sends_no_request_in_time_is_closed() -> None:
    with (
        temporary_directory() as directory,
        module(f"cvm-local:{directory}/m") as asked,
        gateway(asked.address, CVM_GATEWAY_IDLE="1000") as running,
        ExitStack() as stack,
    ):
        clients = {protocol: stack.enter_context(running.connect(protocol)) for protocol in STREAMS}
        for protocol, client in clients.items():
            client.sendall(REQUESTS[protocol](QUESTION)[:5])
        for client in clients.values():
            assert client.recv(100) == b""


FLOODS = {
    "socketmap": netstring(b"rcpt joe@ours.test") * 1000,
    "policy": b"\n" * 20_000,  # answered without asking
    "http": b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1000,
}


@pytest.mark.parametrize("protocol", FLOODS)
def test_a_client_that_never_reads_is_bounded(pair: Pair, protocol: str) -> None:
    outcome(pair.gateway, protocol)
    before = resident(pair.gateway.process.pid)
    with pair.gateway.connect(protocol) as client:
        client.settimeout(2)
        sent = 0
        try:
            while sent < 50_000_000:
                sent += client.send(FLOODS[protocol])
        except TimeoutError:
            pass
        assert sent < 50_000_000
        assert outcome(pair.gateway, protocol) == "accepted"
        assert resident(pair.gateway.process.pid) < before + 20_000


def test_a_client_that_never_reads_is_closed_in_its_time() -> None:
    with (
        temporary_directory() as directory,
        module(f"cvm-local:{directory}/m") as asked,
        gateway(asked.address, CVM_GATEWAY_IDLE="300") as running,
        ExitStack() as clients,
    ):
        asked.say(OUTCOMES["accepted"])
        for protocol, flood in FLOODS.items():
            client = clients.enter_context(running.connect(protocol))
            client.setblocking(False)
            with suppress(BlockingIOError, ConnectionError):
                while client.send(flood):
                    pass
        until(lambda: b"cvm_gateway_connections 1\n" in running.get("/metrics")[1], "they are gone")


def test_no_more_questions_wait_than_are_allowed() -> None:
    with temporary_directory() as directory, module(f"cvm-local:{directory}/m") as asked:
        asked.say(None)
        with gateway(asked.address, CVM_GATEWAY_WAITING="2", CVM_GATEWAY_TIMEOUT="20000") as running:
            waiting = [running.connect("policy") for _ in range(2)]
            for client in waiting:
                client.sendall(REQUESTS["policy"](QUESTION))
            until(lambda: len(asked.asked) == 2)
            for protocol in REQUESTS:
                assert outcome(running, protocol) == "temporary_failure"
            assert running.outcome()["reason"] == "too-many-waiting"
            for client in waiting:
                client.close()
            running.process.kill()


def test_qmail_verify_answers_before_its_client_gives_up() -> None:
    with temporary_directory() as directory, module(f"cvm-local:{directory}/m") as asked:
        asked.say(None)
        with gateway(asked.address) as running, running.connect("qmail-verify") as client:
            client.settimeout(5.0)  # as qmail-smtpd
            client.send(b"joe@ours.test\0")
            assert client.recv(100) == b""
            asked.say(OUTCOMES["accepted"])
            client.send(b"joe@ours.test\0")
            assert client.recv(100) == b"\x90joe"


# -- starting and ending ------------------------------------------------------------------------------


def test_what_was_begun_is_answered_at_the_end() -> None:
    with temporary_directory() as directory, module(f"cvm-local:{directory}/m") as asked:
        go_on = threading.Event()

        def says(_: object) -> object:
            go_on.wait(PATIENCE)
            return rejected()

        asked.says = says
        with gateway(asked.address) as running, ExitStack() as stack:
            clients = {protocol: stack.enter_context(running.connect(protocol)) for protocol in REQUESTS}
            for protocol, client in clients.items():
                client.sendall(REQUESTS[protocol](QUESTION))
            idle = stack.enter_context(running.connect("socketmap"))
            until(lambda: len(asked.asked) == len(REQUESTS))
            running.process.terminate()
            assert idle.recv(1) == b""
            until(lambda: not (running.directory / "socketmap").exists())
            go_on.set()
            for protocol, client in clients.items():
                answer = b""
                while data := client.recv(4096):
                    answer += data
                    if protocol == "qmail-verify":
                        break
                assert read_outcome(protocol, answer) == expected(protocol, "rejected")
            assert running.process.wait(PATIENCE) == 0
            assert "Stopping." in running.log.read_text()


def test_a_path_is_taken_over_only_on_request(pair: Pair) -> None:
    for name in pair.gateway.listeners:
        with (
            pytest.raises(AssertionError, match=r"is already served by process|Address already in use"),
            gateway(pair.module.address, listeners=[name]),
        ):
            pass
    assert outcome(pair.gateway, "socketmap") == "accepted"


def test_a_takeover_loses_no_question() -> None:
    with temporary_directory() as directory, module(f"cvm-local:{directory}/m") as asked:
        asked.say(OUTCOMES["accepted"])
        with gateway(asked.address) as old:
            wrong: list[str] = []
            ended = threading.Event()

            def load(protocol: str) -> None:
                while not ended.is_set():
                    try:
                        answer = outcome(old, protocol)
                    except OSError as error:
                        answer = f"{protocol}: {error}"
                    if answer != "accepted":
                        wrong.append(answer)

            threads = [threading.Thread(target=load, args=(protocol,)) for protocol in REQUESTS]
            for thread in threads:
                thread.start()
            with gateway(asked.address, "--takeover", listeners=old.listeners) as new:
                old.logged("Another server has taken over.")
                assert old.process.wait(PATIENCE) == 0
                for protocol in REQUESTS:
                    assert outcome(old, protocol) == "accepted"  # by the address, which is the new one's
                assert new.process.poll() is None
                ended.set()
                for thread in threads:
                    thread.join()
            assert wrong == []


def test_a_dead_gateways_socket_is_replaced_and_a_file_is_not() -> None:
    with temporary_directory() as directory:
        path = directory / "s"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        with gateway("cvm-local:/nowhere", listeners=[f"policy:unix:{path}"]) as running:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(REQUESTS["policy"](QUESTION))
                assert b"backend-down" in client.recv(1000)
            assert running.stop() == 0
        assert not path.exists()
        path.write_text("mine")
        with (
            pytest.raises(AssertionError, match="exists and is not a socket"),
            gateway("cvm-local:/nowhere", listeners=[f"policy:unix:{path}"]),
        ):
            pass
        assert path.read_text() == "mine"


def test_sockets_of_a_service_manager_are_used(pair: Pair) -> None:
    import subprocess

    from gateways import CVM_GATEWAY, free_port

    port = free_port()
    with (
        temporary_directory() as directory,
        socket.create_server(("127.0.0.1", port)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(directory / "s"))
        unix.listen()
        script = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
        script += "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2'); os.execv(sys.argv[3], sys.argv[3:])"
        # Above 4, so that the script's first dup2 does not close what it copies next.
        fds = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (tcp, unix)]
        import sys

        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, fds), CVM_GATEWAY, f"http:127.0.0.1:{port}", "policy:unix:/gone"],
            env={**os.environ, "CVM_GATEWAY_MODULE": pair.module.address},
            pass_fds=fds,
            stdout=subprocess.DEVNULL,
        )
        for fd in fds:
            os.close(fd)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(directory / "s"))
                client.sendall(REQUESTS["policy"](QUESTION))
                assert client.recv(1000).startswith(b"action=dunno\n")
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0
        assert (directory / "s").exists(), "it is the service manager's"
