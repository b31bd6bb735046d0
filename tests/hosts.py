"""Small hosts for tests: built from a few words, or from a system of the corpus."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cdblib
import pytest

CORPUS = Path(__file__).parent / "corpus"

ALIAS_UID, QMAILP_UID = 5090, 5093
NOFILES = 5099

QMAIL_ACCOUNTS = (
    "alias:x:5090:5099::{root}/alias:/bin/true",
    "qmailp:x:5093:5099::{root}:/bin/true",
    "qmails:x:5096:5098::{root}:/bin/true",
)


class Host(NamedTuple):
    """A qmail host below `root`."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a server needs to look at this host."""
        return {"QMAIL_ROOT": str(self.root), "NSS_WRAPPER_PASSWD": str(self.root / "passwd"), "CVM_LOOKUP_SECRET": ""}

    def control(self, name: str, text: str | bytes) -> Path:
        """Writes a control file."""
        return self.file(f"control/{name}", text)

    def file(self, path: str, text: str | bytes = b"", *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Path:
        """Writes a file below the root, in place."""
        target = self.root / path
        target.write_bytes(text.encode("latin-1") if isinstance(text, str) else text)
        give(target, mode, uid, gid)
        return target

    def directory(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Path:
        """Makes a directory below the root."""
        target = self.root / path
        target.mkdir(parents=True, exist_ok=True)
        give(target, mode, uid, gid)
        return target

    def users(self, *lines: str) -> None:
        """users/cdb from lines of users/assign; none: without a users/cdb."""
        path = self.root / "users/cdb"
        if not lines:
            path.unlink(missing_ok=True)
            return
        temporary = path.with_name("cdb.tmp")
        temporary.write_bytes(cdb_bytes(assign_records([line.format(root=self.root) for line in lines])))
        temporary.rename(path)

    def passwd(self, *lines: str) -> None:
        """The password file: qmail's own accounts, then these lines."""
        text = "".join(line.format(root=self.root) + "\n" for line in (*QMAIL_ACCOUNTS, *lines))
        (self.root / "passwd").write_text(text)

    def user(self, name: str, uid: int, *files: str, mode: int = 0o755) -> Path:
        """A home of its own, with empty files in it."""
        home = self.directory(f"home/{name}", mode=mode, uid=uid, gid=uid)
        for file in files:
            self.file(f"home/{name}/{file}", uid=uid, gid=uid)
        return home


def give(path: Path, mode: int, uid: int, gid: int) -> None:
    """Owner and mode; the owner only where the caller may."""
    if os.geteuid() == 0:
        os.chown(path, uid, gid)
    path.chmod(mode)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """An empty directory that every user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="cvmq"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def mounted(place: Path | str, at: Path, *options: str) -> Iterator[None]:
    """What is at `place` is seen at `at` too; skips where this process may not mount."""
    done = subprocess.run(["mount", "--bind", *options, place, at], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"PEER MISSING: the right to mount: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def plain_host(root: Path) -> Host:
    """joe (with -foo, -list-default) and ann (with -default), alias with postmaster; example.org is local."""
    host = Host(root)
    for name in ("control", "users", "home"):
        host.directory(name)
    host.control("me", "mx.example.org\n")
    host.control("locals", "example.org\n")
    host.control("virtualdomains", "v.example:joe\n.w.example:ann\nnot.w.example:\n")
    host.directory("alias", uid=ALIAS_UID, gid=NOFILES)
    host.file("alias/.qmail-postmaster", uid=ALIAS_UID, gid=NOFILES)
    host.user("joe", 5001, ".qmail-foo", ".qmail-list-default")
    host.user("ann", 5002, ".qmail-default")
    host.passwd("joe:x:5001:5001::{root}/home/joe:/bin/sh", "ann:x:5002:5002::{root}/home/ann:/bin/sh")
    return host


# -- constant databases -----------------------------------------------------------------------------


def cdb_bytes(records: list[tuple[bytes, bytes]]) -> bytes:
    """A constant database of these records, in this order."""
    out = io.BytesIO()
    with cdblib.Writer(out) as writer:
        for key, data in records:
            writer.put(key, data)
    return out.getvalue()


def assign_records(lines: list[str]) -> list[tuple[bytes, bytes]]:
    """What qmail-newu makes of users/assign."""
    records = []
    breaks = b""
    for line in lines:
        name, *fields = line[1:].encode("latin-1").split(b":")
        data = b"\0".join(fields[:6])
        if line.startswith("+"):
            records.append((b"!" + name.lower(), data))
            if name and name[-1:] not in breaks:
                breaks += name[-1:]
        else:
            records.append((b"!" + name.lower() + b"\0", data))
    return [*records, (b"", breaks)]


# -- the corpus -------------------------------------------------------------------------------------


def systems(kind: str) -> list[Path]:
    """The systems of one corpus."""
    return sorted((CORPUS / kind).glob("*.json"))


def load(path: Path) -> dict[str, Any]:
    """A system of the corpus."""
    system: dict[str, Any] = json.loads(path.read_text())
    return system


def as_bytes(text: str) -> bytes:
    """One code point is one byte."""
    return text.encode("latin-1")


def materialise(system: Mapping[str, Any], root: Path) -> Host:
    """Writes a system of the qmail corpus below `root`, an empty directory that everybody can reach."""
    host = Host(root)

    def placed(text: str) -> bytes:
        return as_bytes(text.replace("{root}", str(root)))

    for name in ("control", "users", "home"):
        host.directory(name)
    for name, text in system["control"].items():
        host.control(name, placed(text))
    if system["assign"] is not None:
        host.file("users/assign", placed(system["assign"]))
    if system["cdb"] is not None:
        host.file("users/cdb", _cdb(system["cdb"], placed))
    host.file("passwd", b"".join(placed(line) + b"\n" for line in system["passwd"]))
    host.file("group", b"".join(placed(line) + b"\n" for line in system["group"]))
    for node in system["tree"]:
        _make(root, node, placed)
    for node in reversed(system["tree"]):
        if node["type"] not in ("symlink", "absent"):
            target = root / os.fsdecode(as_bytes(node["path"]))
            give(target, int(node.get("mode", "0755"), 8), node.get("uid", 0), node.get("gid", 0))
    return host


def _cdb(cdb: Mapping[str, Any], placed: Any) -> bytes:
    if "raw_b64" in cdb:
        data = base64.b64decode(cdb["raw_b64"])
    else:
        data = cdb_bytes([(placed(key), placed(value)) for key, value in cdb["records"]])
    for change, *numbers in cdb.get("mutate", ()):
        if change == "truncate":
            data = data[: numbers[0]]
        else:
            start, end, byte = numbers
            end = len(data) if end is None else end
            data = data[:start] + bytes([byte]) * (end - start) + data[end:]
    return data


def _make(root: Path, node: Mapping[str, Any], placed: Any) -> None:
    target = os.fsencode(root) + b"/" + as_bytes(node["path"])
    kind = node["type"]
    if kind == "absent":
        if stat.S_ISDIR(os.lstat(target).st_mode):
            shutil.rmtree(target)
        else:
            os.unlink(target)
    elif kind == "dir":
        os.makedirs(target, exist_ok=True)
    elif kind == "file":
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as out:
            out.write(placed(node.get("text", "")))
    elif kind == "symlink":
        os.symlink(placed(node["target"]), target)
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "socket":
        here = os.open(os.path.dirname(target), os.O_PATH)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(b"/proc/self/fd/%d/%s" % (here, os.path.basename(target)))
        os.close(here)
    else:
        raise AssertionError(f"unknown kind of node {kind}")
