"""cvmctl bench: load for real servers, ours and the C one, and what is shown of it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from end_to_end.test_c_program import C_PROGRAM, c_serving, wrapped
from hosts import Host
from serving import CVM_QMAIL, PATIENCE, Server, alive, environment, serving, until

CVMCTL = Path(sys.executable).with_name("cvmctl")

pytestmark = pytest.mark.root

ADDRESSES = "joe@example.org\t0\nnobody@example.org\t100\nx@elsewhere.example\n\njoe-foo@example.org\n"
CODES = {"0": 30, "100": 30}
"""Of sixty answers."""

NEVER_LATE = ("--late", "3600000")
"""However slow this machine is."""


def bench(*arguments: str, given: str = "", **more: str | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CVMCTL, "bench", *NEVER_LATE, *arguments],
        env=environment(None, more),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def measured(*arguments: str, given: str = ADDRESSES, status: int = 0, **more: str | None) -> Any:
    done = bench("--json", "-f", "-", *arguments, given=given, **more)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_every_answer_is_counted_by_its_code(server: Server) -> None:
    found = measured("-n", "60", "-c", "3", server.module)
    assert (found["requests"], found["clients"], found["addresses"]) == (60, 3, 4)
    assert found["answers"] == CODES
    assert found["wrong"] == found["late"] == found["lost"] == {}
    assert sum(row["answers"] for row in found["histogram"]) == 60
    of = found["microseconds"]
    assert 0 < of["least"] <= of["50%"] <= of["90%"] <= of["99%"] <= of["99.9%"] <= of["most"]
    assert of["least"] <= of["mean"] <= of["most"]
    assert found["rate"] == pytest.approx(60 / found["seconds"], rel=1e-3)


def test_it_asks_for_as_long_as_was_demanded(server: Server) -> None:
    found = measured("-t", "0.2", "-c", "1", server.module)
    assert found["seconds"] >= 0.2
    assert found["requests"] > 0


def test_it_asks_no_faster_than_was_demanded(server: Server) -> None:
    found = measured("-n", "9", "-c", "2", "--rate", "40", server.module)
    assert found["requests"] == 9
    assert found["seconds"] >= 8 / 40
    with bench_running("-n", "2", "-c", "1", "--rate", "0.001", server.module, "joe-new@example.org") as running:
        until(lambda: server.log.read_text().count("joe-new") == 2, "it asks, after it has looked who is there")
        running.send_signal(signal.SIGINT)
        assert json.loads(running.communicate(timeout=PATIENCE)[0])["requests"] == 1


@pytest.mark.parametrize("clients", [1, 4, 5])
def test_as_many_requests_as_addresses_ask_for_each_once(server: Server, clients: int) -> None:
    names = [f"of-{clients}-clients-{number}@example.org" for number in range(6)]
    measured("-n", "6", "-c", str(clients), server.module, given="".join(f"{name}\n" for name in names))

    def asked() -> list[str]:
        return [line.split()[1] for line in server.log.read_text().splitlines() if f" of-{clients}-" in line]

    until(lambda: len(asked()) > 6, "all are logged")
    assert sorted(asked()) == sorted([names[0], *names]), "the first is asked for once more, to see who is there"


@pytest.mark.peer("cvm-testclient")
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_the_c_program_bears_it_too(host: Host, scheme: str) -> None:
    with c_serving(host, scheme=scheme) as c:
        assert measured("-n", "60", "-c", "3", c.module)["answers"] == CODES
        assert c.process.poll() is None


@pytest.mark.peer("cvm-testclient")
@pytest.mark.parametrize("program", [CVM_QMAIL, C_PROGRAM], ids=["ours", "the C program"])
def test_a_command_is_started_for_each_request(host: Host, program: Path) -> None:
    variables: dict[str, str | None] = {**host.environment, **wrapped(host)}
    found = measured("-n", "8", "-c", "2", f"cvm-command:{program}", **variables)
    assert found["answers"] == {"0": 4, "100": 4}


@pytest.mark.parametrize("version", [[], ["--v1"]], ids=["version 2", "version 1"])
def test_the_secret_comes_from_the_environment(host: Host, version: list[str]) -> None:
    with serving(host, CVM_LOOKUP_SECRET="s3cret") as server:
        asking = [*version, "-n", "60", "-c", "2", server.module]
        assert measured(*asking, CVM_LOOKUP_SECRET="s3cret")["answers"] == CODES
        found = measured(*asking, status=1, CVM_LOOKUP_SECRET=None)
    assert (found["answers"], found["wrong"]) == ({"7": 60}, {"7": 30}), "the file says which codes it expects of half"


def test_a_code_other_than_the_file_says_is_wrong(server: Server) -> None:
    found = measured("-n", "10", "-c", "1", server.module, given="joe@example.org\t100\nann@example.org\n", status=1)
    assert found["wrong"] == {"0": 5}


def test_an_answer_that_changes_is_wrong(host: Host, server: Server) -> None:
    with bench_running("-t", "3600", "-c", "1", server.module, "joe-new@example.org") as running:
        until(lambda: server.log.read_text().count("joe-new") > 5, "it asks")
        host.file("home/joe/.qmail-new", uid=5001, gid=5001)
        until(lambda: "+ joe-new" in server.log.read_text(), "it gets another answer")
        running.send_signal(signal.SIGINT)
        found = json.loads(running.communicate(timeout=PATIENCE)[0])
    assert running.returncode == 1
    assert found["wrong"] == {"0": found["answers"]["0"]}


@contextmanager
def bench_running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([CVMCTL, "bench", *NEVER_LATE, "--json", *arguments], stdout=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


def test_an_answer_that_takes_its_time_is_late(server: Server) -> None:
    found = measured("-n", "60", "-c", "2", "--late", "0.001", server.module, status=1)
    assert found["late"] == CODES


@pytest.mark.peer("cvm-testclient")
def test_an_interrupt_ends_it_early_with_what_there_is_and_the_c_program_lives(host: Host) -> None:
    with c_serving(host) as c, bench_running("-t", "3600", "-c", "3", c.module, "joe@example.org") as running:
        until(lambda: c.log.read_text().count("joe@") > 10, "it asks")
        running.send_signal(signal.SIGINT)
        found = json.loads(running.communicate(timeout=PATIENCE)[0])
        assert running.returncode == 0
        assert found["requests"] == found["answers"]["0"] > 10
        assert c.ask("joe").code == 0, "no connection was left without its request"


@contextmanager
def closing(path: Path, answers: int) -> Iterator[str]:
    """A module that gives this many answers, and then closes every connection without one."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE)

        def serve() -> None:
            for number in range(answers + 3):
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(512):
                        pass
                    if number < answers:
                        connection.sendall(b"\4\0\0")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"cvm-local:{path}"
        thread.join(PATIENCE)


