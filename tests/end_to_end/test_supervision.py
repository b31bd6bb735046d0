"""The service files in contrib/, run by the programs they are written for.

The services are copied as an administrator copies them, and adapted in their env files only.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from end_to_end.programs import CONTRIB, clean_environment, run
from hosts import Host, temporary_directory
from serving import CVM_QMAIL, PATIENCE, accepting, free_port, until

from cvm_qmail.protocols.cvm import client

pytestmark = pytest.mark.root

RUNIT = pytest.mark.peer("runsvdir", "runsv", "sv", "chpst", "svlogd")
S6 = pytest.mark.peer("s6-svscan", "s6-svc", "s6-svstat", "s6-envdir", "s6-log")
SYSTEMD = pytest.mark.peer("systemd-analyze")


class Services(NamedTuple):
    """A directory of services, where nothing runs yet."""

    directory: Path
    host: Host

    def add(self, source: str, **settings: str) -> Service:
        """Copies a service of contrib/, and writes settings into its env."""
        service = self.directory / Path(source).name
        shutil.copytree(CONTRIB / source, service)
        for name, value in settings.items():
            (service / "env" / name).write_text(f"{value}\n")
        return Service(service)

    def add_cvm_rcptto(self, source: str, secret: str = "") -> Service:
        host = self.host.environment
        return self.add(
            source,
            CVM_LOOKUP=f"cvm-local:{self.directory}/run/socket",
            CVM_LOOKUP_SECRET=secret,
            CVM_WORKERS=str(WORKERS),
            RUN_AS="nobody",
            QMAIL_ROOT=host["QMAIL_ROOT"],
            NSS_WRAPPER_PASSWD=host["NSS_WRAPPER_PASSWD"],
        )


class Service(NamedTuple):
    """One service."""

    directory: Path

    @property
    def module(self) -> str:
        return (self.directory / "env/CVM_LOOKUP").read_text().strip()

    @property
    def path(self) -> Path:
        return Path(self.module.removeprefix("cvm-local:"))

    @property
    def log(self) -> str:
        current = self.directory / "log/main/current"
        return current.read_text() if current.exists() else ""

    def answers(self, account: str = "joe", secret: str | None = None) -> int | None:
        """The code for an address at example.org; None: nobody answers."""
        shown = None if secret is None else secret.encode()
        try:
            return client.ask(self.module, account.encode(), b"example.org", secret=shown).code
        except client.NoAnswer:
            return None


@pytest.fixture
def services(host: Host) -> Iterator[Services]:
    with temporary_directory() as directory:
        yield Services(directory, host)


@contextmanager
def supervised(*command: str | Path, stop: signal.Signals) -> Iterator[None]:
    """A supervisor of services, with all that it started taken away in the end."""
    supervisor = subprocess.Popen(command, env=clean_environment({}), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        supervisor.send_signal(stop)
        supervisor.wait(PATIENCE)


WORKERS = 2


def children(pid: int) -> set[int]:
    """The children of a process."""
    try:
        return {int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except (FileNotFoundError, ProcessLookupError):
        return set()


def workers_of(pid: int) -> set[int]:
    """The workers of a server: not the short-lived child that looks for advice to give."""

    def confined(child: int) -> bool:
        try:
            return "NoNewPrivs:\t1" in Path(f"/proc/{child}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False

    return set(filter(confined, children(pid)))


def all_workers_of(pid: int) -> set[int]:
    """Its workers, when all have started."""
    return until(lambda: workers if len(workers := workers_of(pid)) == WORKERS else set(), "all workers have started")


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- runit ----------------------------------------------------------------------------------------


def sv(command: str, service: Service) -> str:
    done = run("sv", "-w", "60", command, service.directory)
    assert done.returncode == 0, done
    return done.stdout.decode()


def runit_pid(service: Service) -> int:
    """The process that runit started; 0: none."""
    try:
        return int((service.directory / "supervise/pid").read_text() or 0)
    except FileNotFoundError:
        return 0


def runsv_runs(service: Path) -> bool:
    try:
        os.close(os.open(service / "supervise/ok", os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


@contextmanager
def runsvdir(services: Services) -> Iterator[None]:
    """runsvdir on the directory; SIGHUP makes it end all that it started, and itself."""
    try:
        with supervised("runsvdir", "-P", services.directory, stop=signal.SIGHUP):
            yield
    finally:
        until(lambda: not any(map(runsv_runs, services.directory.iterdir())), "all services have ended")


@RUNIT
def test_runit_starts_it_with_its_settings_and_its_log(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto", secret="open sesame")
    with runsvdir(services):
        until(lambda: accepting(service.path), "the service answers")
        assert service.answers(secret="open sesame") == 0
        assert service.answers("nobody", secret="open sesame") == 100
        assert service.answers(secret="close") == service.answers() == 7
        until(lambda: service.log.count("wrong-secret") == 1 and "no-secret" in service.log, "the log arrives")
        assert "run: " in sv("status", service)
    stamp = r"\d{4}-\d\d-\d\d_\d\d:\d\d:\d\d\.\d{5} "
    lines = service.log.splitlines()
    assert all(re.match(stamp, line) for line in lines)
    texts = [re.sub(stamp, "", line) for line in lines]
    assert "Starting." in texts
    assert any(text.startswith("+ joe@example.org joe mailbox ") for text in texts)
    assert any(text.startswith("- nobody@example.org alias no-mailbox ") for text in texts)
    assert "sesame" not in service.log


@RUNIT
def test_runit_the_file_with_an_empty_line_is_the_empty_secret_an_empty_file_none(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto")
    with runsvdir(services):
        until(lambda: service.answers() == 0, "the service answers")
        (service.directory / "env/CVM_LOOKUP_SECRET").write_text("")
        sv("restart", service)
        until(lambda: service.answers() == 6, "the service answers as without a secret in its environment")
        until(lambda: "CVM_LOOKUP_SECRET is not set" in service.log, "and says so, also what goes to standard error")


@RUNIT
def test_runit_down_up_term_and_hup(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto")
    with runsvdir(services):
        until(lambda: service.answers() == 0, "the service answers")
        first = runit_pid(service)

        sv("down", service)
        assert not service.path.exists(), "it takes its socket away"
        assert service.answers() is None
        until(lambda: "Stopping." in service.log, "its end is logged")

        sv("up", service)
        until(lambda: service.answers() == 0, "up again")
        second = runit_pid(service)
        assert second != first

        sv("hup", service)
        assert service.answers() == 0, "nothing needs reloading"
        assert runit_pid(service) == second

        sv("term", service)
        until(lambda: runit_pid(service) not in (0, second) and service.answers() == 0, "runit starts it again")
        until(lambda: service.log.count("Starting.") == 3, "three starts")
        assert service.log.count("Stopping.") == 2


@RUNIT
def test_runit_a_killed_worker_is_replaced_and_the_service_stays(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto")
    with runsvdir(services):
        until(lambda: service.answers() == 0, "the service answers")
        supervisor = runit_pid(service)
        workers = all_workers_of(supervisor)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        until(lambda: len(workers_of(supervisor) - workers) == WORKERS, "new workers take their place")
        assert service.answers() == 0
        assert runit_pid(service) == supervisor
        until(lambda: service.log.count("ended with signal 9") == WORKERS, "it is logged")


@RUNIT
def test_runit_a_killed_supervisor_takes_its_workers_along_and_comes_back(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto")
    with runsvdir(services):
        until(lambda: service.answers() == 0, "the service answers")
        supervisor = runit_pid(service)
        workers = all_workers_of(supervisor)
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: runit_pid(service) not in (0, supervisor), "runit starts it again")
        until(lambda: not any(map(alive, workers)), "the old workers are gone")
        until(lambda: service.answers() == 0, "the socket is back")


@RUNIT
def test_runit_what_has_begun_at_the_end_is_answered_and_logged_before_stopping(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto")
    (service.directory / "env/CVM_LOCAL_TIMEOUT").write_text("60000\n")
    with runsvdir(services):
        until(lambda: service.answers() == 0, "the service answers")
        workers = all_workers_of(runit_pid(service))
        with socket.socket(socket.AF_UNIX) as slow:
            slow.settimeout(PATIENCE)
            slow.connect(str(service.path))
            slow.sendall(b"\2\0\1\x03ann")
            until(lambda: any(map(holds_a_client, workers)), "a worker has taken the connection")
            assert run("sv", "-w", "0", "down", service.directory).returncode in (0, 1)
            until(lambda: not service.path.exists(), "it is ending")
            slow.sendall(b"\2\x0bexample.org\0")
            slow.shutdown(socket.SHUT_WR)
            assert slow.recv(1) == b"\0", "accepted"
        until(lambda: "Stopping." in service.log and "+ ann@example.org" in service.log, "both lines arrive")
    assert service.log.index("+ ann@example.org") < service.log.index("Stopping.")


def holds_a_client(worker: int) -> bool:
    """Whether a worker has a connection beside the socket that it listens on."""
    sockets = 0
    for fd in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed meanwhile
            sockets += os.readlink(fd).startswith("socket:")
    return sockets > 1


def has_started(service: Service, times: int) -> bool:
    return service.log.count("Starting.") == times


@RUNIT
def test_runit_a_second_runsv_starts_clean(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto")
    for starts in (1, 2):
        with runsvdir(services):
            until(lambda: service.answers() == 0, "the service answers")
            until(partial(has_started, service, starts), "started once")
        assert not service.path.exists()
        assert service.log.count("Stopping.") == starts


@pytest.fixture
def private_home(services: Services) -> Path:
    """joe's, which nobody else may enter."""
    home = services.host.root / "home/joe"
    home.chmod(0o700)
    return home


