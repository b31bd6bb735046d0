"""What a worker that was taken over cannot do: tried from inside, by a plug-in, as root and as the service's user."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hosts import Host, temporary_directory
from plugins.attempting import ATTEMPTS
from serving import PATIENCE, PLUGINS, Server, serving, until
from tables.test_rights import SERVER, WITH_CAPABILITIES

from cvm_qmail.process import bpf, landlock, policies, sandbox
from cvm_qmail.process.network import NOTHING
from cvm_qmail.process.syscalls import architecture

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer("setpriv"),
    pytest.mark.skipif(not landlock.version(), reason="PEER MISSING: a kernel with Landlock"),
]

USERS = {"root": [], "cvm": WITH_CAPABILITIES}

FILES_ONLY = {"read-memory"}
"""What Landlock or ownership refuses, and no filter sees."""


@pytest.fixture(params=USERS)
def confined(request: pytest.FixtureRequest, host: Host) -> Iterator[Server]:
    """A server in the sandbox; each attempt is an address of joe's."""
    target = host.file("roots", b"root's own\n", mode=0o666)
    with socket.create_server(("127.0.0.1", 0)) as listening, temporary_directory() as directory:
        os.chown(directory, *SERVER)
        for name in ATTEMPTS:
            argument = target
            if name == "connect":
                argument = Path(str(listening.getsockname()[1]))
            elif name == "connect-unix":
                argument = directory / "s"
            host.file(f"home/joe/.qmail-{name}", f"|try {name} {argument}\n", uid=5001, gid=5001)
        more = {"PYTHONPATH": PLUGINS, "CVM_SANDBOX": "required", "CVM_WORKERS": "1"}
        with serving(host, wrapper=USERS[request.param], path=directory / "s", **more) as server:
            yield server
    assert target.read_bytes() == b"root's own\n"
    assert not target.with_name("roots.new").exists()


def replaced(server: Server, before: set[int]) -> None:
    until(lambda: before.isdisjoint(server.workers()) and server.workers(), "another worker takes its place")


def test_nothing_that_harms_succeeds_and_no_answer_rests_on_it(confined: Server) -> None:
    here = architecture()
    assert here is not None
    assert confined.ask("joe").code == 0
    for name in ATTEMPTS:
        before = set(until(confined.workers))
        code = confined.ask(f"joe-{name}").code
        outcome = confined.warned(f"tried {name}: ")
        assert "refused" in outcome, outcome
        number = int(outcome.split()[-1]) - bpf.REFUSED
        if number < 0:
            assert name in FILES_ONLY | {"write-openat2", "netlink"}, outcome
            continue
        assert code == 4, "what was found meanwhile is void"
        line = confined.logged(f"system call {number} (")
        assert re.search(rf"\? worker \d+: the sandbox refused system call {number}  *\(\w+\); another one", line)
        replaced(confined, before)
    assert confined.ask("joe").code == 0
    assert "ended with" not in confined.log.read_text()


@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_a_refused_call_costs_one_request_and_no_other(host: Host, scheme: str) -> None:
    host.file("home/joe/.qmail-fork", b"|try fork x\n", uid=5001, gid=5001)
    more = {"PYTHONPATH": PLUGINS, "CVM_SANDBOX": "required", "CVM_WORKERS": "2"}
    with serving(host, scheme=scheme, **more) as server:
        for _ in range(5):
            assert server.ask("joe-fork").code == 4
            assert [server.ask(name).code for name in ("joe", "nobody", "joe-foo")] == [0, 100, 0]
        # The supervisor may write a line after the worker has answered.
        until(lambda: server.log.read_text().count("the sandbox refused system call") == 5, "each is logged")


def test_a_worker_holds_no_listener_of_another(host: Host) -> None:
    with serving(host, CVM_SANDBOX="required", CVM_WORKERS="3") as server:
        first = until(lambda: len(server.workers()) == 3 and server.workers())
        os.kill(first[0], 9)
        until(lambda: len(set(server.workers()) - set(first)) == 1)
        assert server.ask("joe").code == 0
        for pid in server.workers():  # one that has just been forked still has them
            until(lambda pid=pid: not any("seccomp notify" in link for link in open_files(pid)))


