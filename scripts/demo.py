"""A sample host with qmail and vpopmail, cvm-qmail and cvm-vpopmail serving it, and the answers that their clients get.

Needs no qmail, no vpopmail, no root and no accounts: the host is a temporary directory with a password file of its own.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cdblib

from cvm_qmail.protocols.cvm import client

HERE = Path(sys.executable).parent
DOMAINS = "home/vpopmail/domains"
BOUNCE_MAIL = 16  # the flag of a locked account

SECRET = "a secret that the mail server shows"  # noqa: S105  a sample

QUESTIONS = (
    ("joe@example.org", "an account with a mailbox"),
    ("Joe-Lists@Example.ORG", "joe's file .qmail-lists"),
    ("joe-nothing@example.org", "no such file"),
    ("nobody@example.org", "no such account"),
    ("postmaster@example.org", "an alias"),
    ("sales@shop.example", "a virtual domain that belongs to joe"),
    ("anything@ann.example", "ann's catch-all"),
    ("ann@example.org", "ann is editing: her home directory is sticky"),
    ("bob@vpop.example", "vpopmail: an account"),
    ("info@vpop.example", "vpopmail: an alias, the file .qmail-info"),
    ("list-subscribe@vpop.example", "vpopmail: a list, the file .qmail-list-default"),
    ("locked@vpop.example", "vpopmail: a locked account, mail to it bounces"),
    ("nobody@vpop.example", "vpopmail: no such account"),
    ("anybody@gone.example", "vpopmail: its catch-all throws the mail away"),
    ("friend@elsewhere.example", "not our domain"),
)

PASSWORD = "correct horse"  # noqa: S105  a sample

LOGINS = (
    ("bob@vpop.example", PASSWORD, "the right password"),
    ("bob@vpop.example", "battery staple", "a wrong one"),
    ("nobody@vpop.example", PASSWORD, "no such account"),
)


def make_host(root: Path) -> dict[str, str]:
    """Control files, users/cdb, homes; the environment that points a server at them."""
    root.chmod(0o755)
    as_root = os.geteuid() == 0
    names = ("alias", "joe", "ann", "qmailp", "qmails", "vpopmail")
    ids = {name: 2000 + number if as_root else os.getuid() for number, name in enumerate(names)}
    gid = 2000 if as_root else os.getgid()
    files = {
        "control/me": "mx.example.org\n",
        "control/locals": "example.org\n",
        "control/virtualdomains": "shop.example:joe-shop\nann.example:ann-catch\n"
        "vpop.example:vpop.example\ngone.example:gone.example\n",
        "alias/.qmail-postmaster": "&joe\n",
        "home/joe/.qmail-lists": "./Maildir/\n",
        "home/joe/.qmail-shop-default": "./Maildir/\n",
        "home/ann/.qmail-catch-default": "./Maildir/\n",
        "home/ann2/.qmail-catch-default": "./Maildir/\n",
        f"{DOMAINS}/vpop.example/.qmail-default": "|/home/vpopmail/bin/vdelivermail '' bounce-no-mailbox\n",
        f"{DOMAINS}/vpop.example/.qmail-info": "&bob@vpop.example\n",
        f"{DOMAINS}/vpop.example/.qmail-list-default": "|/usr/bin/ezmlm-manage list\n",
        f"{DOMAINS}/gone.example/.qmail-default": "|/home/vpopmail/bin/vdelivermail '' delete\n",
        "passwd": "".join(
            f"{name}:x:{ids[name]}:{gid}::{root}{home}:/bin/true\n"
            for name, home in (("alias", "/alias"), ("qmailp", ""), ("qmails", ""))
        ),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    make_accounts(root / DOMAINS / "vpop.example", bob=0, locked=BOUNCE_MAIL)
    make_accounts(root / DOMAINS / "gone.example")
    (root / "users").mkdir()
    records = []
    for name, home in (("joe", "joe"), ("ann", "ann")):
        entry = f"{name}\0{ids[name]}\0{gid}\0{root}/home/{home}\0"
        records.append((f"!{name}\0".encode(), f"{entry}\0".encode()))
        records.append((f"!{name}-".encode(), f"{entry}-\0".encode()))
    entry = f"ann\0{ids['ann']}\0{gid}\0{root}/home/ann2\0-\0catch-"
    records.append((b"!ann-catch-", entry.encode()))
    for domain in ("vpop.example", "gone.example"):
        entry = f"{domain}\0{ids['vpopmail']}\0{gid}\0{root / DOMAINS / domain}\0-\0"
        records.append((f"!{domain}-".encode(), entry.encode()))
    write_cdb(root / "users/cdb", [*records, (b"", b"-")])
    if as_root:
        owners = {
            "alias": "alias",
            "home/joe": "joe",
            "home/ann": "ann",
            "home/ann2": "ann",
            "home/vpopmail": "vpopmail",
        }
        for directory, name in owners.items():
            for path in (root / directory, *(root / directory).rglob("*")):
                os.chown(path, ids[name], gid)
    (root / "home/ann").chmod(0o1755)
    return {
        "QMAIL_ROOT": str(root),
        "NSS_WRAPPER_PASSWD": str(root / "passwd"),
        "CVM_VPOPMAIL_DIR": str(root / "home/vpopmail"),
        "CVM_LOOKUP_SECRET": SECRET,
    }


def make_accounts(domain: Path, **flags: int) -> None:
    """vpasswd.cdb, and a home directory for each account."""
    libcrypt = ctypes.CDLL(ctypes.util.find_library("crypt"))
    libcrypt.crypt.restype = ctypes.c_char_p
    hashed = libcrypt.crypt(PASSWORD.encode(), b"$6$demo$").decode()
    records = []
    for name, flag in flags.items():
        for part in ("tmp", "new", "cur"):
            (domain / name / "Maildir" / part).mkdir(parents=True)
        records.append((name.encode(), f"{hashed}:1:{flag}:{name}:{domain}/{name}:NOQUOTA".encode()))
    write_cdb(domain / "vpasswd.cdb", records)


def write_cdb(path: Path, records: list[tuple[bytes, bytes]]) -> None:
    """A constant database."""
    with path.open("wb") as out, cdblib.Writer(out) as writer:
        for key, data in records:
            writer.put(key, data)


@contextmanager
def serving(program: str, module: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server that runs.  Raises CalledProcessError if it does not start, or ends with anything but 0."""
    print(f"  {program} {module}")
    with log.open("w") as out:
        server = subprocess.Popen([HERE / program, module], env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        while "Starting." not in log.read_text():
            if server.poll() is not None:
                raise subprocess.CalledProcessError(server.returncode, log.read_text())
            time.sleep(0.01)
        yield
    finally:
        server.terminate()
        status = server.wait()
    if status:
        raise subprocess.CalledProcessError(status, program)


def ask(module: str, environment: dict[str, str]) -> None:
    """Each question through cvmctl."""
    outcomes = {0: "accepted", 100: "rejected", 4: "temporary failure"}
    print("\nWhat cvm-qmail answers (cvmctl ask MODULE ADDRESS; its exit status is the code of the answer):\n")
    for address, why in QUESTIONS:
        command = [str(HERE / "cvmctl"), "ask", module, address]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        outcome = "out of scope" if "out of scope:     1" in done.stdout else outcomes.get(done.returncode, "?")
        print(f"  {address:28} {done.returncode:3}  {outcome:18} {why}")


def explain(address: str, environment: dict[str, str], root: Path) -> None:
    """One address through cvmctl trace."""
    print(f"\nWhy (cvmctl trace {address}; paths are those of the sample host):\n")
    done = subprocess.run(
        [HERE / "cvmctl", "trace", address], env=environment, capture_output=True, text=True, check=False
    )
    print("".join(f"  {line}\n" for line in done.stdout.replace(str(root), "").splitlines()), end="")


def mailfront(module: str, environment: dict[str, str]) -> None:
    """The same questions in an SMTP session."""
    program = shutil.which("mailfront")
    if program is None:
        print("\nmailfront is not installed (Debian package mailfront): no SMTP session to show")
        return
    lines = ["HELO client.example", "MAIL FROM:<someone@client.example>"]
    lines += [f"RCPT TO:<{address}>" for address, _ in QUESTIONS]
    done = subprocess.run(
        [program, "smtp", "echo", "cvm-validate", "accept"],
        input="".join(line + "\r\n" for line in [*lines, "QUIT"]),
        env={**environment, "CVM_LOOKUP": module, "SMTPGREETING": "mx.example.org", "TCPLOCALHOST": "mx.example.org"},
        capture_output=True,
        text=True,
        check=False,
    )
    replies = [line for line in done.stdout.splitlines() if line[3:4] == " "]
    print("\nWhat an SMTP client sees (mailfront smtp echo cvm-validate accept):\n")
    for line, reply in zip(["", *lines, "QUIT"], replies, strict=False):
        print(f"  C: {line}\n  S: {reply}" if line else f"  S: {reply}")
    print(
        "\nAn address out of scope is left to the next plug-in: here accept, which takes all; on a real host\n"
        "qmail-validate, which rejects what control/rcpthosts does not name."
    )


def log_in(module: str) -> None:
    """Each login, as a web application asks."""
    print("\nWhat cvm-vpopmail answers to a program (client.ask(MODULE, LOGIN, password=PASSWORD).code):\n")
    for login, password, why in LOGINS:
        code = client.ask(module, login.encode(), password=password.encode()).code
        print(f"  {login:28} {code:3}  {'accepted' if code == 0 else 'rejected':18} {why}")


def main() -> int:
    """The demonstration; 0 if the servers answered and ended as they should."""
    os.umask(0o022)  # qmail's own accounts read control files and pass through to homes
    with tempfile.TemporaryDirectory(prefix="cvm-demo-") as directory:
        root = Path(directory)
        lookup = {**os.environ, **make_host(root)}
        login = {name: value for name, value in lookup.items() if name != "CVM_LOOKUP_SECRET"}
        recipients, passwords = f"cvm-local:{root}/recipients", f"cvm-local:{root}/passwords"
        logs = root / "log", root / "log.passwords"
        print("A sample host with two servers, one for addresses and one for passwords:\n")
        try:
            with (
                serving("cvm-qmail", recipients, logs[0], lookup),
                serving("cvm-vpopmail", passwords, logs[1], login),
            ):
                ask(recipients, lookup)
                explain("nobody@vpop.example", lookup, root)
                mailfront(recipients, lookup)
                wrong = {**lookup, "CVM_LOOKUP_SECRET": "wrong"}
                command = [str(HERE / "cvmctl"), "ask", recipients, "joe@example.org"]
                status = subprocess.run(command, env=wrong, capture_output=True, check=False).returncode
                print(f"\nWith a wrong secret the answer for joe@example.org is {status}: a temporary failure.")
                log_in(passwords)
        except subprocess.CalledProcessError as error:
            print(error, file=sys.stderr)
            return 1
        print("\nThe logs (result, address, user, reason, deciding file, time):\n")
        for log in logs:
            print("".join(f"  {line}\n" for line in log.read_text().replace(str(root), "").splitlines()))
        print("The servers ended with status 0.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