@RUNIT
@pytest.mark.usefixtures("private_home")
def test_runit_runs_it_as_its_own_user_who_may_look_into_every_home(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto")
    with runsvdir(services):
        until(lambda: service.answers() == 0, "the service answers")
        assert service.answers("nobody") == 100
        status = Path(f"/proc/{runit_pid(service)}/status").read_text()
        assert re.search(r"^Uid:\s+65534\s+65534\s+65534\s+65534$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s+00000000000000c4$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+00000000000000c4$", status, re.MULTILINE)
        assert "by owner and mode bits" not in service.log


@RUNIT
@pytest.mark.usefixtures("private_home")
def test_runit_without_capabilities_with_the_change_that_the_file_describes(services: Services) -> None:
    service = services.add_cvm_rcptto("runit/cvm-rcptto")
    script = service.directory / "run"
    script.write_text(re.sub(r"^    --(inh|ambient|bounding).*\n", "", script.read_text(), flags=re.MULTILINE))
    with runsvdir(services):
        until(lambda: service.answers("nobody") == 100, "the service answers")
        assert service.answers() == 4, "it cannot enter this home"
        until(lambda: "by owner and mode bits" in service.log, "it says what it may not do")
        sv("down", service)
        assert not service.path.exists()


# -- the example of an SMTP service ---------------------------------------------------------------


@contextmanager
def smtp_session(port: int) -> Iterator[Callable[[str], str]]:
    """A session with the server on this port: a command there, the last line of its reply back."""

    def connected() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), PATIENCE)
        except OSError:
            return None

    connection = until(connected, "the SMTP server listens")
    assert connection is not None
    with connection, connection.makefile("rwb") as stream:

        def say(command: str) -> str:
            if command:
                stream.write(f"{command}\r\n".encode())
                stream.flush()
            while True:
                line: str = stream.readline().decode()
                if line[3:4] != "-":
                    return line.rstrip("\r\n")

        yield say