def open_files(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield os.readlink(link)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.parametrize("user", USERS)
def test_every_process_of_a_server_is_in_the_sandbox(host: Host, user: str) -> None:
    with temporary_directory() as directory:
        os.chown(directory, *SERVER)
        with serving(
            host,
            wrapper=USERS[user],
            path=directory / "s",
            CVM_SANDBOX="auto",
            CVM_SHADOW=f"cvm-local:{directory}/other",
        ) as server:
            assert server.ask("joe").code == 0
            for pid in (server.process.pid, *server.workers()):
                status = until(lambda pid=pid: (s := status_of(pid))["Seccomp"] == "2" and s)
                assert status["NoNewPrivs"] == "1"
                limits = Path(f"/proc/{pid}/limits").read_text()
                assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


def test_switched_off_it_is_said_and_refuses_nothing(host: Host) -> None:
    host.file("home/joe/.qmail-fork", b"|try fork x\n", uid=5001, gid=5001)
    with serving(host, CVM_SANDBOX="off", PYTHONPATH=PLUGINS) as server:
        server.warned("CVM_SANDBOX=off")
        assert server.ask("joe-fork").code == 0
        assert "DONE" in server.warned("tried fork")
        until(lambda: {status_of(pid)["NoNewPrivs"] for pid in server.workers()} == {"1"}, "workers gain no rights")


def test_a_shadow_that_is_a_program_and_a_required_sandbox_exclude_each_other(host: Host) -> None:
    with serving(host, CVM_SANDBOX="required", CVM_SHADOW="/bin/false", wait=False) as server:
        assert server.process.wait(20) == 100
        assert "CVM_SHADOW runs a program" in server.errors.read_text()


def test_the_report_says_what_this_process_has_given_up() -> None:
    assert sandbox.report()["process"] == ""
    ready, result = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            network = NOTHING
            sandbox.enter(
                "worker", "required", policies.worker(network, os.getpid()), [landlock.READ_ALL], network.reached
            )
            os.write(result, repr(sandbox.report()).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    said = eval(os.read(ready, 4096))
    assert said == {
        "process": "worker",
        "no_new_privs": True,
        "landlock": landlock.version(),
        "seccomp": True,
        "heard": False,
    }


WITHOUT = """
import os, sys
from cvm_qmail.process import bpf, seccomp
from cvm_qmail.process.network import NOTHING
from cvm_qmail.process.syscalls import architecture
here = architecture()
here_not = {here.numbers[sys.argv[1]]: int(sys.argv[2])}
seccomp.put_in_force(bpf.program(here.audit, {}, here_not, 1 << 29, bpf.returning(bpf.ALLOW)))
os.execv(sys.argv[3], sys.argv[3:])
"""


def without(call: str, error: int) -> list[str]:
    """For a server's `wrapper`: a system call that fails with `error`, as in a container."""
    return [sys.executable, "-c", WITHOUT, call, str(error)]


def without_landlock() -> list[str]:
    """For a server's `wrapper`: a kernel without Landlock."""
    return without("landlock_create_ruleset", errno.ENOSYS)


def test_a_kernel_without_landlock_is_said_and_the_rest_is_there(host: Host) -> None:
    with serving(host, wrapper=without_landlock(), CVM_SANDBOX="auto") as server:
        assert server.ask("joe").code == 0
        server.warned("sandbox: no Landlock")
        assert {status_of(pid)["Seccomp"] for pid in server.workers()} == {"2"}


def test_a_kernel_without_landlock_is_not_enough_where_it_is_required(host: Host) -> None:
    with serving(host, wrapper=without_landlock(), CVM_SANDBOX="required", wait=False) as server:
        assert server.process.wait(20) == 100
        assert "CVM_SANDBOX=required, but this kernel has no Landlock" in server.errors.read_text()
        assert not server.path.exists()


def test_a_landlock_that_cannot_be_entered_is_said_where_it_is_required(host: Host) -> None:
    refusing = without("landlock_restrict_self", errno.EPERM)
    with serving(host, wrapper=refusing, CVM_SANDBOX="required", wait=False) as server:
        assert server.process.wait(PATIENCE) == 100
        said = server.errors.read_text()
        assert "CVM_SANDBOX=required, but Landlock says: Operation not permitted" in said
        assert "Traceback" not in said
        assert list(server.path.parent.glob("socket*")) == []


DEEP = """
import os, sys
from cvm_qmail.process import landlock
for _ in range(15):
    landlock.restrict([landlock.Rule("/", 0xFFFF)], None)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes its arguments, with room for one more sandbox of the sixteen that the kernel nests: the supervisor's."""


def test_a_worker_that_cannot_enter_a_required_sandbox_says_why(host: Host) -> None:
    with serving(host, wrapper=[sys.executable, "-c", DEEP], CVM_SANDBOX="required") as server:
        assert "Landlock says: Argument list too long" in server.logged("? worker ")
        assert server.stop() == 0
