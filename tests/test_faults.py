"""Faults injected: whatever cannot be found out is answered "try again later", and the server goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hosts import Host, assign_records, cdb_bytes, temporary_directory
from serving import (
    AN_HOUR,
    CVM_QMAIL,
    PATIENCE,
    PLUGINS,
    Server,
    accepting,
    environment,
    finish,
    request,
    serving,
    until,
)

from cvm_qmail.protocols.cvm import client

pytestmark = pytest.mark.root

YES, NO, TEMPORARY = 0, 100, 4
CONTROLS = ("me", "envnoathost", "locals", "percenthack", "virtualdomains")


# -- control files ------------------------------------------------------------------------------------


def directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def refused(path: Path) -> None:
    path.touch()
    path.chmod(0)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [directory, loop, refused])
@pytest.mark.parametrize("name", CONTROLS)
def test_an_unreadable_control_file_is_temporary_for_every_address(
    server: Server, host: Host, name: str, spoil: Callable[[Path], None]
) -> None:
    spoil(host.root / "control" / name)
    for account, domain in (
        ("joe", "example.org"),
        ("nobody", "example.org"),
        ("x", "elsewhere.example"),
        ("joe", None),
    ):
        assert server.ask(account, domain).code == TEMPORARY
    assert f" control {host.root}/control/{name} " in server.logged("? nobody@example.org")


def test_a_control_file_that_is_a_fifo_hangs_nobody_and_is_empty_as_for_qmail(host: Host) -> None:
    with serving(host, CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        fifo(host.root / "control/locals")
        assert server.ask("joe").code == NO


def test_an_error_of_the_control_files_goes_away_with_its_cause(server: Server, host: Host) -> None:
    for _ in range(20):
        (host.root / "control").rename(host.root / "gone")
        assert server.ask("joe").code == TEMPORARY
        (host.root / "gone").rename(host.root / "control")
        assert server.ask("joe").code == YES


@contextmanager
def again_and_again(action: Callable[[], object]) -> Iterator[None]:
    """In a thread, until the block ends."""
    stop = threading.Event()

    def acts() -> None:
        while not stop.is_set():
            action()

    thread = threading.Thread(target=acts)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)


def replace(host: Host, name: str, *versions: str | bytes) -> None:
    """Each version in turn takes the file's place, as a careful editor does it."""
    for version in versions:
        host.file(f"{name}.new", version).rename(host.root / name)


def test_a_control_file_that_vanishes_and_returns_is_never_half_known(server: Server, host: Host) -> None:
    """Without locals `me` counts: another domain, never a mixture, and never an error."""
    host.control("me", "example.org\n")

    def vanishes() -> None:
        (host.root / "control/locals").unlink()
        replace(host, "control/locals", "example.org\n")

    with again_and_again(vanishes):
        assert {server.ask("joe").code for _ in range(400)} == {YES}


def test_a_control_file_that_is_always_being_written_is_never_taken_for_something_else(
    server: Server, host: Host
) -> None:
    """Replaced by rename, as it should be: both versions name the domain asked for."""
    texts = "example.org\n", "".join(f"{n}.example\n" for n in range(2000)) + "example.org\n"
    with again_and_again(lambda: replace(host, "control/locals", *texts)):
        assert {YES} <= {server.ask("joe").code for _ in range(300)} <= {YES, TEMPORARY}
    assert server.ask("joe").code == YES


# -- users/cdb ----------------------------------------------------------------------------------------


def cdb(host: Host, entries: int) -> bytes:
    lines = [f"=joe:joe:5001:5001:{host.root}/home/joe:::"]
    lines += [f"=x{number:06}:x:5009:5009:/{'y' * 60}:::" for number in range(entries)]
    return cdb_bytes(assign_records(lines))


@pytest.mark.parametrize("entries", [0, 12_000])
def test_a_cdb_that_is_replaced_all_the_time_is_always_one_or_the_other(
    server: Server, host: Host, entries: int
) -> None:
    versions = cdb(host, entries), cdb(host, entries + 7)
    host.file("users/cdb", versions[0])
    with again_and_again(lambda: replace(host, "users/cdb", *versions)):
        assert {YES} <= {server.ask("joe").code for _ in range(300)} <= {YES, TEMPORARY}
    assert server.ask("joe").code == YES


