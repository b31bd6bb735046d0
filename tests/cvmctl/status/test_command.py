"""cvmctl status: a server that is well, degraded, down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from calling import called
from hosts import Host
from serving import Server, alive, environment, serving, until

from cvm_qmail.observe.counters import WORDS
from cvm_qmail.observe.stats import About, Process, StatsFile, read

pytestmark = pytest.mark.root


def status(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return called("status", *arguments, env=environment(None, more))


def test_a_server_that_is_well(host: Host) -> None:
    with serving(host, CVM_LOOKUP_SECRET="", CVM_LOG="text") as server:
        server.ask("joe")
        server.ask("nobody")
        until(lambda: read(f"{server.path}.stats").supervisor["workers"], "the gauges are there")
        until(lambda: all(process.about for process in read(f"{server.path}.stats").processes), "they are confined")
        done = status(str(server.path))
        assert (done.returncode, done.stderr) == (0, "")
        assert f"at {server.path}: well" in done.stdout
        assert "1 accepted" in done.stdout
        assert "1 no-mailbox" in done.stdout
        assert "CVM_LOOKUP_SECRET=(set)" in done.stdout
        assert "CVM_LOG" not in done.stdout
        assert f"supervisor {server.process.pid}: Landlock" in done.stdout
        assert done.stdout.count("a filter for system calls") == 1 + len(read(f"{server.path}.stats").processes)
        assert status(f"{server.path}.stats").stdout == done.stdout
        assert status(CVM_LOOKUP=f"cvm-local:{server.path}").stdout == done.stdout


def test_as_json(host: Host) -> None:
    with serving(host) as server:
        server.ask("joe")
        until(lambda: read(f"{server.path}.stats").supervisor["workers"], "the gauges are there")
        found = json.loads(status(str(server.path), "--json").stdout)
    assert found["state"] == "well"
    assert found["requests"] == [{"outcome": "accepted", "reason": "mailbox", "count": 1}]
    assert found["total"] == 1
    assert found["pid"] == server.process.pid


def sandboxes(server: Server) -> dict[str, str]:
    """What each process of a server has of the sandbox, by its kind with its pid, as the text says it."""
    lines = status(str(server.path)).stdout.splitlines()
    start = lines.index("  sandbox auto") + 1
    end = next(at for at, line in enumerate(lines) if at >= start and not line.startswith("    "))
    return dict(line.strip().split(": ", 1) for line in lines[start:end])


def shadow_in(server: Server) -> Process:
    return until(lambda: read(f"{server.path}.stats").shadow, "the shadow process reports its sandbox")


def test_the_shadow_process_is_among_them(host: Host) -> None:
    with serving(host) as theirs, serving(host, CVM_SHADOW=theirs.module) as server:
        shadow = shadow_in(server)
        assert alive(shadow.pid)
        assert shadow.about["sandbox"]["process"] == "shadow"
        done = json.loads(status(str(server.path), "--json").stdout)
        assert done["shadow_process"] == {"pid": shadow.pid, "about": shadow.about}
        found = sandboxes(server)[f"shadow process {shadow.pid}"]
        assert found == sandboxes(server)[f"supervisor {server.process.pid}"]
        os.kill(shadow.pid, signal.SIGKILL)
        until(lambda: shadow_in(server).pid != shadow.pid, "another one takes its place")
        assert f"shadow process {shadow.pid}" not in sandboxes(server)


def test_a_shadow_that_is_a_program_has_no_sandbox_and_it_says_so(host: Host) -> None:
    with serving(host, CVM_SHADOW="cvm-command:/bin/true") as server:
        shadow = shadow_in(server)
        assert sandboxes(server)[f"shadow process {shadow.pid}"] == "no Landlock, no filter for system calls"


def test_a_shadow_process_that_does_not_run_is_missed(tmp_path: Path) -> None:
    path = str(tmp_path / "s.stats")
    settings = {"CVM_SHADOW": "cvm-local:/s"}
    file = StatsFile(path, About("cvm-qmail", "1", "/s", os.getpid(), 1.0, "cvm", "auto", 1, settings, WORDS), 1)
    assert "    shadow process: none runs now" in status(path).stdout.splitlines()
    file.describe_shadow({"pid": 17, "sandbox": {"landlock": 4, "seccomp": True}})
    assert "    shadow process 17: Landlock 4, a filter for system calls" in status(path).stdout.splitlines()
    file.describe_shadow({})
    assert json.loads(status(path, "--json").stdout)["shadow_process"] is None


def test_a_stopped_worker_is_a_degraded_server(host: Host) -> None:
    with serving(host, CVM_LOOKUP_TIMEOUT="60000") as server:
        worker = until(server.workers, "workers")[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            done = until(lambda: (found := status(str(server.path))).returncode == 1 and found, "it is degraded")
            assert "1 worker stopped" in done.stdout
        finally:
            os.kill(worker, signal.SIGCONT)  # else the server waits for it at its end, too


def test_a_server_that_was_killed_is_down(host: Host) -> None:
    with serving(host) as server:
        server.process.kill()
        server.process.wait()
        done = status(str(server.path))
    assert done.returncode == 111
    assert f"down: process {server.process.pid} has ended" in done.stdout


def test_without_counters_it_says_where_it_looked(tmp_path: Path) -> None:
    done = status(str(tmp_path / "socket"))
    assert done.returncode == 111
    assert f"no counters at {tmp_path}/socket" in done.stderr


def test_anybody_may_look(host: Host) -> None:
    with serving(host) as server:
        server.path.parent.chmod(0o755)
        server.ask("joe")
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", "cat", f"{server.path}.stats"],
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0