@RUNIT
@pytest.mark.peer("mailfront", "tcpsvd")
def test_the_example_smtp_service_asks_it_about_each_recipient(services: Services) -> None:
    services.host.control("rcpthosts", "example.org\nbackup.example\n")
    port = free_port()
    service = services.add_cvm_rcptto("runit/cvm-rcptto", secret="open sesame")
    smtpd = services.add(
        "runit/mailfront-smtpd", ADDRESS="127.0.0.1", PORT=str(port), RUN_AS="nobody", QMAILHOME=str(services.host.root)
    )
    with runsvdir(services):
        until(lambda: service.answers(secret="open sesame") == 0, "cvm-rcptto answers")
        with smtp_session(port) as say:
            assert say("").startswith("220 mx.example.org ")
            assert say("EHLO client.example").startswith("250 ")
            assert say("MAIL FROM:<sender@client.example>").startswith("250 ")
            assert say("RCPT TO:<joe@example.org>").startswith("250 ")
            assert say("RCPT TO:<nobody@example.org>") == "553 5.1.1 Sorry, that recipient does not exist."
            assert say("RCPT TO:<joe@backup.example>").startswith("250 "), "out of scope, but in rcpthosts"
            assert say("RCPT TO:<joe@elsewhere.example>").startswith("550 5.1.0 "), "not ours, nor in rcpthosts"
            sv("down", service)
            assert say("RCPT TO:<joe@example.org>").startswith("451 "), "nobody can say"
            sv("up", service)
            until(lambda: service.answers(secret="open sesame") == 0, "cvm-rcptto answers again")
            assert say("RCPT TO:<joe@example.org>").startswith("250 ")
            assert say("QUIT").startswith("221 ")
        until(lambda: "RCPT TO:<nobody@example.org>" in smtpd.log, "the session is logged")


