"""The supervisor: taking over, signals, workers that die, lookups that hang."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hosts import Host, temporary_directory
from serving import (
    AN_HOUR,
    CVM_QMAIL,
    PATIENCE,
    PLUGINS,
    Server,
    alive,
    environment,
    finish,
    free_port,
    request,
    rest,
    run,
    serving,
    until,
)

from cvm_qmail.process.shared_memory import Slots
from cvm_qmail.protocols.cvm import client, packets

pytestmark = pytest.mark.root


def pending(server: Server, account: str) -> socket.socket:
    """A connection whose request is complete."""
    connection = server.connect()
    connection.sendall(request(account))
    connection.shutdown(socket.SHUT_WR)
    return connection


def code(answer: bytes) -> int | None:
    return answer[0] if answer else None


def workers(server: Server, count: int) -> list[int]:
    """The workers, when there are as many."""
    return until(lambda: (found := server.workers()) and len(found) == count and found, f"{count} workers")


def stuck(server: Server, count: int) -> list[int]:
    """The workers whose lookups wait or hang, when there have been as many."""

    def said() -> list[int]:
        return [int(line.split()[1]) for line in server.errors.read_text().splitlines() if line.startswith("stuck ")]

    return until(lambda: (pids := said()) and len(pids) >= count and pids, f"{count} lookups are stuck")


MANY_DESCRIPTORS = """
import os, resource, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard if hard < 0 else max(hard, 2048)))
while (fd := os.dup(0)) < 1100:
    os.set_inheritable(fd, True)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes its arguments, which inherit so many descriptors that their own have numbers from 1100 on."""


@pytest.fixture
def trap(host: Host) -> Host:
    """A host where joe-hang hangs, joe-die takes its worker along, joe-wait and ann-wait wait for the file go."""
    for name, line in {"hang": "|hang", "die": "|die", "raise": "|raise", "wait": f"|wait {host.root}/go"}.items():
        host.file(f"home/joe/.qmail-{name}", line + "\n", uid=5001, gid=5001)
    host.file("home/ann/.qmail-hang", "|hang\n", uid=5002, gid=5002)
    host.file("home/ann/.qmail-wait", f"|wait {host.root}/go\n", uid=5002, gid=5002)
    return host


@contextmanager
def trapped(host: Host, scheme: str = "cvm-local", **more: str) -> Iterator[Server]:
    with serving(host, scheme=scheme, PYTHONPATH=PLUGINS, **more) as server:
        yield server


# -- one server after another -------------------------------------------------------------------------


def test_a_new_server_takes_over_without_one_refused_connection(host: Host) -> None:
    stop = threading.Event()
    answered: list[int] = []
    refused: list[str] = []

    def asks(module: str) -> None:
        while not stop.is_set():
            try:
                answered.append(client.ask(module, b"joe", b"example.org").code)
            except client.NoAnswer as error:
                refused.append(str(error))

    with temporary_directory() as directory, serving(host, path=directory / "s") as old:
        threads = [threading.Thread(target=asks, args=[old.module]) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            generations = [old.process]
            for _ in range(2):
                generations.append(
                    subprocess.Popen(
                        [CVM_QMAIL, "--takeover", old.module],
                        env=environment(host, {}),
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
                assert generations[-2].wait(PATIENCE) == 0
            so_far = len(answered)
            until(lambda: len(answered) > so_far + 50, "the last server answers")
            assert old.path.is_socket()
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
            generations[-1].terminate()
            assert generations[-1].wait(PATIENCE) == 0
        assert refused == []
        assert set(answered) == {0}
        assert "Another server has taken over." in old.log.read_text()
        assert not old.path.exists()


def test_a_server_that_was_replaced_finishes_what_it_has_begun(trap: Host) -> None:
    with temporary_directory() as directory, trapped(trap, path=directory / "s", CVM_LOOKUP_TIMEOUT=AN_HOUR) as old:
        waiting = pending(old, "joe-wait")
        stuck(old, 1)
        with serving(trap, "--takeover", path=directory / "s") as new:
            until(lambda: len(old.workers()) == 1, "only the busy worker is left")
            assert new.ask("joe").code == 0
            (trap.root / "go").touch()
            assert code(rest(waiting)) == 0
            assert old.process.wait(PATIENCE) == 0
            assert new.path.is_socket()


def test_a_server_whose_path_somebody_else_took_leaves_it_alone(server: Server) -> None:
    with socket.socket(socket.AF_UNIX) as other, temporary_directory() as directory:
        other.bind(str(directory / "other"))
        os.rename(directory / "other", server.path)
        assert server.process.wait(PATIENCE) == 0
        assert server.path.is_socket()


def test_sigterm_leaves_a_path_that_is_not_its_own_any_more(server: Server) -> None:
    server.path.unlink()
    server.path.write_text("something else")
    assert server.stop() == 0
    assert server.path.read_text() == "something else"


def test_a_path_that_somebody_deleted_is_made_again(server: Server) -> None:
    for _ in range(2):
        before = times_made_again(server)
        server.path.unlink()
        until(server.path.exists, "the path is there again")
        assert server.ask("joe").code == 0
        until(partial(is_made_again, server, before), "it is logged")
    assert server.stop() == 0
    assert not server.path.exists()


def times_made_again(server: Server) -> int:
    return server.log.read_text().count("was missing; created again")


def is_made_again(server: Server, times: int) -> bool:
    return times_made_again(server) > times


def test_clients_who_came_before_the_path_was_deleted_are_answered(trap: Host) -> None:
    with trapped(trap, CVM_LOCAL_TIMEOUT=AN_HOUR, CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        slow = server.connect()
        slow.sendall(request("joe")[:5])
        waiting = pending(server, "joe-wait")
        stuck(server, 1)
        server.path.unlink()
        until(server.path.exists, "the path is there again")
        assert server.ask("joe").code == 0
        (trap.root / "go").touch()
        assert code(rest(waiting)) == 0
        assert code(finish(slow, request("joe")[5:])) == 0


def test_a_lookup_that_hangs_while_the_path_is_made_again_is_ended_too(trap: Host) -> None:
    with trapped(trap, CVM_LOOKUP_TIMEOUT="3000") as server:
        hanging = pending(server, "joe-hang")
        stuck(server, 1)
        server.path.unlink()
        server.logged("created again")
        assert rest(hanging) == b""
        assert server.ask("ann-x").code == 0


def test_a_directory_that_vanished_is_reported_once_and_the_server_recovers(host: Host) -> None:
    with temporary_directory() as directory, serving(host, path=directory / "run" / "s", wait=False) as missing:
        assert missing.process.wait(PATIENCE) == 111
    with temporary_directory() as directory:
        (directory / "run").mkdir()
        with serving(host, path=directory / "run/s") as server:
            os.rename(directory / "run", directory / "gone")
            server.logged("cannot be created again: No such file or directory")
            first = workers(server, 2)
            os.kill(first[0], signal.SIGKILL)
            until(lambda: first[0] not in server.workers() and len(server.workers()) == 2, "another worker")
            (directory / "run").mkdir()
            server.logged("was missing; created again")
            assert server.ask("joe").code == 0
            assert server.log.read_text().count("cannot be created again") == 1
            assert server.log.read_text().count("ended with") == 1


PASSES_A_SOCKET = """
import os, socket, sys
kind, address, *command = sys.argv[1:]
if kind == "stream":
    passed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    passed.bind(address)
    passed.listen()
