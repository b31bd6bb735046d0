"""The Debian packages on a clean Debian 12: installed, upgraded under load, removed, purged."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from debs import Packages
from machines import TOP, Machine, machine
from serving import PATIENCE, until

from cvm_qmail.protocols.cvm import client

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer("dpkg-buildpackage", "dh", "mmdebstrap", "nsenter", "unshare"),
    pytest.mark.skipif(not (TOP / ".venv").exists(), reason="PEER MISSING: .venv, which scripts/test makes"),
]

UNITS = [f"cvm-{name}.{kind}" for name in ("gateway", "rcptto", "vpopmail") for kind in ("service", "socket")]
SECRET = "/etc/cvm-qmail/env/CVM_LOOKUP_SECRET"


@pytest.fixture
def plain() -> Iterator[Machine]:
    """A machine without systemd as its first process."""
    with machine("plain") as running:
        yield running


@pytest.fixture
def systemd() -> Iterator[Machine]:
    """A machine that systemd runs."""
    with machine("systemd") as running:
        yield running


def with_qmail(target: Machine) -> None:
    """Makes a small qmail host of it, with a home directory that only its owner may look into."""
    target.put("/var/qmail/control/me", "mx.example.org\n")
    target.put("/var/qmail/control/locals", "example.org\n")
    target.sh(
        "for user in alias qmailp qmails; do"
        "  useradd --system --no-create-home --home-dir /var/qmail/alias --shell /bin/false $user; done;"
        "mkdir -p /var/qmail/alias /var/qmail/users; chown alias /var/qmail/alias;"
        "useradd --create-home --shell /bin/sh joe; chmod 700 /home/joe; su joe -c 'touch ~/.qmail-list'"
    )


def files(target: Machine) -> set[str]:
    """All files but those that dpkg and the machine itself keep."""
    found = target.sh("find / -xdev ! -path '/var/lib/dpkg/*' ! -path '/var/log/*' ! -path '/var/cache/*'").stdout
    return set(found.splitlines())


def answer(target: Machine, account: str) -> int:
    """The code of the server's answer; -1: none came."""
    secret = (target.root / SECRET[1:]).read_bytes().strip()
    module = f"cvm-local:{target.root}/run/cvm-rcptto/socket"
    try:
        return client.ask(module, account.encode(), b"example.org", secret=secret, timeout=PATIENCE).code
    except client.NoAnswer:
        return -1


@contextmanager
def load(target: Machine) -> Iterator[Counter[int]]:
    """Asks all the time for an address that exists and one that does not; the codes, counted."""
    codes: Counter[int] = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            codes[answer(target, "joe-list")] += 1
            codes[answer(target, "joe-none")] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        until(lambda: codes[0] > 10, "it is under load")
        yield codes
        before = codes[0]
        until(lambda: codes[0] > before + 10, "it still answers")
    finally:
        stop.set()
        thread.join()


# -- without systemd ----------------------------------------------------------------------------------


def test_installed_removed_and_purged_it_leaves_nothing_but_its_account(plain: Machine, packages: Packages) -> None:
    before = files(plain)
    of_cvm = plain.run("dpkg", "-V", "cvm").stdout
    packages.put_into(plain)

    # Beside the C program, which is untouched.
    assert plain.run("dpkg", "-V", "cvm").stdout == of_cvm
    assert plain.run("dpkg", "-S", "/usr/bin/cvm-qmail").stdout == "cvm: /usr/bin/cvm-qmail\n"
    assert plain.run("dpkg", "-S", "/usr/bin/cvm-qmaild").stdout == "cvm-qmail: /usr/bin/cvm-qmaild\n"
    assert (plain.root / "usr/bin/cvm-qmail").read_bytes()[:4] == b"\x7fELF"

    # The comments of the units are about the package.
    elsewhere = "grep -E 'sysusers.conf|systemctl edit' /lib/systemd/system/cvm-*"
    assert plain.sh(elsewhere, check=False).stdout == ""

    # Each program runs, without any package from elsewhere.
    named = (
        "cvm-qmaild",
        "/usr/libexec/cvm-qmail/cvm-qmail",
        "cvm-vpopmail",
        "cvm-vmailmgrd",
        "cvm-directory",
        "cvm-gateway",
        "cvmctl",
    )
    for program in named:
        assert "1." in plain.run(program, "--version").stdout
    for page in (
        "man8/cvm-qmaild.8.gz",
        "man8/cvm-gateway.8.gz",
        "man8/cvm-directory.8.gz",
        "man8/cvm-rcptcheck.8.gz",
        "man1/cvmctl.1.gz",
    ):
        assert page in plain.sh("dpkg -L cvm-qmail cvmctl").stdout
    assert "_CVMCTL_COMPLETE" in plain.text("/usr/share/bash-completion/completions/cvmctl")

    # A secret, an account, and nothing that runs.
    status = (plain.root / SECRET[1:]).stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o600, 0, 0)
    assert len(plain.text(SECRET).strip()) == 32
    assert plain.sh("getent passwd cvm").stdout.endswith(":/usr/sbin/nologin\n")
    assert not plain.sh("grep -l cvm /proc/[0-9]*/comm", check=False).stdout

    setup_writes_nothing_on_a_host_without_qmail(plain)

    # Installing again keeps the secret; removing keeps settings; purging keeps nothing.
    secret = plain.text(SECRET)
    packages.put_into(plain)
    assert plain.text(SECRET) == secret
    plain.run("dpkg", "--remove", "cvmctl", "cvm-qmail")
    assert plain.text(SECRET) == secret
    assert not plain.exists("/usr/bin/cvm-qmaild")
    plain.run("dpkg", "--purge", "cvmctl", "cvm-qmail")
    left = {path for path in files(plain) - before if not path.startswith("/tmp/")}
    assert {path for path in left if not path.startswith("/etc/")} == set(), "but /etc/passwd- and its like"
    assert {path for path in left if "cvm-qmail" in path} == set()
    assert plain.run("dpkg", "-V", "cvm").stdout == of_cvm


def setup_writes_nothing_on_a_host_without_qmail(plain: Machine) -> None:
    before = files(plain)
    done = plain.run("cvmctl", "setup", "--apply", "--supervisor", "runit", check=False)
    assert (done.returncode, "found no qmail" in done.stderr) == (100, True)
    assert files(plain) - before == set()


def test_setup_upgrade_under_load_and_undo_with_runit(plain: Machine, packages: Packages, earlier: Packages) -> None:
    with_qmail(plain)
    earlier.put_into(plain)
    said = plain.run("cvmctl", "setup", "--apply", "--supervisor", "runit").stdout
    service = "/etc/sv/cvm-rcptto"
    assert "exec chpst -e ./env setpriv" in plain.text(f"{service}/run")
    assert "/usr/bin/cvm-qmaild" in plain.text(f"{service}/run")
    (plain.root / SECRET[1:]).write_text(plain.text(f"{service}/env/CVM_LOOKUP_SECRET"))

    start, question, _ = said.partition("\nnext\n")[2].splitlines()[:3]
    plain.sh(f"mkdir -p /etc/service; {start.strip()}; setsid runsvdir -P /etc/service >/dev/null 2>&1 &")
    until(lambda: answer(plain, "joe") == 0, "the service of setup answers")
    assert answer(plain, "nobody-here") == 0, "it is a dry run"
    assert plain.sh(question, check=False).returncode == 0
    plain.sh(f"rm {service}/env/CVM_DRY_RUN; sv restart {service}")
    until(lambda: answer(plain, "joe-none") == 100, "it rejects")
    assert answer(plain, "joe-list") == 0, "from a home directory of mode 700"
    pid = plain.run("sh", "-c", "cat /etc/sv/cvm-rcptto/supervise/pid").stdout.strip()
    assert f"Uid:\t{plain.run('id', '-u', 'cvm').stdout.strip()}\t" in plain.text(f"/proc/{pid}/status")

    with load(plain) as codes:
        packages.put_into(plain)
    assert set(codes) == {0, 100}, "no answer was lost or wrong"
    plain.sh(f"sv restart {service}")
    until(lambda: answer(plain, "joe-none") == 100, "the new version answers")

    refused = plain.run("cvmctl", "setup", "--undo", check=False)
    assert refused.returncode == 100
    plain.sh(f"rm /etc/service/cvm-rcptto; sv stop {service}; sv exit {service}", check=False)
    until(lambda: answer(plain, "joe") == -1, "it has ended")
    plain.run("cvmctl", "setup", "--undo", check=False)
    assert not plain.exists(f"{service}/run")
    assert not plain.exists(f"{service}/env")
    assert "supervise" in plain.sh(f"ls {service}").stdout, "what is not ours stays"