# -- s6 -------------------------------------------------------------------------------------------


@contextmanager
def s6_svscan(services: Services) -> Iterator[None]:
    """s6-svscan on the directory; SIGTERM makes it end all that it started."""
    with supervised("s6-svscan", services.directory, stop=signal.SIGTERM):
        until((services.directory / ".s6-svscan/control").exists, "s6-svscan is there")
        yield


def s6_pid(service: Service) -> int:
    """The process that s6 started; below 1: none."""
    done = run("s6-svstat", "-o", "pid", service.directory)
    return int(done.stdout) if done.returncode == 0 else -1


def s6_svc(service: Service, *options: str) -> None:
    done = run("s6-svc", *options, service.directory)
    assert done.returncode == 0, done


@S6
def test_s6_starts_it_with_its_settings_and_its_log(services: Services) -> None:
    service = services.add_cvm_rcptto("s6/cvm-rcptto", secret="open sesame")
    with s6_svscan(services):
        until(lambda: service.answers(secret="open sesame") == 0, "the service answers")
        assert service.answers("nobody", secret="open sesame") == 100
        assert service.answers() == 7
        until(lambda: "- nobody@example.org " in service.log, "the log arrives")
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+  "
    assert all(re.match(stamp, line) for line in service.log.splitlines())
    assert re.search(f"^{stamp}\\+ joe@example.org joe mailbox ", service.log, re.MULTILINE)


@S6
def test_s6_down_up_and_kill(services: Services) -> None:
    service = services.add_cvm_rcptto("s6/cvm-rcptto")
    with s6_svscan(services):
        until(lambda: service.answers() == 0, "the service answers")
        s6_svc(service, "-d", "-wD", "-T", "60000")
        assert service.answers() is None
        assert not service.path.exists()
        s6_svc(service, "-u")
        until(lambda: service.answers() == 0, "up again")

        supervisor = s6_pid(service)
        s6_svc(service, "-h")
        assert service.answers() == 0
        workers = all_workers_of(supervisor)
        worker = min(workers)
        os.kill(worker, signal.SIGKILL)
        until(lambda: workers_of(supervisor) - workers, "a new worker takes its place")
        assert s6_pid(service) == supervisor

        s6_svc(service, "-k")
        until(lambda: s6_pid(service) not in (-1, 0, supervisor), "s6 starts it again")
        until(lambda: service.answers() == 0, "the socket is back")


