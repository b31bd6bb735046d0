"""The service files in contrib/ for vpopmail, run by the programs they are written for.

All of vpopmail's domains belong to `nobody` here, since a host under test has no user vpopmail.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from end_to_end.programs import CONTRIB, clean_environment, run
from end_to_end.test_supervision import (
    CALL,
    RUNIT,
    S6,
    SYSTEMD,
    Service,
    Services,
    children,
    permitted_calls,
    runit_pid,
    runsvdir,
    s6_pid,
    s6_svscan,
    settings,
    smtp_session,
)
from end_to_end.test_vpopmail import RIGHT, SECRET, VPOPMAIL, WRONG, coded, mixed_host
from hosts import Host, assign_records, cdb_bytes, temporary_directory
from serving import PATIENCE, accepting, free_port, until
from vcorpus import CVM_VPOPMAIL
from vhosts import VHost

from cvm_qmail.protocols.cvm import client

pytestmark = pytest.mark.root

NOBODY = 65534


class World(NamedTuple):
    """A host, and a directory for services that look at it."""

    host: VHost
    services: Services

    def add(self, source: str, secret: str | None = None, **more: str) -> Service:
        """Copies a service of contrib/, pointed at the host; `secret`: it looks up."""
        name = Path(source).name
        variable = "CVM_SASL_PLAIN" if secret is None else "CVM_LOOKUP"
        environment = {**self.host.environment, variable: f"cvm-local:{self.services.directory}/run-{name}/socket"}
        if secret is None:
            del environment["CVM_LOOKUP_SECRET"]
        else:
            environment["CVM_LOOKUP_SECRET"] = secret
        return self.services.add(source, **environment, **more)


@pytest.fixture
def world() -> Iterator[World]:
    with temporary_directory() as root, temporary_directory() as directory:
        host = mixed_host(root)
        for path in root.rglob("*"):
            if path.lstat().st_uid == VPOPMAIL:
                os.lchown(path, NOBODY, NOBODY)
        domains = [path.name for path in host.domains.iterdir()]
        lines = [f"+{name}-:{name}:{NOBODY}:{NOBODY}:{host.domains}/{name}:-::" for name in domains]
        (root / "var/qmail/users/cdb").write_bytes(cdb_bytes(assign_records(lines)))
        yield World(host, Services(directory, Host(root)))


@pytest.fixture
def nobody_may_run_it() -> None:
    if run("chpst", "-u", "nobody", CVM_VPOPMAIL, "--version").returncode:
        pytest.skip(f"NOBODY MAY NOT RUN {CVM_VPOPMAIL}: the interpreter or the package is in a private directory")


CLIENTS = {"RUN_AS": "nobody", "CLIENTS": "nogroup"}


def socket_of(service: Service, variable: str = "CVM_SASL_PLAIN") -> Path:
    return Path((service.directory / "env" / variable).read_text().strip().removeprefix("cvm-local:"))


def says(path: Path, login: str, password: str | None = RIGHT, secret: str | None = None) -> int | None:
    """The code for a login, or for an address if there is no password; None: nobody answers."""
    shown: dict[str, Any] = {
        name: value.encode() for name, value in (("password", password), ("secret", secret)) if value is not None
    }
    account, _, domain = login.rpartition("@")
    try:
        return client.ask(f"cvm-local:{path}", account.encode(), domain.encode(), **shown).code
    except client.NoAnswer:
        return None


# -- runit and s6 -----------------------------------------------------------------------------------


@RUNIT
@pytest.mark.usefixtures("nobody_may_run_it")
def test_runit_checks_passwords_as_vpopmails_own_user_and_a_stray_secret_does_not_change_that(world: World) -> None:
    service = world.add("runit/cvm-vpopmail", **CLIENTS)
    (service.directory / "env/CVM_LOOKUP_SECRET").write_text(f"{SECRET}\n")
    path = socket_of(service)
    with runsvdir(world.services):
        until(lambda: says(path, "bob@example.com") == 0, "the service answers")
        assert says(path, "bob@example.com", WRONG) == says(path, "nobody@example.com") == 100
        assert says(path, "bob@example.com", password=None) == 7, "it looks nobody up"
        assert says(path, "bob@example.com", WRONG, SECRET) == 100
        assert says(path, "bob@example.com", None, SECRET) == 7
        directory = path.parent.stat()
        assert (directory.st_uid, directory.st_gid, directory.st_mode & 0o7777) == (NOBODY, NOBODY, 0o750)
        assert Path(f"/proc/{runit_pid(service)}").stat().st_uid == NOBODY
        until(lambda: "- nobody@example.com " in service.log, "the log arrives")
    assert "+ bob@example.com bob login " in service.log
    assert RIGHT not in service.log


@RUNIT
@pytest.mark.usefixtures("nobody_may_run_it")
def test_runit_looks_vpopmails_addresses_up_without_root(world: World) -> None:
    service = world.add("runit/cvm-vpopmail-rcptto", secret=SECRET, RUN_AS="nobody")
    path = socket_of(service, "CVM_LOOKUP")
    with runsvdir(world.services):
        until(lambda: says(path, "bob@example.com", None, SECRET) == 0, "the service answers")
        assert says(path, "info@example.com", None, SECRET) == says(path, "x@all.example", None, SECRET) == 0
        assert says(path, "nobody@example.com", None, SECRET) == 100
        assert says(path, "bob@example.com", None) == 7
        assert Path(f"/proc/{runit_pid(service)}").stat().st_uid == NOBODY


@RUNIT
@pytest.mark.usefixtures("nobody_may_run_it")
def test_runit_checks_passwords_of_other_users_domains_with_three_capabilities(world: World) -> None:
    capabilities = "+setuid,+setgid,+dac_read_search"
    service = world.add("runit/cvm-vpopmail", RUN_AS="daemon", CLIENTS="nogroup", CAPABILITIES=capabilities)
    path = socket_of(service)
    with runsvdir(world.services):
        until(lambda: says(path, "bob@example.com") == 0, "the service answers")
        assert says(path, "bob@example.com", WRONG) == says(path, "nobody@example.com") == 100
        status = Path(f"/proc/{runit_pid(service)}/status").read_text()
        assert "CapEff:\t00000000000000c4" in status
        assert "Uid:\t1\t1\t1\t1" in status


@S6
@pytest.mark.usefixtures("nobody_may_run_it")
def test_s6_checks_passwords_as_vpopmails_own_user(world: World) -> None:
    service = world.add("s6/cvm-vpopmail", **CLIENTS)
    path = socket_of(service)
    with s6_svscan(world.services):
        until(lambda: says(path, "bob@example.com") == 0, "the service answers")
        assert says(path, "bob@example.com", WRONG) == 100
        assert says(path, "bob@example.com", password=None) == 7
        assert Path(f"/proc/{s6_pid(service)}").stat().st_uid == NOBODY
        until(lambda: "- bob@example.com " in service.log, "the log arrives")


# -- the example of an SMTP service -----------------------------------------------------------------


@RUNIT
@pytest.mark.peer("mailfront", "tcpsvd")
@pytest.mark.usefixtures("nobody_may_run_it")
def test_the_example_smtp_service_logs_users_in_and_asks_about_recipients(world: World) -> None:
    port = free_port()
    rcptto = world.add("runit/cvm-rcptto", secret=SECRET, RUN_AS="nobody")
    vpopmail = world.add("runit/cvm-vpopmail", **CLIENTS)
    smtpd = world.services.add(
        "runit/mailfront-smtpd-auth", PORT=str(port), RUN_AS="nobody", QMAILHOME=str(world.host.root / "var/qmail")
    )
    with runsvdir(world.services):
        until(lambda: says(socket_of(rcptto, "CVM_LOOKUP"), "bob@example.com", None, SECRET) == 0, "one answers")
        until(lambda: says(socket_of(vpopmail), "bob@example.com") == 0, "and the other")
        with smtp_session(port) as say:
            assert say("").startswith("220 mail.test.example ")
            assert say("EHLO client.example").startswith("250 ")
            assert say("MAIL FROM:<bob@example.com>").startswith("250 ")
            assert say("RCPT TO:<bob@example.com>").startswith("250 ")
            assert say("RCPT TO:<info@example.com>").startswith("250 ")
            assert say("RCPT TO:<nobody@example.com>") == "553 5.1.1 Sorry, that recipient does not exist."
            assert say("RCPT TO:<friend@elsewhere.example>").startswith("550 5.1.0 "), "nobody has logged in"
            assert say("AUTH PLAIN " + coded(f"\0bob@example.com\0{WRONG}")).startswith("501 ")
            assert say("AUTH PLAIN " + coded(f"\0bob@example.com\0{RIGHT}")).startswith("235 ")
            assert say("RCPT TO:<friend@elsewhere.example>").startswith("250 ")
            assert say("RCPT TO:<nobody@example.com>") == "553 5.1.1 Sorry, that recipient does not exist."
            assert say("QUIT").startswith("221 ")
        until(lambda: "RCPT TO:<nobody@example.com>" in smtpd.log, "the session is logged")
    assert RIGHT not in smtpd.log + rcptto.log + vpopmail.log


# -- systemd ----------------------------------------------------------------------------------------

UNIT = CONTRIB / "systemd/cvm-vpopmail.service"
SOCKET_UNIT = CONTRIB / "systemd/cvm-vpopmail.socket"


@pytest.fixture
def units() -> Iterator[list[Path]]:
    """Both units as installed, but for the program's path."""
    with temporary_directory() as directory:
        for unit in (UNIT, SOCKET_UNIT):
            (directory / unit.name).write_text(
                unit.read_text().replace("/usr/local/bin/cvm-vpopmail", str(CVM_VPOPMAIL))
            )
        yield sorted(directory.iterdir())


