"""Every program under what a careless parent leaves behind: signals, masks, umask, descriptors, environment."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import Host, temporary_directory
from serving import CVM_QMAIL, PATIENCE, environment, request, until

from cvm_qmail.protocols.cvm import client

pytestmark = pytest.mark.root

CVMCTL = CVM_QMAIL.with_name("cvmctl")
GATEWAY = CVM_QMAIL.with_name("cvm-gateway")

State = Callable[[], object]


def ignored(*numbers: signal.Signals) -> State:
    return lambda: [signal.signal(number, signal.SIG_IGN) for number in numbers]


def blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def closed(*descriptors: int) -> State:
    return lambda: [os.close(fd) for fd in descriptors]


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


STATES: dict[str, State] = {
    "SIGINT ignored": ignored(signal.SIGINT),
    "SIGPIPE ignored": ignored(signal.SIGPIPE),
    "SIGCHLD ignored": ignored(signal.SIGCHLD),
    "SIGHUP ignored": ignored(signal.SIGHUP),
    "all of them ignored": ignored(signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM),
    "all signals blocked": blocked,
    "umask 077": lambda: os.umask(0o077),
    "umask 000": lambda: os.umask(0),
    "standard input closed": closed(0),
    "64 files": few_files,
}

VARIABLES: dict[str, dict[str, str | None]] = {
    "no HOME": {"HOME": None},
    "LANG=C": {"LANG": "C", "LC_ALL": "C"},
    "TZ": {"TZ": "Pacific/Kiritimati"},
    "a TMPDIR with blanks": {"TMPDIR": "/tmp/a b"},
}

CASES = [
    *((name, state, {}) for name, state in STATES.items()),
    *((name, lambda: None, more) for name, more in VARIABLES.items()),
]
each_state = pytest.mark.parametrize(("state", "more"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])


@contextmanager
def started(
    command: list[str | Path], host: Host, state: State, more: dict[str, str | None]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A program in that state, and the file with what it prints."""
    with temporary_directory() as directory:
        if temporary := more.get("TMPDIR"):
            os.makedirs(temporary, exist_ok=True)
        out = directory / "out"
        with out.open("wb") as printed:
            process = subprocess.Popen(
                command,
                env=environment(host, more),
                stdout=printed,
                stderr=printed,
                preexec_fn=state,  # noqa: PLW1509  no thread is running here
            )
        try:
            yield process, out
        finally:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(PATIENCE)


@each_state
def test_a_server_serves_replaces_a_dead_worker_and_stops(
    host: Host, state: State, more: dict[str, str | None]
) -> None:
    with temporary_directory() as directory:
        module = f"cvm-local:{directory}/s"
        with started([CVM_QMAIL, module], host, state, {"CVM_WORKERS": "1", **more}) as (server, out):
            until(lambda: "Starting." in out.read_text(), "it has started")
            until(lambda: client.ask(module, b"joe", b"example.org").code == 0, "it answers")
            worker = until(lambda: children(server.pid), "it has a worker")[0]
            os.kill(worker, signal.SIGKILL)
            until(lambda: "another one takes its place" in out.read_text(), "the worker is replaced")
            until(lambda: children(server.pid) and worker not in children(server.pid), "another one is there")
            assert client.ask(module, b"nobody", b"example.org").code == 100
            server.send_signal(signal.SIGTERM)
            assert ended(server) == 0
            assert os.listdir(directory) == []


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@each_state
def test_command_mode_answers(host: Host, state: State, more: dict[str, str | None]) -> None:
    done = subprocess.run(
        [CVM_QMAIL],
        env=environment(host, more),
        input=request("joe"),
        stdout=subprocess.PIPE,
        preexec_fn=state if state is not STATES["standard input closed"] else None,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout[:1]) == (0, b"\0")


@each_state
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trace", "joe@example.org"], "accepted"),
        (["check", "/dev/null"], "all"),
        (["lint"], "found"),
        (["list"], "joe@example.org"),
    ],
    ids=["trace", "check", "lint", "list"],
)
def test_cvmctl_does_its_work(
    host: Host, state: State, more: dict[str, str | None], arguments: list[str], said: str
) -> None:
    with started([CVMCTL, *arguments], host, state, more) as (process, out):
        code = ended(process)
        text = out.read_text()
    assert "Traceback" not in text
    assert said in text, text
    assert code in (0, 1), text  # 1: lint found something


@each_state
def test_cvmctl_ends_at_the_first_interrupt(host: Host, state: State, more: dict[str, str | None]) -> None:
    with (
        temporary_directory() as directory,
        started([CVM_QMAIL, f"cvm-local:{directory}/s"], host, lambda: None, {}) as (_, log),
    ):
        until(lambda: "Starting." in log.read_text(), "the server has started")
        bench = [CVMCTL, "bench", "-n", "100000000", "-c", "2", f"cvm-local:{directory}/s", "joe@example.org"]
        with started(bench, host, state, more) as (process, _):
            until(lambda: len(children(process.pid)) >= 2, "its clients are there")
            process.send_signal(signal.SIGINT)
            ended(process)


@each_state
def test_a_gateway_serves_and_stops(host: Host, state: State, more: dict[str, str | None]) -> None:
    with temporary_directory() as directory:
        module = f"cvm-local:{directory}/s"
        command = [GATEWAY, f"socketmap:unix:{directory}/map"]
        with started(command, host, state, {"CVM_GATEWAY_MODULE": module, **more}) as (gateway, out):
            until(lambda: (directory / "map").exists() or gateway.poll() is not None, "it listens")
            assert gateway.poll() is None, out.read_text()
            gateway.send_signal(signal.SIGTERM)
            assert ended(gateway) == 0, out.read_text()
            assert os.listdir(directory) == []


def test_the_python_that_runs_this_is_that_of_the_programs() -> None:
    assert Path(sys.executable).parent == CVM_QMAIL.parent
