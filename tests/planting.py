"""Hosts without a mistake, mistakes to plant in them, and what cvmctl lint finds then."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hosts import ALIAS_UID, NOFILES, Host, plain_host
from phosts import table

from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.lint.command import findings
from cvm_qmail.cvmctl.lint.kinds import all_kinds
from cvm_qmail.settings import Settings

ASSIGN = ("=ann:ann:5002:5002:{root}/home/ann:::", "+joe-:joe:5001:5001:{root}/home/joe:-::")


class Mistake(NamedTuple):
    """What is planted, and what is to be found of it."""

    name: str
    plant: Callable[[Host], object]
    kind: str
    file: str
    line: int | None
    along: tuple[str, ...] = ()
    """What it brings along."""


def make_sound(directory: Path) -> Host:
    """A host without a mistake."""
    host = plain_host(directory)
    host.control("rcpthosts", "example.org\nv.example\n.w.example\nnot.w.example\n")
    host.file("home/joe/.qmail-both", "# both\n./Maildir/\n&ann@example.org\nfriend@elsewhere.example\n", uid=5001)
    host.directory("bin")
    host.file("bin/forward", mode=0o755)
    host.file("home/joe/.qmail-directory:x", "|forward ann\n|/bin/true nobody@example.org\n", uid=5001)
    return host


def users_assign(host: Host, *lines: str, newu: tuple[str, ...] | None = None, end: str = ".\n") -> None:
    """users/assign, and a users/cdb that is younger, of the same lines or those of `newu`."""
    host.file("users/assign", "".join(line.format(root=host.root) + "\n" for line in lines) + end)
    host.users(*(lines if newu is None else newu))
    os.utime(host.root / "users/assign", (1_000_000_000, 1_000_000_000))


def control(name: str, text: str) -> Callable[[Host], object]:
    return lambda host: host.control(name, text)


def directory(path: str) -> Callable[[Host], object]:
    def plant(host: Host) -> None:
        (host.root / path).unlink()
        host.directory(path)

    return plant


def dotqmail(name: str, text: str = "", mode: int = 0o644, uid: int = 5001) -> Callable[[Host], object]:
    return lambda host: host.file(f"home/joe/{name}", text, mode=mode, uid=uid)


def alias_file(name: str, text: str) -> Callable[[Host], object]:
    return lambda host: host.file(f"alias/{name}", text, uid=ALIAS_UID, gid=NOFILES)


def assigned(*lines: str, **how: Any) -> Callable[[Host], object]:
    return lambda host: users_assign(host, *lines, **how)


def found(host: Host) -> list[Finding]:
    """What lint finds; nothing that could not be determined."""
    made, unknown = findings(Settings.from_environment(host.environment))
    assert not unknown
    assert {finding.kind for finding in made} <= all_kinds().keys()
    return made


def is_found(host: Host, mistake: Mistake) -> None:
    """The mistake, and nothing else, is found where it was planted."""
    mistake.plant(host)
    made = [(finding.kind, finding.file, finding.line) for finding in found(host)]
    assert (mistake.kind, f"{host.root}/{mistake.file}".encode(), mistake.line) in made
    assert {kind for kind, _, _ in made} - {mistake.kind} == set(mistake.along)


TARGET = b"&b@far.example\0"
TABLE = table(
    {
        b":a@example.org": TARGET + b"|secret word\0./l\0",
        b":joe-x@example.org": TARGET,
        b":every@": TARGET,
        b":void@": b"",
    }
)


def with_table(host: Host, line: str = "|fastforward -d t.cdb\n", content: bytes = TABLE) -> Host:
    """A host whose joe has a table of fastforward."""
    (host.root / "bin").mkdir(exist_ok=True)
    host.file("bin/fastforward", mode=0o755)
    host.file("home/joe/t.cdb", content, uid=5001, gid=5001)
    host.file("home/joe/.qmail-default", line, uid=5001, gid=5001)
    return host