@pytest.mark.parametrize("entries", [0, 12_000])
def test_a_cdb_that_is_cut_short_in_place_kills_nobody(server: Server, host: Host, entries: int) -> None:
    whole = cdb(host, entries)
    path = host.file("users/cdb", whole)
    assert server.ask("joe").code == YES
    for size in (len(whole) // 2, 2048, 100, 1):
        os.truncate(path, size)
        assert server.ask("nobody").code == TEMPORARY
    os.truncate(path, 0)
    assert server.ask("joe").code == TEMPORARY
    host.file("users/cdb", whole)
    assert server.ask("joe").code == YES
    assert "ended with" not in server.log.read_text()


def test_a_cdb_that_is_a_directory_or_a_loop_is_temporary(server: Server, host: Host) -> None:
    for spoil in (directory, loop):
        spoil(host.root / "users/cdb")
        assert server.ask("joe").code == TEMPORARY
        path = host.root / "users/cdb"
        path.unlink() if path.is_symlink() else path.rmdir()
    assert server.ask("joe").code == YES


# -- homes --------------------------------------------------------------------------------------------


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()
    os.chown(path, 5001, 5001)


def gone(path: Path) -> None:
    shutil.rmtree(path)


def home_loop(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path.name)


def closed(path: Path) -> None:
    path.chmod(0)


@pytest.mark.parametrize("spoil", [a_file, gone, home_loop, closed])
def test_a_home_that_its_user_cannot_enter_is_temporary(
    server: Server, host: Host, spoil: Callable[[Path], None]
) -> None:
    host.users("=joe:joe:5001:5001:{root}/home/joe:::", "+joe-:joe:5001:5001:{root}/home/joe:-::")
    assert server.ask("joe-foo").code == YES
    spoil(host.root / "home/joe")
    for account in ("joe", "joe-foo", "joe-nothing"):
        assert server.ask(account).code == TEMPORARY
    assert server.ask("ann-x").code == YES


# -- descriptors --------------------------------------------------------------------------------------


def test_without_descriptors_the_server_stays_up_and_recovers(host: Host) -> None:
    with serving(host, wrapper=["prlimit", "--nofile=24"], CVM_LOCAL_TIMEOUT=AN_HOUR, CVM_WORKERS="1") as server:
        pids = until(server.workers, "it has a worker")
        silent = [server.connect() for _ in range(60)]
        answers = [server.send(request("joe"))[:1] for _ in range(30)]
        assert set(answers) <= {b"", b"\0", b"\4"}  # never a rejection
        assert {server.send(request("nobody"))[:1] for _ in range(30)} <= {b"", b"\x64", b"\4"}
        for connection in silent:
            connection.close()
        until(lambda: server.send(request("joe"))[:1] == b"\0", "it serves again")
        assert {server.send(request("joe"))[:1] for _ in range(30)} == {b"\0"}
        assert server.process.poll() is None
        assert set(pids) <= set(server.workers()), "it has not been replaced"


# -- the log ------------------------------------------------------------------------------------------


@contextmanager
def with_log(host: Host, stdout: int, **more: str) -> Iterator[str]:
    """The module of a server that logs there; it ends in good order."""
    with temporary_directory() as directory:
        process = subprocess.Popen(
            [CVM_QMAIL, f"cvm-local:{directory}/s"],
            env=environment(host, {"CVM_WORKERS": "1", **more}),
            stdout=stdout,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: process.poll() is not None or (directory / "s").exists(), "the server starts")
            yield f"cvm-local:{directory}/s"
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_that_nobody_reads_stops_nobody_and_lost_lines_are_counted(host: Host, form: str) -> None:
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    with with_log(host, writable, CVM_LOG=form) as module:
        os.close(writable)
        asked = 0
        account = b"x" * 200
        for _ in range(2500):  # the pipe takes 64 kB, and the server keeps 256 kB more
            assert client.ask(module, account, b"example.org").code == NO
            asked += 1
        log = b""

        def reads() -> bool:
            nonlocal log, asked
            with suppress(BlockingIOError):
                log += os.read(readable, 1 << 20)
            assert client.ask(module, b"joe", b"example.org").code == YES
            asked += 1
            return b"log lines were lost" in log

        until(reads, "the lost lines are reported")
        assert client.ask(module, b"joe", b"example.org").code == YES
        asked += 1
    log += os.read(readable, 1 << 20)
    os.close(readable)
    lines = log.decode().splitlines()
    [lost] = [int(found[1]) for found in map(re.compile(r"\? (\d+) log lines were lost").search, lines) if found]
    if form == "json":
        mine = [line for line in map(json.loads, lines) if "result" in line]
    else:
        mine = [line for line in lines if re.match(r"[-+] (x{200}|joe)@example.org [a-z]+ [a-z-]+ /\S+ \d+us$", line)]
    assert len(mine) + lost == asked
    assert lost > 0


def test_a_log_whose_reader_is_gone_stops_nobody(host: Host) -> None:
    readable, writable = os.pipe()
    with with_log(host, writable) as module:
        os.close(writable)
        os.close(readable)
        assert {client.ask(module, b"joe", b"example.org").code for _ in range(50)} == {YES}


def test_a_full_disk_under_the_log_stops_nobody(host: Host) -> None:
    with Path("/dev/full").open("wb") as full, with_log(host, full.fileno()) as module:
        assert {client.ask(module, b"joe", b"example.org").code for _ in range(50)} == {YES}


def test_lines_that_wait_when_a_worker_is_forked_are_written_once(host: Host) -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writable, b"." * 4096)
    os.set_blocking(writable, True)
    with with_log(host, writable) as module:
        os.close(writable)
        assert client.ask(module, b"joe", b"example.org").code == YES
        assert os.read(readable, 1 << 20).strip(b".") == b""
        assert client.ask(module, b"ann", b"example.org").code == YES
    with os.fdopen(readable, "rb") as rest_of_it:
        log = rest_of_it.read().decode().lstrip(".").splitlines()
    assert sorted(line[:6] for line in log) == ["+ ann@", "+ joe@", "Starti", "Stoppi"]


