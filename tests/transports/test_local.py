"""The Unix socket: slow, silent, hasty and rude clients; the path."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import Host, a_folder, plain_host
from serving import AN_HOUR, CVM_QMAIL, PATIENCE, Server, finish, request, rest, run, serving, until

from cvm_qmail import wire
from cvm_qmail.transports import local
from cvm_qmail.wire import Fact

pytestmark = pytest.mark.root

OVERSIZE = b"\2\0\0"
C_SERVER = Path("/usr/bin/cvm-qmail")


@pytest.fixture(scope="module")
def patient() -> Iterator[Server]:
    """A server that gives its clients all the time in the world."""
    with a_folder() as folder, serving(plain_host(folder), CVM_LOCAL_TIMEOUT=AN_HOUR) as running:
        yield running


def users_in(answer: bytes) -> bytes:
    response = wire.parse_response(answer)
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
        silent = [server.connect() for _ in range(local.PARKED_LIMIT + 40)]
        assert server.ask("joe").code == 0
        assert [rest(connection) for connection in silent[:40]] == [b""] * 40
        assert users_in(finish(silent.pop(), request("joe"))) == b"joe"
        for connection in silent:
            connection.close()


def test_a_worker_that_waits_for_a_connection_is_woken_by_a_slow_client_and_not_by_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "IDLE", 3600.0)
    with a_folder() as folder:
        listener, _ = local.listen(os.fsencode(folder / "s"), 0o700, -1, -1)
        worker = working(listener, bytes.upper)
        try:
            slow = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for connection in slow:
                connection.settimeout(PATIENCE)
                connection.connect(str(folder / "s"))
            until(lambda: flags(worker, os.O_ASYNC) == 3, "all of them are parked")
            for connection in slow:
                connection.sendall(b"slo")
                assert finish(connection, b"w") == b"SLOW"
        finally:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
            listener.close()


def test_a_client_alone_does_not_wake_every_worker_in_turn() -> None:
    with a_folder() as folder:
        listener, _ = local.listen(os.fsencode(folder / "s"), 0o700, -1, -1)
        first = working(listener, lambda _: b"first")
        second = working(listener, lambda _: b"second", needed=lambda: False)
        try:
            answers = []
            for _ in range(1000):
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(str(folder / "s"))
                answers.append(finish(connection, b"x"))
            assert set(answers) <= {b"first", b"second"}
            assert answers.count(b"second") < len(answers) / 3
        finally:
            for pid in (first, second):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            listener.close()


def working(listener: socket.socket, respond: local.Respond, needed: Callable[[], bool] = lambda: True) -> int:
    """The process id of a worker that never stops."""
    pid = os.fork()
    if pid:
        return pid
    try:
        local.Worker(listener, respond, timeout=3600, stopping=bool, afterwards=int, idle=int, needed=needed).run()
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
    packets = [request(f"ann-{number}", nonce=b"%d" % number) for number in range(300)]
    connections = [patient.connect() for _ in packets]
    for connection, packet in zip(connections, packets, strict=True):
        connection.sendall(packet)
    for connection in reversed(connections):
        connection.shutdown(socket.SHUT_WR)
    nonces = [wire.parse_response(rest(connection)).nonce for connection in connections]
    assert nonces == [b"%d" % number for number in range(300)]


def test_clients_in_parallel_get_each_its_own_answer(patient: Server) -> None:
    wrong: list[bytes] = []

    def asks(number: int) -> None:
        for turn in range(50):
            nonce = b"%d %d" % (number, turn)
            if wire.parse_response(patient.send(request("joe", nonce=nonce))).nonce != nonce:
                wrong.append(nonce)

    threads = [threading.Thread(target=asks, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


# -- the path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "mode", "uid", "gid"),
    [
        ({}, 0o777, 0, 0),
        ({"CVM_SOCKET_MODE": "0600"}, 0o600, 0, 0),
        ({"CVM_SOCKET_MODE": "660", "CVM_SOCKET_OWNER": "5001", "CVM_SOCKET_GROUP": "5002"}, 0o660, 5001, 5002),
        ({"CVM_SOCKET_OWNER": "daemon"}, 0o777, 1, 1),
        ({"CVM_SOCKET_OWNER": "1"}, 0o777, 1, 0),
        ({"CVM_SOCKET_OWNER": "daemon", "CVM_SOCKET_GROUP": "bin"}, 0o777, 1, 2),
        ({"CVM_SOCKET_GROUP": "5002"}, 0o777, 0, 5002),
    ],
)
def test_mode_owner_and_group_are_those_of_the_settings(
    host: Host, settings: dict[str, str], mode: int, uid: int, gid: int
) -> None:
    with serving(host, **settings) as server:
        st = server.path.lstat()
        assert stat.S_ISSOCK(st.st_mode)
        assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (mode, uid, gid)


def test_the_socket_never_has_its_name_before_its_mode_and_owner(host: Host) -> None:
    with a_folder() as folder:
        seen = set()
        with serving(host, path=folder / "s", wait=False, CVM_SOCKET_MODE="0640", CVM_SOCKET_OWNER="5001") as server:

            def listening() -> bool:
                try:
                    st = server.path.lstat()
                except FileNotFoundError:
                    return False
                seen.add((stat.S_IMODE(st.st_mode), st.st_uid))
                return "Starting." in server.log.read_text()

            until(listening)
            assert seen == {(0o640, 5001)}
            assert os.listdir(folder) == ["s"]


def test_a_relative_path_is_served_and_removed(host: Host) -> None:
    with a_folder() as folder:
        with serving(host, path=Path(os.path.relpath(folder)) / "s") as server:
            assert (folder / "s").is_socket()
            assert server.ask("joe").code == 0
        assert not (folder / "s").exists()


def test_a_path_too_long_for_a_socket_is_refused(host: Host) -> None:
    path = "/tmp/" + "x" * (local.PATH_LIMIT - 4)
    done = run(f"cvm-local:{path}", host=host)
    assert done.returncode == 100
    assert b"108 bytes, expected at most 107" in done.stderr


def test_the_longest_path_is_served(host: Host) -> None:
    with a_folder() as folder:
        path = folder / ("x" * (local.PATH_LIMIT - len(str(folder)) - 1))
        assert len(str(path)) == local.PATH_LIMIT
        with serving(host, path=path) as server:
            assert server.ask("joe").code == 0
        assert not path.exists()


def test_what_a_dead_server_left_is_replaced(host: Host) -> None:
    with a_folder() as folder:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / "s"))
        with serving(host, path=folder / "s") as server:
            assert server.ask("joe").code == 0


@pytest.mark.parametrize("option", [[], ["--takeover"]])
def test_what_is_not_a_socket_is_never_replaced(host: Host, option: list[str]) -> None:
    with a_folder() as folder:
        (folder / "s").write_text("precious")
        done = run(*option, f"cvm-local:{folder}/s", host=host)
        assert done.returncode == 111
        assert f"{folder}/s exists and is not a socket".encode() in done.stderr
        assert (folder / "s").read_text() == "precious"


@pytest.mark.parametrize("option", [[], ["--takeover"]])
def test_a_dangling_link_is_not_replaced_by_accident(host: Host, option: list[str]) -> None:
    with a_folder() as folder:
        (folder / "s").symlink_to("nowhere")
        done = run(*option, f"cvm-local:{folder}/s", host=host)
        assert done.returncode == 111
        assert (folder / "s").is_symlink()


def test_a_live_servers_path_is_refused_and_its_process_named(server: Server, host: Host) -> None:
    done = run(server.module, host=host)
    assert done.returncode == 111
    assert f"{server.path} is served already, by process {server.process.pid}".encode() in done.stderr
    assert b"--takeover" in done.stderr
    assert server.ask("joe").code == 0


def test_a_live_server_whose_clients_are_silent_is_recognised(patient: Server, host: Host) -> None:
    silent = [patient.connect() for _ in range(20)]
    assert run(patient.module, host=host).returncode == 111
    for connection in silent:
        connection.close()


@pytest.mark.peer("/usr/bin/cvm-qmail")
def test_the_c_server_is_recognised_and_survives(host: Host) -> None:
    with serving(host, program=C_SERVER) as server:
        done = run(server.module, host=host)
        assert done.returncode == 111
        assert f"is served already, by process {server.process.pid}".encode() in done.stderr
        assert server.process.poll() is None
        assert server.send(request("nobody", "elsewhere.example"))[:1] == b"\x64"


def test_a_folder_that_is_not_there_is_named(host: Host) -> None:
    done = run("cvm-local:/tmp/not-there/s", host=host)
    assert done.returncode == 111
    assert b"/tmp/not-there" in done.stderr
    assert b"No such file or directory" in done.stderr


def test_a_folder_that_may_not_be_written_is_named(host: Host) -> None:
    with a_folder() as folder:  # mode 0755, of root
        done = run(
            Path("/usr/bin/setpriv"),
            "--reuid=5001",
            "--regid=5001",
            "--clear-groups",
            CVM_QMAIL,
            f"cvm-local:{folder}/s",
            host=host,
        )
        assert done.returncode == 111
        assert f"{folder}/s".encode() in done.stderr
        assert b"Permission denied" in done.stderr