def test_an_answer_that_does_not_come_is_lost(tmp_path: Path) -> None:
    with closing(tmp_path / "socket", 3) as module:
        found = measured("-n", "5", "-c", "1", module, given="joe@example.org\n", status=1)
    assert found["answers"] == {"4": 2}, "the first one was asked before"
    assert found["lost"] == {f"{module}: closed without an answer": 3}


def test_a_module_that_is_not_there_is_reported_at_once(tmp_path: Path) -> None:
    done = bench(f"cvm-local:{tmp_path}/nothing", "joe@example.org")
    assert (done.returncode, done.stdout) == (111, "")
    assert "No such file or directory" in done.stderr


def test_people_see_a_table_percentiles_and_a_histogram(server: Server) -> None:
    done = bench("-n", "60", "-c", "2", server.module, "joe@example.org", "nobody@example.org")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{server.module}: 2 clients, 2 addresses"
    assert "   0  SUCCESS        30      0     0" in lines
    assert "lost: 0" in lines
    assert re.search(r"^60 requests in \d+\.\d\d s, [\d,]+ answers a second$", done.stdout, re.MULTILINE)
    assert re.search(r"^99\.9 % +[\d.]+ [mu]?s$", done.stdout, re.MULTILINE)
    assert re.search(r"^ *[\d.]+ [mu]?s +[\d.]+ [mu]?s +\d+  #{40}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "given", "status", "said"),
    [
        (["cvm-local:/x"], "", 2, "no address to ask for"),
        (["cvm-udp:nowhere", "a@b"], "", 2, "expected host:port"),
        (["cvm-local:/x", "a" * 300], "", 100, "value of 300 bytes, expected at most 255"),
        (["-f", "-", "cvm-local:/x"], "a@b\nc@d\tyes\n", 100, "-, line 2: found 'yes' behind the tab"),
        (["-f", "-", "cvm-local:/x"], "a@b\t256\n", 100, "expected a code from 0 to 255"),
        (["-f", "/nothing", "cvm-local:/x"], "", 111, "/nothing"),
    ],
)
def test_what_cannot_be_asked_is_reported_in_words(arguments: list[str], given: str, status: int, said: str) -> None:
    done = bench(*arguments, given=given)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_client_outlives_the_command(server: Server) -> None:
    with bench_running("-t", "3600", "-c", "2", server.module, "joe@example.org") as running:
        children = until(lambda: _children(running.pid), "the clients")
        running.kill()
        running.wait(PATIENCE)
    until(lambda: not any(map(alive, children)), "the clients have gone")


def _children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found if len(found) == 2 else []