@SYSTEMD
def test_systemd_finds_nothing_wrong_with_the_units(units: list[Path]) -> None:
    done = run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@SYSTEMD
def test_systemd_calls_the_service_well_confined(units: list[Path]) -> None:
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", units[0])
    assert done.returncode == 0, done.stdout.decode().splitlines()[-1:]


@SYSTEMD
@pytest.mark.peer("strace", "setpriv", "unshare")
@pytest.mark.usefixtures("nobody_may_run_it")
def test_what_the_unit_takes_away_is_not_missed(world: World, units: list[Path]) -> None:
    """Without network and capabilities, watched: its answers, and each of its system calls."""
    assert settings(UNIT, "CapabilityBoundingSet") == [""]
    assert settings(UNIT, "PrivateNetwork") == ["yes"]
    environment = {name: value for name, value in world.host.environment.items() if name != "CVM_LOOKUP_SECRET"}
    with temporary_directory() as directory:
        os.chown(directory, NOBODY, NOBODY)
        trace, path = directory / "trace", directory / "socket"
        confined = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all", "--no-new-privs")
        server = subprocess.Popen(
            [
                *("strace", "-f", "-qq", "-e", "signal=none", "-o", trace),
                *("unshare", "--net", "setpriv", *confined, CVM_VPOPMAIL, f"cvm-local:{path}"),
            ],
            env=clean_environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            until(lambda: accepting(path), "the server answers")
            assert says(path, "bob@example.com") == 0
            assert says(path, "bob@example.com", WRONG) == 100
            assert says(path, "nobody@example.com") == 100
            (world.host.domains / "example.com/vpasswd.cdb").chmod(0)
            (world.host.domains / "example.com/vpasswd").chmod(0)
            assert says(path, "bob@example.com") == 4, "vpopmail could not read its own file either"
        finally:
            for pid in children(server.pid):
                os.kill(pid, 15)
            output, errors = server.communicate(timeout=PATIENCE)
        text = trace.read_text()
    assert b"internal-error" not in output, output
    called = set(CALL.findall(text[text.index("cvm-vpopmail") :]))
    assert "accept4" in called, "the trace saw what matters"
    assert not called - permitted_calls(units[0])
    families = set(re.findall(r"socket\((AF_\w+)", text))
    assert families <= {"AF_UNIX"}, errors