# -- many things at once ------------------------------------------------------------------------------


def test_clients_of_every_bad_kind_together_do_not_hold_up_the_good_ones(host: Host) -> None:
    host.file("home/joe/.qmail-die", "|die\n", uid=5001, gid=5001)
    with serving(host, CVM_LOCAL_TIMEOUT=AN_HOUR, PYTHONPATH=PLUGINS) as server:
        silent = [server.connect() for _ in range(50)]
        halves = [server.connect() for _ in range(20)]
        for connection in halves:
            connection.sendall(request("joe")[:7])
        for turn in range(20):
            assert finish(server.connect(), bytes(600)) == b"\2\0\0"
            assert finish(server.connect()) == b""
            with server.connect() as hasty:
                hasty.sendall(request("joe"))
            assert finish(server.connect(), b"\2\xff") == b"\2\0\0"
            if turn % 10 == 5:
                os.kill(server.workers()[0], signal.SIGHUP)
            assert server.ask("joe").code == YES
        for connection in [*silent, *halves]:
            connection.close()
        assert "ended with" not in server.log.read_text()


def test_a_worker_with_little_memory_refuses_a_huge_control_file_and_goes_on(server: Server, host: Host) -> None:
    with host.control("virtualdomains", "").open("wb") as huge:
        huge.truncate(1 << 34)
    assert server.ask("joe").code == TEMPORARY
    host.control("virtualdomains", "")
    assert server.ask("joe").code == YES
    assert "ended with" not in server.log.read_text()


# -- a pipe that is full for a while -----------------------------------------------------------------


@pytest.mark.peer("setpriv")
def test_a_full_pipe_that_another_user_made_stops_nobody(host: Host) -> None:
    """As where root's runsv makes the pipe and chpst -u starts the server."""
    readable, writable = os.pipe()
    with temporary_directory() as directory:
        directory.chmod(0o777)
        module = f"cvm-local:{directory}/socket"
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        server = subprocess.Popen([*nobody, CVM_QMAIL, module], env=environment(host, {}), stdout=writable)
        os.close(writable)
        try:
            until(lambda: accepting(directory / "socket"), "it listens")
            for number in range(3000):
                assert client.ask(module, b"j%d" % number, b"elsewhere.example", timeout=PATIENCE).code == NO
            server.terminate()
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()
            server.wait()
            os.close(readable)


def test_lines_that_waited_arrive_when_somebody_reads_again(host: Host) -> None:
    readable, writable = os.pipe()
    with temporary_directory() as directory:
        module = f"cvm-local:{directory}/socket"
        server = subprocess.Popen([CVM_QMAIL, module], env=environment(host, {"CVM_WORKERS": "1"}), stdout=writable)
        os.close(writable)
        until(lambda: accepting(directory / "socket"), "it listens")
        for number in range(2500):
            client.ask(module, b"j%d" % number, b"elsewhere.example")
        seen = b""

        def all_there() -> bool:
            nonlocal seen
            seen += os.read(readable, 1 << 16)
            return b"j2499@" in seen

        try:
            until(all_there, "every line arrives, though nobody asks any more")
            assert len([line for line in seen.splitlines() if b"@elsewhere.example" in line]) == 2500
        finally:
            server.terminate()
            server.wait(PATIENCE)
            os.close(readable)