# -- systemd --------------------------------------------------------------------------------------

UNIT = CONTRIB / "systemd/cvm-rcptto.service"
SOCKET_UNIT = CONTRIB / "systemd/cvm-rcptto.socket"


@pytest.fixture
def units() -> Iterator[list[Path]]:
    """Both units as installed, but for the program's path."""
    with temporary_directory() as directory:
        for unit in (UNIT, SOCKET_UNIT):
            (directory / unit.name).write_text(unit.read_text().replace("/usr/local/bin/cvm-qmail", str(CVM_QMAIL)))
        yield sorted(directory.iterdir())


def settings(unit: Path, name: str) -> list[str]:
    """The values of a setting, in their order."""
    return re.findall(f"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


@SYSTEMD
def test_systemd_finds_nothing_wrong_with_the_units(units: list[Path]) -> None:
    for unit in units:
        done = run("systemd-analyze", "verify", "--man=no", unit)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@SYSTEMD
def test_systemd_would_complain_of_a_wrong_unit(units: list[Path]) -> None:
    for unit in units:
        unit.write_text(re.sub("^(ExecStart|ListenStream)=.*", r"\1=nowhere", unit.read_text(), flags=re.MULTILINE))
        assert run("systemd-analyze", "verify", "--man=no", unit).stderr


@SYSTEMD
def test_systemd_calls_the_service_well_confined(units: list[Path]) -> None:
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", units[0])
    assert done.returncode == 0, done.stdout.decode().splitlines()[-1:]


def permitted_calls(unit: Path) -> set[str]:
    """The system calls that the unit's SystemCallFilter lines leave."""

    def members(word: str) -> set[str]:
        if not word.startswith("@"):
            return {word}
        listing = run("systemd-analyze", "syscall-filter", word).stdout.decode().splitlines()[1:]
        words = [line.strip() for line in listing if line.strip() and not line.strip().startswith("#")]
        return set().union(*(members(inner) for inner in words))

    left: set[str] = members("@default")
    for line in settings(unit, "SystemCallFilter"):
        named = set().union(*(members(word) for word in line.removeprefix("~").split()))
        left = left - named if line.startswith("~") else left | named
    return left


CALL = re.compile(r"^(?:\d+ +)?(\w+)\(", re.MULTILINE)


@SYSTEMD
@pytest.mark.peer("strace", "setpriv")
def test_what_the_unit_takes_away_is_not_missed(host: Host, units: list[Path]) -> None:
    """The server with the unit's capabilities, watched: its answers, and each of its system calls."""
    private = host.user("ann", 5002, ".qmail-default", mode=0o700)
    assert settings(UNIT, "CapabilityBoundingSet") == settings(UNIT, "AmbientCapabilities")
    assert not settings(UNIT, "ProtectProc"), "the supervisor must see the state of its workers"
    capabilities = ",".join(["-all", *settings(UNIT, "AmbientCapabilities")[0].replace("CAP_", "+").lower().split()])
    kinds = [f"--{kind}={capabilities}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    with temporary_directory() as directory:
        shutil.chown(directory, "nobody", "nogroup")
        trace, path = directory / "trace", directory / "socket"
        server = subprocess.Popen(
            [
                *("strace", "-f", "-qq", "-e", "signal=none", "-o", trace),
                *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *kinds, "--no-new-privs"),
                *(CVM_QMAIL, f"cvm-local:{path}"),
            ],
            env=clean_environment(host.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            until(lambda: accepting(path), "the server answers")
            module = f"cvm-local:{path}"
            for domain, account, code in (
                (b"example.org", b"joe", 0),
                (b"example.org", b"ann-x", 0),
                (b"example.org", b"nobody", 100),
                (b"elsewhere.example", b"joe", 100),
            ):
                assert client.ask(module, account, domain).code == code, account
            private.chmod(0o000)
            assert client.ask(module, b"ann-x", b"example.org").code == 4, "qmail could not enter this home either"
        finally:
            running = children(server.pid)
            for pid in running:
                os.kill(pid, signal.SIGTERM)
            output, errors = server.communicate(timeout=PATIENCE)
        called = set(CALL.findall(trace.read_text()))
    failed = [line for line in output.decode().splitlines() if line.startswith("?")]
    assert [line.split()[1] for line in failed] == ["ann-x@example.org"]
    assert b"warning" not in errors, errors
    assert {"accept4", "setfsuid", "setfsgid", "capset"} <= called, "the trace saw what matters"
    missing = called - permitted_calls(units[0])
    assert not missing


@contextmanager
def socket_activated(host: Host, listen: tuple[str, ...], module: str) -> Iterator[subprocess.Popen[bytes]]:
    """systemd-socket-activate with our server behind it."""
    environment = clean_environment(host.environment)
    passed = (f"--setenv={name}={value}" for name, value in environment.items())
    server = subprocess.Popen(
        ["systemd-socket-activate", *listen, *passed, CVM_QMAIL, module],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield server
    finally:
        server.terminate()
        server.wait(PATIENCE)
        for stream in (server.stdout, server.stderr):
            assert stream is not None
            stream.close()


def outputs(server: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What a server that has ended wrote: to standard output and to standard error."""
    assert server.stdout is not None
    assert server.stderr is not None
    server.wait(PATIENCE)
    return server.stdout.read(), server.stderr.read()


def unix_listening(path: Path) -> bool:
    """Whether this very path is listened on, without a connection that would start the server."""
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return any(line[3] == "00010000" and line[-1] == str(path) for line in lines)


def udp_bound(port: int) -> bool:
    return f"0100007F:{port:04X}" in Path("/proc/net/udp").read_text()


@pytest.mark.peer("systemd-socket-activate")
def test_socket_activation_takes_the_socket_that_systemd_made(host: Host) -> None:
    with temporary_directory() as directory:
        path = directory / "socket"
        module = f"cvm-local:{path}"
        with socket_activated(host, (f"--listen={path}",), module) as server:
            until(lambda: unix_listening(path), "the socket is there, before any server")
            made = path.stat().st_ino
            assert client.ask(module, b"joe", b"example.org").code == 0, "asked before it ran, answered"
            assert client.ask(module, b"nobody", b"example.org").code == 100
            server.terminate()
            output, errors = outputs(server)
            assert server.returncode == 0, errors
            assert path.stat().st_ino == made, "the path is systemd's to remove"
    first, *lines = output.decode().splitlines()
    assert first == "Starting."
    assert sorted(line.split()[:2] for line in lines) == [
        ["+", "joe@example.org"],
        ["-", "nobody@example.org"],
        ["Stopping."],
    ], "two workers log after their answers, in any order"


@pytest.mark.peer("systemd-socket-activate")
def test_socket_activation_over_udp(host: Host) -> None:
    module = f"cvm-udp:127.0.0.1:{(port := free_port())}"
    with socket_activated(host, ("--datagram", f"--listen=127.0.0.1:{port}"), module) as server:
        until(lambda: udp_bound(port), "the socket is there, before any server")
        assert client.ask(module, b"joe", b"example.org").code == 0
        server.terminate()
        assert server.wait(PATIENCE) == 0


@pytest.mark.peer("systemd-socket-activate")
def test_a_socket_of_the_wrong_kind_is_refused_with_a_message(host: Host) -> None:
    port = free_port()
    with socket_activated(host, ("--datagram", f"--listen=127.0.0.1:{port}"), "cvm-local:/nowhere/socket") as server:
        until(lambda: udp_bound(port), "the socket is there, before any server")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"\2\0\0", ("127.0.0.1", port))
        _, errors = outputs(server)
        assert server.returncode == 100
    assert b"LISTEN_FDS: found a socket of type" in errors
