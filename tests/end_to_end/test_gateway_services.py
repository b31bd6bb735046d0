"""The service files in contrib/ for the gateway, run by the programs they are written for."""

from __future__ import annotations

import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.programs import CONTRIB, run
from end_to_end.test_supervision import RUNIT, S6, SYSTEMD, supervised
from gateways import netstring
from hosts import Host, temporary_directory
from serving import Server, serving, until

pytestmark = pytest.mark.root


@pytest.fixture
def server(host: Host) -> Iterator[Server]:
    with serving(host, CVM_LOOKUP_SECRET="open sesame") as running:
        yield running


def add(directory: Path, source: str, server: Server) -> Path:
    """Copies the service, pointed at a daemon and at sockets of its own."""
    directory.chmod(0o755)
    service = directory / "services/cvm-gateway"
    shutil.copytree(CONTRIB / source, service)
    for name, value in {
        "LISTENERS": f"socketmap:unix:{directory}/run/socketmap policy:unix:{directory}/run/policy",
        "RUN_AS": "nobody",
        "CVM_GATEWAY_MODULE": server.module,
        "CVM_LOOKUP_SECRET": "open sesame",
    }.items():
        (service / "env" / name).write_text(f"{value}\n")
    return service


def asked(path: Path, address: bytes) -> bytes:
    """The gateway's answer; empty: nobody answers."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
            client.sendall(netstring(b"rcpt " + address))
            return client.recv(100)
        except OSError:
            return b""


def answers_as_nobody(directory: Path, service: Path) -> None:
    path = directory / "run/socketmap"
    until(lambda: asked(path, b"joe@example.org") == b"4:OK 1,", "the gateway answers")
    assert asked(path, b"nobody@example.org") == b"9:NOTFOUND ,"
    assert path.stat().st_uid != 0
    until(lambda: "- nobody@example.org socketmap no-mailbox" in logged(service), "the log arrives")
    assert "open sesame" not in logged(service)


def logged(service: Path) -> str:
    current = service / "log/main/current"
    return current.read_text() if current.exists() else ""


@RUNIT
def test_runit_runs_the_gateway(server: Server) -> None:
    with temporary_directory() as directory:
        service = add(directory, "runit/cvm-gateway", server)
        with supervised("runsvdir", "-P", service.parent, stop=signal.SIGHUP):
            answers_as_nobody(directory, service)
        until(lambda: not (directory / "run/socketmap").exists(), "it has ended")


@S6
def test_s6_runs_the_gateway(server: Server) -> None:
    with temporary_directory() as directory:
        service = add(directory, "s6/cvm-gateway", server)
        with supervised("s6-svscan", service.parent, stop=signal.SIGTERM):
            answers_as_nobody(directory, service)
        until(lambda: not (directory / "run/socketmap").exists(), "it has ended")


@pytest.fixture
def units() -> Iterator[list[Path]]:
    """The units, with the gateway of this installation."""
    with temporary_directory() as directory:
        copies = []
        for name in ("cvm-gateway.service", "cvm-gateway.socket"):
            text = (CONTRIB / "systemd" / name).read_text()
            copies.append(directory / name)
            copies[-1].write_text(text.replace("/usr/local/bin/cvm-gateway", "/bin/true"))
        yield copies


@SYSTEMD
def test_systemd_finds_nothing_wrong_with_the_gateways_units(units: list[Path]) -> None:
    for unit in units:
        done = run("systemd-analyze", "verify", "--man=no", unit)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@SYSTEMD
def test_systemd_calls_the_gateway_well_confined(units: list[Path]) -> None:
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", units[0])
    assert done.returncode == 0, done.stdout.decode().splitlines()[-1:]


def test_the_units_name_the_same_listeners_in_the_same_order() -> None:
    service, sockets = ((CONTRIB / f"systemd/cvm-gateway.{kind}").read_text() for kind in ("service", "socket"))
    (line,) = re.findall(r"^ExecStart=\S+ (.*)$", service, re.MULTILINE)
    addresses = [name.partition(":")[2].removeprefix("unix:") for name in line.split()]
    assert addresses == re.findall(r"^ListenStream=(.*)$", sockets, re.MULTILINE)
