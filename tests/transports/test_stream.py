"""The Unix socket: slow, silent, hasty and rude clients; the path."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from hosts import Host, temporary_directory
from serving import AN_HOUR, PATIENCE, Server, finish, request, rest, serving, until

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Fact
from cvm_qmail.transports import stream, unix_socket

pytestmark = pytest.mark.root

OVERSIZE = b"\2\0\0"


def users_in(answer: bytes) -> bytes:
    response = packets.parse_response(answer)
    assert response.code == 0
    return dict(response.facts)[Fact.USERNAME]


def pours(connection: socket.socket, most: int) -> int:
    """Sends until the other end has closed; how many bytes that took."""
    for sent in range(0, most, 65536):
        try:
            connection.sendall(bytes(65536))
        except (BrokenPipeError, ConnectionResetError):
            return sent
    return most


# -- clients that take their time ---------------------------------------------------------------------


def test_silent_clients_cost_the_others_nothing(patient: Server) -> None:
    silent = [patient.connect() for _ in range(200)]
    assert {patient.ask("joe").code for _ in range(100)} == {0}
    for connection in silent:  # they were not dropped either
        assert users_in(finish(connection, request("joe"))) == b"joe"


def test_clients_that_send_a_byte_at_a_time_are_answered(patient: Server) -> None:
    packets = [request(name) for name in ("joe", "ann", "joe-foo") for _ in range(10)]
    slow = [patient.connect() for _ in packets]
    for at in range(max(map(len, packets))):
        for connection, packet in zip(slow, packets, strict=True):
            connection.sendall(packet[at : at + 1])
        assert patient.ask("ann-x").code == 0
    assert [users_in(finish(connection)) for connection in slow] == [b"joe"] * 10 + [b"ann"] * 10 + [b"joe"] * 10


def test_a_request_is_complete_at_end_of_file_and_not_before(patient: Server) -> None:
    with patient.connect() as connection:
        connection.sendall(request("joe"))
        assert {patient.ask("ann").code for _ in range(20)} == {0}
        assert select.select([connection], [], [], 0)[0] == []
        connection.sendall(b"")
        assert users_in(finish(connection)) == b"joe"


def test_clients_that_never_read_hold_nobody_up(patient: Server) -> None:
    deaf = []
    for _ in range(200):
        connection = patient.connect()
        connection.sendall(request("joe"))
        connection.shutdown(socket.SHUT_WR)
        deaf.append(connection)
    assert patient.ask("ann").code == 0
    assert {users_in(rest(connection)) for connection in deaf} == {b"joe"}


def test_clients_that_leave_without_reading_do_no_harm(patient: Server) -> None:
    for _ in range(50):
        with patient.connect() as connection:
            connection.sendall(request("joe"))
    assert {patient.ask("joe").code for _ in range(20)} == {0}
    assert "ended with" not in patient.log.read_text()


def test_a_silent_client_is_closed_at_the_time_out_and_not_before(host: Host) -> None:
    with serving(host, CVM_LOCAL_TIMEOUT="300") as server:
        began = time.monotonic()
        silent = [server.connect() for _ in range(30)]
        assert [rest(connection) for connection in silent] == [b""] * 30
        assert time.monotonic() - began >= 0.3


def test_a_client_that_keeps_dribbling_is_closed_at_the_time_out(host: Host) -> None:
    with serving(host, CVM_LOCAL_TIMEOUT="300") as server, server.connect() as connection:
        connection.sendall(b"\2")

        def closed() -> bool:
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        until(closed, "the client is closed")
        assert server.ask("joe").code == 0


def test_more_silent_clients_than_a_worker_keeps_push_the_oldest_out(host: Host) -> None:
    with serving(host, CVM_LOCAL_TIMEOUT=AN_HOUR, CVM_WORKERS="1") as server:
        silent = [server.connect() for _ in range(stream.PARKED_LIMIT + 40)]
        assert server.ask("joe").code == 0
        assert [rest(connection) for connection in silent[:40]] == [b""] * 40
        assert users_in(finish(silent.pop(), request("joe"))) == b"joe"
        for connection in silent:
            connection.close()


def test_a_worker_that_waits_for_a_connection_is_woken_by_a_slow_client_and_not_by_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "IDLE", 3600.0)
    with temporary_directory() as directory:
        listener, _ = unix_socket.listen(os.fsencode(directory / "s"), 0o700, -1, -1)
        worker = working(listener, bytes.upper)
        try:
            slow = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for connection in slow:
                connection.settimeout(PATIENCE)
                connection.connect(str(directory / "s"))
            until(lambda: flags(worker, os.O_ASYNC) == 3, "all of them are parked")
            for connection in slow:
                connection.sendall(b"slo")
                assert finish(connection, b"w") == b"SLOW"
        finally:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
            listener.close()


def test_a_client_alone_does_not_wake_every_worker_in_turn() -> None:
    with temporary_directory() as directory:
        listener, _ = unix_socket.listen(os.fsencode(directory / "s"), 0o700, -1, -1)
        first = working(listener, lambda _: b"first")
        second = working(listener, lambda _: b"second", needed=lambda: False)
        try:
            shares = []
            for _ in range(5):
                answers = []
                for _ in range(300):
                    connection = socket.socket(socket.AF_UNIX)
                    connection.connect(str(directory / "s"))
                    answers.append(finish(connection, b"x"))
                assert set(answers) <= {b"first", b"second"}
                shares.append(answers.count(b"second") / len(answers))
            # An eighth where nothing else runs, a half if it did not yield; where much runs, one round may be odd.
            assert median(shares) < 0.4
        finally:
            for pid in (first, second):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            listener.close()


def working(listener: socket.socket, respond: stream.Respond, needed: Callable[[], bool] = lambda: True) -> int:
    """The process id of a worker that never stops."""
    pid = os.fork()
    if pid:
        return pid
    try:
        stream.Worker(
            listener, respond, limit=512, timeout=3600, stopping=bool, afterwards=int, idle=int, needed=needed
        ).run()
    finally:
        os._exit(1)


def flags(pid: int, flag: int) -> int:
    """How many open files of a process have this flag."""
    files = Path(f"/proc/{pid}/fdinfo").iterdir()
    return sum(1 for file in files if int(file.read_text().split("flags:")[1].split()[0], 8) & flag)


# -- odd requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [513, 600, 4096, 100_000, 1_000_000])
def test_an_over_long_request_is_answered_and_not_reset(patient: Server, size: int) -> None:
    assert finish(patient.connect(), b"\2" + bytes(size - 1)) == OVERSIZE


@pytest.mark.parametrize("size", [513, 600, 100_000])
def test_an_over_long_request_in_pieces_is_answered_and_not_reset(patient: Server, size: int) -> None:
    connection = patient.connect()
    for start in range(0, size, step := max(1, size // 5)):
        connection.sendall(bytes(min(step, size - start)))
        assert patient.ask("joe").code == 0
    assert finish(connection) == OVERSIZE


def test_a_flood_without_end_is_cut_off_and_others_are_served(patient: Server) -> None:
    with patient.connect() as connection:
        assert pours(connection, 64 << 20) < 64 << 20
    assert patient.ask("joe").code == 0


def test_a_request_of_512_bytes_is_answered(patient: Server) -> None:
    packet = request("joe")[:-1]
    for length in (255, 512 - len(packet) - 257 - 2 - 1):
        packet += bytes([99, length]) + bytes(length)
    packet += b"\0"
    assert len(packet) == 512
    assert users_in(finish(patient.connect(), packet)) == b"joe"


def test_an_empty_connection_is_closed_without_a_word(patient: Server) -> None:
    assert finish(patient.connect()) == b""
    for _ in range(20):
        patient.connect().close()
    assert patient.ask("joe").code == 0
    assert "ended with" not in patient.log.read_text()


def test_a_request_in_two_writes_is_answered(patient: Server) -> None:
    packet = request("joe")
    for cut in range(1, len(packet)):
        connection = patient.connect()
        connection.sendall(packet[:cut])
        assert users_in(finish(connection, packet[cut:])) == b"joe"


def test_many_at_once_get_each_its_own_answer(patient: Server) -> None:
    questions = [request(f"ann-{number}", nonce=b"%d" % number) for number in range(300)]
    connections = [patient.connect() for _ in questions]
    for connection, packet in zip(connections, questions, strict=True):
        connection.sendall(packet)
    for connection in reversed(connections):
        connection.shutdown(socket.SHUT_WR)
    nonces = [packets.parse_response(rest(connection)).nonce for connection in connections]
    assert nonces == [b"%d" % number for number in range(300)]


def test_clients_in_parallel_get_each_its_own_answer(patient: Server) -> None:
    wrong: list[bytes] = []

    def asks(number: int) -> None:
        for turn in range(50):
            nonce = b"%d %d" % (number, turn)
            if packets.parse_response(patient.send(request("joe", nonce=nonce))).nonce != nonce:
                wrong.append(nonce)

    threads = [threading.Thread(target=asks, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong
