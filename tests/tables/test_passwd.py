"""The system's users: "no such user" and "could not ask" are two things."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import temporary_directory
from serving import PATIENCE

from cvm_qmail.answer import Unavailable
from cvm_qmail.process.network import EVERYTHING, NOTHING, Network
from cvm_qmail.rules.users import Account
from cvm_qmail.tables import passwd
from cvm_qmail.tables.passwd import Accounts, parse, services


def parsed(text: bytes) -> dict[bytes, Account]:
    return passwd.read_passwd(memory(text), len(text), b"passwd").accounts


def memory(text: bytes) -> int:
    fd = os.memfd_create("passwd")
    os.write(fd, text)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


JOE = Account(5001, 5002, b"/home/joe")


@pytest.mark.parametrize(
    ("text", "accounts"),
    [
        (b"", {}),
        (b"\n\n", {}),
        (b"joe:x:5001:5002:Joe:/home/joe:/bin/sh\n", {b"joe": JOE}),
        (b"joe:x:5001:5002::/home/joe:", {b"joe": JOE}),
        (b"# joe:x:1:1::/:\njoe:x:5001:5002::/home/joe:\n", {b"joe": JOE}),
        (b"  joe:x:5001:5002::/home/joe:\n", {b"joe": JOE}),
        (b"joe:x:5001:5002::/home/joe:\njoe:x:1:1::/else:\n", {b"joe": JOE}),
        (b"nonsense\njoe:x:5001:5002::/home/joe:\n", {b"joe": JOE}),
        (b"bad:x:abc:1::/:\njoe:x:5001:5002::/home/joe:\n", {b"joe": JOE}),
        (b"\xff\xfe:x:5001:5002::/home/joe:\n", {b"\xff\xfe": JOE}),
        (b"joe:x:5001:5002::/home/joe:\n+::::::\n-mallory::::::\n", {b"joe": JOE}),
        (b"big:x:4294967295:4294967294::/big:\n", {b"big": Account(4294967295, 4294967294, b"/big")}),
    ],
)
def test_lines_are_read_as_the_c_library_reads_them(text: bytes, accounts: dict[bytes, Account]) -> None:
    assert parsed(text) == accounts


def test_a_line_of_any_length_is_read() -> None:
    text = b"joe:x:5001:5002:%s:/home/joe:/bin/sh\nann:x:1:1::/ann:\n" % (b"g" * 500_000)
    assert parsed(text) == {b"joe": JOE, b"ann": Account(1, 1, b"/ann")}


def test_fifty_thousand_lines_are_read() -> None:
    text = b"".join(b"u%d:x:%d:%d::/home/u%d:/bin/sh\n" % (n, n, n, n) for n in range(50_000))
    accounts = parsed(text)
    assert len(accounts) == 50_000
    assert accounts[b"u49999"] == Account(49999, 49999, b"/home/u49999")


def test_lines_for_nis_are_noticed() -> None:
    assert passwd.read_passwd(memory(b"+::::::\n"), 8, b"").refers
    assert not passwd.read_passwd(memory(b"joe:x:1:1::/:\n"), 14, b"").refers


def test_the_real_password_file_is_read_as_python_reads_it() -> None:
    data = Path("/etc/passwd").read_bytes()
    mine = dict(reversed(list(parse(data))))
    for line in data.splitlines():
        name = line.partition(b":")[0].decode()
        entry = pwd.getpwnam(name)
        assert mine[name.encode()] == Account(entry.pw_uid, entry.pw_gid, entry.pw_dir.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, (b"files",)),
        (b"", (b"files",)),
        (b"passwd: files\n", (b"files",)),
        (b"passwd:files systemd\n", (b"files", b"systemd")),
        (b"  passwd :\tcompat\n", (b"compat",)),
        (b"#passwd: nis\ngroup: ldap\n", (b"files",)),
        (b"passwd: files # nis\n", (b"files",)),
        (b"passwd: files [NOTFOUND=return] nis\n", (b"files", b"[NOTFOUND=return]", b"nis")),
        (b"passwd: nis\npasswd: files\n", (b"files",)),
        (b"passwd-compat: nis\n", (b"files",)),
    ],
)
def test_the_sources_are_those_of_nsswitch(text: bytes | None, expected: tuple[bytes, ...]) -> None:
    assert services(text) == expected


@pytest.fixture
def etc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another /etc, and no systemd."""
    with temporary_directory() as directory:
        monkeypatch.setattr(passwd, "PASSWD", os.fsencode(directory / "passwd"))
        monkeypatch.setattr(passwd, "NSSWITCH", os.fsencode(directory / "nsswitch.conf"))
        monkeypatch.setattr(passwd, "_USER_RECORDS", (os.fsencode(directory / "userdb"),))
        monkeypatch.setattr(passwd, "_USER_SERVICES", os.fsencode(directory / "services"))
        (directory / "passwd").write_bytes(b"joe:x:5001:5002::/home/joe:\n")
        yield directory


@pytest.mark.parametrize(
    ("nsswitch", "asked"),
    [
        (None, False),
        ("passwd: files", False),
        ("passwd: files systemd", False),
        ("passwd: compat", False),
        ("passwd: files nis", True),
        ("passwd: nis files", True),
        ("passwd: files [NOTFOUND=return]", True),
        ("passwd: sss files", True),
        ("passwd:", True),
    ],
)
def test_only_files_are_read_where_only_files_count(etc: Path, nsswitch: str | None, asked: bool) -> None:
    if nsswitch is not None:
        (etc / "nsswitch.conf").write_text(nsswitch + "\n")
    # root is in no file here: whoever finds it has asked the C library
    assert (Accounts().now().get(b"root") is not None) == asked
    if not asked:
        assert Accounts().now().get(b"joe") == JOE


def test_compat_with_lines_for_nis_is_asked(etc: Path) -> None:
    (etc / "nsswitch.conf").write_text("passwd: compat\n")
    (etc / "passwd").write_text("joe:x:5001:5002::/home/joe:\n+::::::\n")
    assert Accounts().now().get(b"root") is not None
    (etc / "nsswitch.conf").write_text("passwd: files\n")
    assert Accounts().now().get(b"root") is None


def test_systemd_is_asked_when_it_may_know_somebody(etc: Path) -> None:
    (etc / "nsswitch.conf").write_text("passwd: files systemd\n")
    accounts = Accounts()
    assert accounts.now().get(b"root") is None
    (etc / "userdb").mkdir()
    assert accounts.now().get(b"root") is None
    (etc / "userdb/someone.user").touch()
    assert accounts.now().get(b"root") is not None
    (etc / "userdb/someone.user").unlink()
    (etc / "services").mkdir()
    (etc / "services/io.systemd.DynamicUser").touch()
    assert accounts.now().get(b"root") is None
    (etc / "services/io.systemd.Home").touch()
    assert accounts.now().get(b"root") is not None
    assert accounts.now().get(b"joe") == JOE


@pytest.mark.parametrize(
    ("nsswitch", "network"),
    [
        (None, NOTHING),
        ("passwd: files", NOTHING),
        ("passwd: files systemd", Network(unix=True)),
        ("passwd: files sss", Network(unix=True)),
        ("passwd: files ldap", EVERYTHING),
        ("passwd: files nis", EVERYTHING),
    ],
)
def test_the_sockets_that_asking_takes_follow_from_nsswitch(etc: Path, nsswitch: str | None, network: Network) -> None:
    if nsswitch is not None:
        (etc / "nsswitch.conf").write_text(nsswitch + "\n")
    assert passwd.network() == network
    assert passwd.network("/tmp/passwd") == NOTHING


def test_a_change_of_nsswitch_is_seen(etc: Path) -> None:
    accounts = Accounts()
    for _ in range(20):
        (etc / "nsswitch.conf").write_text("passwd: nis\n")
        assert accounts.now().get(b"root") is not None
        (etc / "nsswitch.conf").unlink()
        assert accounts.now().get(b"root") is None


def test_a_missing_password_file_is_a_temporary_failure(etc: Path) -> None:
    accounts = Accounts()
    (etc / "passwd").unlink()
    with pytest.raises(Unavailable) as error:
        accounts.now()
    assert (error.value.reason, error.value.where) == ("passwd", os.fsencode(etc / "passwd"))


def test_a_password_file_that_cannot_be_read_is_a_temporary_failure(etc: Path) -> None:
    (etc / "passwd").unlink()
    (etc / "passwd").mkdir()
    with pytest.raises(Unavailable):
        Accounts().now()


def test_a_nsswitch_that_cannot_be_read_is_a_temporary_failure(etc: Path) -> None:
    (etc / "nsswitch.conf").mkdir()
    with pytest.raises(Unavailable, match="nsswitch"):
        Accounts().now()


def test_a_wrapper_takes_the_place_of_everything() -> None:
    with temporary_directory() as directory:
        (directory / "other").write_bytes(b"joe:x:5001:5002::/home/joe:\n")
        accounts = Accounts(str(directory / "other")).now()
        assert (accounts.get(b"joe"), accounts.get(b"root")) == (JOE, None)


def test_the_c_library_is_asked_with_errno() -> None:
    root = passwd.ask(b"root")
    assert root is not None
    assert (root.uid, root.gid) == (0, 0)
    assert passwd.ask(b"no-such-user-here") is None
    assert passwd.ask(b"") is None


def test_no_descriptor_left_is_a_temporary_failure_and_not_an_unknown_user() -> None:
    """Python's own pwd module says KeyError then."""
    script = """
import os, resource
from cvm_qmail.answer import Unavailable
from cvm_qmail.tables import passwd
highest = max(map(int, os.listdir("/proc/self/fd")))
resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))
while True:
    try:
        os.dup(0)
    except OSError:
        break
try:
    print("answered", passwd.ask(b"root"))
except Unavailable as error:
    print(error.reason, error.detail)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "passwd Too many open files\n"


def test_a_pass_that_did_not_end_cleanly_is_a_temporary_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer too small for a line would end the pass early, and later users would be unknown."""
    monkeypatch.setattr(passwd, "_BUFFER", 1)
    text = b"joe:x:5001:5002::/home/joe:\n" * 3
    assert parsed(text) == {b"joe": JOE}
    monkeypatch.setattr(passwd, "max", lambda *_, **__: b"" if "key" in __ else 8, raising=False)
    with pytest.raises(OSError, match="Numerical result out of range"):
        parsed(text)