else:
    passed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    passed.bind(("127.0.0.1", int(address.rpartition(":")[2])))
os.dup2(passed.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(command[0], command)
"""


def test_a_passed_unix_socket_is_served_and_left_alone(host: Host) -> None:
    with temporary_directory() as directory:
        path = directory / "s"
        wrapper = (sys.executable, "-c", PASSES_A_SOCKET, "stream", path)
        with serving(host, path=path, wrapper=wrapper) as server:
            inode = path.lstat().st_ino
            assert server.ask("joe").code == 0
            assert server.ask("nobody").code == 100
            assert server.stop() == 0
            assert path.lstat().st_ino == inode


def test_a_passed_udp_socket_is_served(host: Host) -> None:
    port = free_port()
    wrapper = (sys.executable, "-c", PASSES_A_SOCKET, "datagram", f"x:{port}")
    with serving(host, wrapper=wrapper, scheme="cvm-udp") as server:
        assert client.ask(f"cvm-udp:127.0.0.1:{port}", b"joe", b"example.org").code == 0
        assert server.stop() == 0


def test_a_passed_socket_of_the_wrong_kind_is_refused(host: Host) -> None:
    with temporary_directory() as directory:
        wrapper = (sys.executable, "-c", PASSES_A_SOCKET, "stream", directory / "s")
        with serving(host, wrapper=wrapper, scheme="cvm-udp", wait=False) as server:
            assert server.process.wait(PATIENCE) == 100
            assert "LISTEN_FDS: found a socket of type SOCK_STREAM, expected SOCK_DGRAM" in server.errors.read_text()


@pytest.mark.parametrize("what", ["3>&-", "3</dev/null"], ids=["closed", "a device"])
def test_what_is_passed_and_is_no_socket_is_named(host: Host, what: str) -> None:
    wrapper = ("sh", "-c", f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" {what}', "sh")
    with serving(host, wrapper=wrapper, wait=False) as server:
        assert server.process.wait(PATIENCE) == 100
        assert "cvm-qmail: LISTEN_FDS: descriptor 3: " in server.errors.read_text()


def test_a_socket_that_was_passed_to_another_process_is_not_taken(host: Host) -> None:
    with serving(host, LISTEN_PID="1", LISTEN_FDS="1") as server:
        assert server.ask("joe").code == 0


# -- signals ------------------------------------------------------------------------------------------


def test_sigterm_ends_with_0_and_removes_the_socket(server: Server) -> None:
    assert server.ask("joe").code == 0
    assert server.stop() == 0
    assert not server.path.exists()
    lines = server.log.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("Starting.", "Stopping.")


def test_sigint_does_the_same(server: Server) -> None:
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(PATIENCE) == 0
    assert not server.path.exists()


def test_sigint_for_the_whole_group_as_a_terminal_sends_it_does_the_same(host: Host) -> None:
    with serving(host, wrapper=["setsid"]) as server:
        assert server.ask("joe").code == 0
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
        assert "ended with" not in server.log.read_text()


@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_sigterm_finishes_the_current_lookup(trap: Host, scheme: str) -> None:
    with trapped(trap, scheme, CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(server.ask("joe-wait", timeout=PATIENCE).code), daemon=True
        )
        asking.start()
        stuck(server, 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: len(server.workers()) == 1, "only the busy worker is left")
        assert server.process.poll() is None
        (trap.root / "go").touch()
        asking.join(PATIENCE)
        assert answers == [0]
        assert server.process.wait(PATIENCE) == 0


def test_sigterm_lets_slow_clients_finish(host: Host) -> None:
    with serving(host, CVM_LOCAL_TIMEOUT=AN_HOUR) as server:
        slow = [server.connect() for _ in range(10)]
        for connection in slow:
            connection.sendall(request("joe")[:5])
        server.ask("joe")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not server.path.exists(), "the path is gone")
        assert [code(finish(connection, request("joe")[5:])) for connection in slow] == [0] * 10
        assert server.process.wait(PATIENCE) == 0


def test_sigterm_answers_connections_that_nobody_has_taken_yet(trap: Host) -> None:
    with trapped(trap, CVM_WORKERS="1", CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        waiting = [pending(server, "joe-wait") for _ in range(3)]  # the worker, and its two spares
        stuck(server, 3)
        queued = [pending(server, "joe") for _ in range(20)]
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not server.path.exists(), "the path is gone")
        (trap.root / "go").touch()
        assert [code(rest(connection)) for connection in waiting + queued] == [0] * 23
        assert server.process.wait(PATIENCE) == 0


def test_sigterm_the_moment_it_has_started_ends_it_at_once(host: Host) -> None:
    for _ in range(5):
        with serving(host, CVM_WORKERS="8", CVM_LOCAL_TIMEOUT=AN_HOUR) as server:  # a deaf worker would wait for it
            assert server.stop() == 0


def test_sighup_is_harmless_to_supervisor_and_workers(server: Server) -> None:
    pids = workers(server, 2)
    for pid in [server.process.pid, *pids] * 3:
        os.kill(pid, signal.SIGHUP)
    assert {server.ask("joe").code for _ in range(20)} == {0}
    for pid in pids:
        until(partial(is_at_rest, pid), "the worker is at rest")
    assert workers(server, 2) == pids


def is_at_rest(pid: int) -> bool:
    return all(state(pid) == "S" for _ in range(200))


def is_replaced(server: Server, pid: int) -> bool:
    return pid not in server.workers() and len(server.workers()) == 2


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- workers ------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced(server: Server) -> None:
    for _ in range(3):
        pids = workers(server, 2)
        os.kill(pids[0], signal.SIGKILL)
        until(partial(is_replaced, server, pids[0]), "another worker")
        assert server.ask("joe").code == 0
    assert server.logged("ended with signal 9")


def test_a_worker_that_is_to_stop_finishes_and_is_replaced(trap: Host) -> None:
    with trapped(trap, CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        waiting = pending(server, "joe-wait")
        [pid] = stuck(server, 1)
        os.kill(pid, signal.SIGTERM)
        assert server.ask("joe").code == 0
        (trap.root / "go").touch()
        assert code(rest(waiting)) == 0
        until(lambda: pid not in server.workers() and len(server.workers()) == 2, "another worker")


def test_a_lookup_that_takes_its_worker_along_is_temporary_and_others_go_on(trap: Host) -> None:
    with trapped(trap) as server:
        for _ in range(3):
            assert server.send(request("joe-die")) == b""
            assert server.ask("ann-x").code == 0
        server.logged("ended with signal 9")


def test_what_nobody_foresaw_is_temporary_and_logged(trap: Host) -> None:
    with trapped(trap) as server:
        assert server.ask("joe-raise") == packets.Response(4, b"", ())
        assert "RuntimeError at" in server.logged("? joe-raise@example.org")
        assert "not foreseen" not in server.log.read_text()
        assert "ended with" not in server.log.read_text()


@pytest.mark.parametrize("asked", [[], ["joe", "ann-x", "postmaster", "nobody"]])
def test_workers_die_with_their_supervisor(server: Server, asked: list[str]) -> None:
    for name in asked * 10:  # looking with other users' rights makes the kernel forget who wants to hear of deaths
        server.ask(name)
    pids = workers(server, 2)
    server.process.kill()
    server.process.wait(PATIENCE)
    until(lambda: not any(map(alive, pids)), "the workers are gone")


def test_a_worker_that_hangs_dies_with_its_supervisor_too(trap: Host) -> None:
    with trapped(trap, CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        hanging = pending(server, "joe-hang")
        [pid] = stuck(server, 1)
        server.process.kill()
        assert rest(hanging) == b""
        until(lambda: not alive(pid), "the worker is gone")


def test_a_server_that_was_killed_is_followed_by_another(server: Server, host: Host) -> None:
    assert {server.ask(name).code for name in ("joe", "ann-x")} == {0}
    server.process.kill()
    server.process.wait(PATIENCE)
    until(lambda: not answering(server.path), "nobody answers any more")
    with serving(host, path=server.path) as following:
        assert following.ask("joe").code == 0


def answering(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


# -- lookups that hang -------------------------------------------------------------------------------


def test_what_was_gathered_under_load_is_in_the_log_soon(host: Host) -> None:
    with serving(host, CVM_WORKERS="1") as server:
        for _ in range(100):
            pending(server, "nobody-knows").close()
        until(lambda: server.log.read_text().count("nobody-knows@") == 100, "100 lines")


def test_no_gathered_line_is_lost_when_the_server_ends(host: Host) -> None:
    with serving(host) as server:
        for _ in range(100):
            server.ask("somebody", "elsewhere.example")
        server.stop()
        assert server.log.read_text().count("somebody@") == 100


def test_a_lookup_that_hangs_is_ended_at_the_deadline_and_others_go_on(trap: Host) -> None:
    with trapped(trap, CVM_LOOKUP_TIMEOUT="1000") as server:
        began = time.monotonic()
        hanging = pending(server, "joe-hang")
        assert {server.ask("ann-x").code for _ in range(50)} == {0}
        assert rest(hanging) == b""
        assert time.monotonic() - began >= 1
        assert f"at {trap.root}/home/joe" in server.logged("killed: its lookup took 1 seconds")
        assert server.ask("ann-x").code == 0


def test_a_server_with_more_descriptors_than_select_can_take_serves(trap: Host) -> None:
    crowded = (sys.executable, "-c", MANY_DESCRIPTORS)
    more = {"PYTHONPATH": PLUGINS, "CVM_LOOKUP_TIMEOUT": "300"}
    with serving(trap) as other, serving(trap, wrapper=crowded, CVM_SHADOW=other.module, **more) as server:
        assert server.ask("ann").code == 0
        assert rest(pending(server, "joe-hang")) == b""
        assert server.ask("ann").code == 0
        assert server.stop() == 0
        assert "Error" not in server.log.read_text() + server.errors.read_text()


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_over_udp_the_supervisor_answers_for_a_lookup_that_hangs(trap: Host, address: str) -> None:
    module = f"cvm-udp:{address}:{free_port()}"
    log = trap.root / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [CVM_QMAIL, module],
            env=environment(trap, {"PYTHONPATH": PLUGINS, "CVM_LOOKUP_TIMEOUT": "1000"}),
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    try:
        until(lambda: "Starting." in log.read_text(), "the server starts")
        family = socket.AF_INET6 if ":" in address.strip("[]") else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(PATIENCE)
            asking.connect((address.strip("[]"), int(module.rpartition(":")[2])))
            asking.send(request("joe-hang", nonce=b"12345678"))
            assert client.ask(module, b"ann-x", b"example.org").code == 0
            assert asking.recv(1024) == b"\4\x0812345678\0"
            asking.send(request("joe", nonce=b"87654321"))
            assert asking.recv(1024) == b"\4\x0887654321\0"  # the home that hung is quarantined
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_in_command_mode_a_lookup_that_hangs_is_answered_4(trap: Host) -> None:
    done = run(host=trap, data=request("joe-hang", nonce=b"abc"), PYTHONPATH=PLUGINS, CVM_LOOKUP_TIMEOUT="300")
    assert (done.returncode, done.stdout) == (4, b"\4\3abc\0")
    assert b"took longer than 0.3 seconds" in done.stderr


def test_when_all_workers_hang_spare_ones_serve(trap: Host) -> None:
    with trapped(trap, CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        hanging = [pending(server, "joe-wait"), pending(server, "ann-wait")]
        stuck(server, 2)
        assert {server.ask("postmaster").code for _ in range(20)} == {0}
        assert len(server.workers()) > 2
        hanging += [pending(server, "joe-wait"), pending(server, "ann-wait")]  # the bound: as many again, twice
        stuck(server, 4)
        assert server.ask("postmaster").code == 0
        (trap.root / "go").touch()
        assert [code(rest(connection)) for connection in hanging] == [0] * 4


def test_when_everything_hangs_all_are_answered_at_the_deadline(trap: Host) -> None:
    with trapped(trap, CVM_LOOKUP_TIMEOUT="1000", CVM_WORKERS="1") as server:
        hanging = [pending(server, "joe-hang") for _ in range(12)]
        assert {code(rest(connection)) for connection in hanging} == {None, 4}
        assert server.ask("ann-x").code == 0
        until(lambda: len(server.workers()) <= 3, "no more than the bound")


def test_the_home_that_hung_is_in_quarantine_and_others_are_not(trap: Host) -> None:
    with trapped(trap, CVM_LOOKUP_TIMEOUT="1000") as server:
        assert server.send(request("joe-hang")) == b""
        server.logged("killed")
        for name in ("joe-hang", "joe", "joe-foo", "joe-nothing"):
            assert server.ask(name).code == 4
        assert " hang-backoff " in server.logged("? joe-foo@example.org")
        assert {server.ask(name).code for name in ("ann", "ann-x", "postmaster")} == {0}
        assert server.ask("joe", "elsewhere.example").code == 100
        assert server.log.read_text().count("killed") == 1


def test_a_fifo_as_qmail_file_hangs_nobody(host: Host) -> None:
    for uid, name in ((5001, ".qmail"), (5001, ".qmail-foo"), (5002, ".qmail-x")):
        path = host.root / "home" / {5001: "joe", 5002: "ann"}[uid] / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        os.chown(path, uid, uid)
    with serving(host, CVM_QMAIL_LOOKASIDE="vdelivermail", CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        assert server.ask("joe").code == 0
        assert server.ask("joe-foo").code == 100
        assert server.ask("ann-x").code == 0  # .qmail-default


def test_a_sender_address_survives_the_way_through_shared_memory() -> None:

    slots = Slots(2)
    for sender in (("127.0.0.1", 40000), ("fe80::1%" + "e" * 15, 65535, 0, 2)):
        slots[1].received(b"x" * 513, sender)
        packet, address = slots[1].question
        assert (packet, tuple(json.loads(address))) == (b"x" * 513, sender)


def test_a_place_is_in_quarantine_for_ten_seconds() -> None:
    from cvm_qmail.answer import Unavailable
    from cvm_qmail.process.shared_memory import QUARANTINE

    now = [1000.0]
    slots = Slots(1, lambda: now[0])
    long = b"/home/" + b"x" * 300

    def refused(place: bytes) -> bool:
        try:
            slots[0].mark(place)
        except Unavailable:
            return True
        return False

    slots[0].mark(long)
    for place in (b"/home/joe", slots[0].resource):
        slots.quarantine(place)
    now[0] += QUARANTINE - 0.1
    slots.forget()
    assert [refused(place) for place in (b"/home/joe", b"/home/jo", b"/home/joe/x", long)] == [True, False, False, True]
    now[0] += 0.2
    slots.forget()
    assert not refused(b"/home/joe")
    for number in range(200):
        slots.quarantine(b"/%d" % number)
    assert refused(b"/199")
