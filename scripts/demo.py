"""A sample qmail host, cvm-qmail serving it, and what its clients are told.

Needs no qmail, no root and no accounts: the host is a folder, its password file too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cdblib

HERE = Path(sys.executable).parent
SECRET = "a secret that the mail server shows"  # noqa: S105  a sample

QUESTIONS = (
    ("joe@example.org", "an account with a mailbox"),
    ("Joe-Lists@Example.ORG", "joe's file .qmail-lists"),
    ("joe-nothing@example.org", "no such file"),
    ("nobody@example.org", "no such account"),
    ("postmaster@example.org", "an alias"),
    ("sales@shop.example", "a virtual domain that belongs to joe"),
    ("anything@ann.example", "ann's catch-all"),
    ("ann@example.org", "ann is editing: her home is sticky, nobody can tell now"),
    ("friend@elsewhere.example", "not our domain"),
)


def make_host(root: Path) -> dict[str, str]:
    """Control files, users/cdb, homes; the environment that points a server at them."""
    root.chmod(0o755)
    as_root = os.geteuid() == 0
    names = ("alias", "joe", "ann", "qmailp", "qmails")
    ids = {name: 2000 + number if as_root else os.getuid() for number, name in enumerate(names)}
    gid = 2000 if as_root else os.getgid()
    files = {
        "control/me": "mx.example.org\n",
        "control/locals": "example.org\n",
        "control/virtualdomains": "shop.example:joe-shop\nann.example:ann-catch\n",
        "alias/.qmail-postmaster": "&joe\n",
        "home/joe/.qmail-lists": "./Maildir/\n",
        "home/joe/.qmail-shop-default": "./Maildir/\n",
        "home/ann/.qmail-catch-default": "./Maildir/\n",
        "home/ann2/.qmail-catch-default": "./Maildir/\n",
        "passwd": "".join(
            f"{name}:x:{ids[name]}:{gid}::{root}{home}:/bin/true\n"
            for name, home in (("alias", "/alias"), ("qmailp", ""), ("qmails", ""))
        ),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "users").mkdir()
    records = []
    for name, home in (("joe", "joe"), ("ann", "ann")):
        entry = f"{name}\0{ids[name]}\0{gid}\0{root}/home/{home}\0"
        records.append((f"!{name}\0".encode(), f"{entry}\0".encode()))
        records.append((f"!{name}-".encode(), f"{entry}-\0".encode()))
    entry = f"ann\0{ids['ann']}\0{gid}\0{root}/home/ann2\0-\0catch-"
    records.append((b"!ann-catch-", entry.encode()))
    with (root / "users/cdb").open("wb") as out, cdblib.Writer(out) as writer:
        for key, data in [*records, (b"", b"-")]:
            writer.put(key, data)
    if as_root:
        owners = {"alias": "alias", "home/joe": "joe", "home/ann": "ann", "home/ann2": "ann"}
        for folder, name in owners.items():
            for path in (root / folder, *(root / folder).iterdir()):
                os.chown(path, ids[name], gid)
    (root / "home/ann").chmod(0o1755)
    return {"QMAIL_ROOT": str(root), "NSS_WRAPPER_PASSWD": str(root / "passwd"), "CVM_LOOKUP_SECRET": SECRET}


def ask(module: str, environment: dict[str, str]) -> None:
    """Each question through cvmctl."""
    meanings = {0: "exists", 100: "does not exist", 4: "cannot be told now"}
    print("\nWhat cvmctl is told (cvmctl ask MODULE ADDRESS):\n")
    for address, why in QUESTIONS:
        command = [HERE / "cvmctl", "ask", module, address]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        meaning = "not ours to judge" if "out of scope:     1" in done.stdout else meanings.get(done.returncode, "?")
        print(f"  {address:28} {done.returncode:3}  {meaning:20} {why}")


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
    print("\nWhat an SMTP client is told (mailfront smtp echo cvm-validate accept):\n")
    for line, reply in zip(["", *lines, "QUIT"], replies, strict=False):
        print(f"  C: {line}\n  S: {reply}" if line else f"  S: {reply}")


def main() -> int:
    """The demonstration; 0 if the server answered and ended as it should."""
    os.umask(0o022)  # qmail's own accounts read control files and pass through to homes
    with tempfile.TemporaryDirectory(prefix="cvm-demo-") as folder:
        root = Path(folder)
        environment = {**os.environ, **make_host(root)}
        module = f"cvm-local:{root}/socket"
        log = root / "log"
        print("A sample qmail host; the server is started as a service manager would:\n")
        print(f"  cvm-qmail cvm-local:{root}/socket")
        with log.open("w") as out:
            server = subprocess.Popen([HERE / "cvm-qmail", module], env=environment, stdout=out)
        while "Starting." not in log.read_text():
            if server.poll() is not None:
                return 1
            time.sleep(0.01)
        try:
            ask(module, environment)
            mailfront(module, environment)
            wrong = {**environment, "CVM_LOOKUP_SECRET": "wrong"}
            status = subprocess.run(
                [HERE / "cvmctl", "ask", module, "joe@example.org"], env=wrong, capture_output=True, check=False
            ).returncode
            print(f"\nWith a wrong secret joe@example.org is answered {status}, which is temporary.")
        finally:
            server.terminate()
            status = server.wait()
        print("\nWhat the log says, and why (result, address, user, reason, deciding file, time):\n")
        print("".join(f"  {line}\n" for line in log.read_text().splitlines()))
        print(f"The server ended with status {status}.")
        return status


if __name__ == "__main__":
    sys.exit(main())