# -- with systemd -------------------------------------------------------------------------------------


def test_upgrade_under_load_and_removal_with_systemd(systemd: Machine, packages: Packages, earlier: Packages) -> None:
    with_qmail(systemd)
    earlier.put_into(systemd)
    nothing_runs_before_it_is_enabled(systemd)
    systemd.put("/etc/cvm-qmail/env/CVM_WORKERS", "3\n")
    said = systemd.run("cvmctl", "setup", "--apply").stdout
    start, question, log = (line.strip() for line in said.partition("\nnext\n")[2].splitlines()[:3])
    assert start == "systemctl daemon-reload && systemctl enable --now cvm-rcptto.socket"
    systemd.sh(start)
    systemd.sh(question)
    assert answer(systemd, "joe-none") == 0, "it is a dry run"
    assert "joe-none" in until(lambda: systemd.sh(log, check=False).stdout, "the log says so")

    systemd.run("systemctl", "stop", "cvm-rcptto.service")
    systemd.sh("rm /etc/cvm-qmail/env/CVM_DRY_RUN")
    assert answer(systemd, "joe-none") == 100
    assert answer(systemd, "joe-list") == 0, "from a home directory of mode 700"
    pid = systemd.run("systemctl", "show", "--value", "-p", "MainPID", "cvm-rcptto").stdout.strip()
    assert f"Uid:\t{systemd.run('id', '-u', 'cvm').stdout.strip()}\t" in systemd.text(f"/proc/{pid}/status")
    assert "CVM_WORKERS=3" in systemd.text(f"/proc/{pid}/environ")
    status = (systemd.root / "run/cvm-qmail/environment").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o600, 0)

    with load(systemd) as codes:
        packages.put_into(systemd)
        until(lambda: systemd.run("systemctl", "show", "--value", "-p", "MainPID", "cvm-rcptto").stdout.strip() != pid)
    assert set(codes) == {0, 100}, "no answer was lost or wrong"

    gateway_answers(systemd)
    systemd.run("dpkg", "--remove", "cvmctl", "cvm-qmail")
    assert answer(systemd, "joe") == -1
    systemd.run("dpkg", "--purge", "cvmctl", "cvm-qmail")
    left = systemd.sh(
        "find /etc /run /var/lib /usr ! -path '/var/lib/dpkg/*' -name '*cvm-*' ! -name '*cvm-qmail*'"
    ).stdout
    assert [path for path in left.splitlines() if "rcptto" in path or "gateway" in path] == []
    assert not systemd.exists("/etc/cvm-qmail")


def nothing_runs_before_it_is_enabled(systemd: Machine) -> None:
    for unit in UNITS:
        assert systemd.run("systemctl", "is-enabled", unit, check=False).stdout.strip() in ("disabled", "indirect")
        assert systemd.run("systemctl", "is-active", unit, check=False).stdout.strip() == "inactive"
    done = systemd.run(
        "systemd-analyze", "verify", "--man=no", "cvm-rcptto.service", "cvm-gateway.service", "cvm-rcptto.socket"
    )
    assert done.stdout + done.stderr == ""
    for unit in ("cvm-rcptto", "cvm-gateway", "cvm-vpopmail"):
        systemd.run("systemd-analyze", "security", "--no-pager", "--threshold=20", f"{unit}.service")


def gateway_answers(systemd: Machine) -> None:
    """The gateway, as a user that exists only while it runs, with the same secret."""
    systemd.sh("systemctl start cvm-gateway.socket")
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/cvm-gateway/socketmap');"
        "s.sendall(b'20:rcpt joe@example.org,'); print(s.recv(100))"
    )
    assert systemd.run("python3", "-c", script).stdout == "b'4:OK 1,'\n"
    assert systemd.run("systemctl", "is-active", "cvm-gateway.service").stdout == "active\n"
    systemd.sh("systemctl stop cvm-gateway.socket cvm-gateway.service")


# -- what is in them ----------------------------------------------------------------------------------


@pytest.mark.peer("lintian")
def test_lintian_finds_nothing(packages: Packages) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", *packages],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "")
