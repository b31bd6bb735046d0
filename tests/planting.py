"""Hosts without a mistake, mistakes to plant in them, and what cvmctl lint finds then."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hosts import ALIAS_UID, NOFILES, Host, plain_host

from cvm_qmail.settings import Settings
from cvm_qmail.tool.lint import findings
from cvm_qmail.tool.mistakes import Finding

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


def make_sound(folder: Path) -> Host:
    """A host without a mistake."""
    host = plain_host(folder)
    host.control("rcpthosts", "example.org\nv.example\n.w.example\nnot.w.example\n")
    host.file("home/joe/.qmail-both", "# both\n./Maildir/\n&ann@example.org\nfriend@elsewhere.example\n", uid=5001)
    host.file("home/joe/.qmail-folder:x", "|forward ann\n|/bin/x nobody@example.org\n", uid=5001)
    return host


def users_assign(host: Host, *lines: str, newu: tuple[str, ...] | None = None, end: str = ".\n") -> None:
    """users/assign, and a users/cdb that is younger, of the same lines or those of `newu`."""
    host.file("users/assign", "".join(line.format(root=host.root) + "\n" for line in lines) + end)
    host.users(*(lines if newu is None else newu))
    os.utime(host.root / "users/assign", (1_000_000_000, 1_000_000_000))


def control(name: str, text: str) -> Callable[[Host], object]:
    return lambda host: host.control(name, text)


def folder(path: str) -> Callable[[Host], object]:
    def plant(host: Host) -> None:
        (host.root / path).unlink()
        host.folder(path)

    return plant


def dotqmail(name: str, text: str = "", mode: int = 0o644, uid: int = 5001) -> Callable[[Host], object]:
    return lambda host: host.file(f"home/joe/{name}", text, mode=mode, uid=uid)


def alias_file(name: str, text: str) -> Callable[[Host], object]:
    return lambda host: host.file(f"alias/{name}", text, uid=ALIAS_UID, gid=NOFILES)


def assigned(*lines: str, **how: Any) -> Callable[[Host], object]:
    return lambda host: users_assign(host, *lines, **how)


def found(host: Host) -> list[Finding]:
    """What lint finds; nothing that could not be told."""
    made, unknown = findings(Settings.from_environment(host.environment))
    assert not unknown
    return made


def is_found(host: Host, mistake: Mistake) -> None:
    """The mistake, and nothing else, is found where it was planted."""
    mistake.plant(host)
    made = [(finding.kind, finding.file, finding.line) for finding in found(host)]
    assert (mistake.kind, f"{host.root}/{mistake.file}".encode(), mistake.line) in made
    assert {kind for kind, _, _ in made} - {mistake.kind} == set(mistake.along)


def kinds(*modules: ModuleType) -> set[str]:
    """The kinds of mistakes that are named where these modules make findings."""
    trees = [ast.parse(Path(str(module.__file__)).read_text()) for module in modules]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    words = [word for call in calls if ast.unparse(call.func) == "Finding" for word in ast.walk(call.args[0])]
    return {word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)}
