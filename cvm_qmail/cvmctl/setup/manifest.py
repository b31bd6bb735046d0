"""What `cvmctl setup --apply` wrote, so that `--undo` removes exactly that.

    {"version": 1, "directories": [PATH...], "files": {PATH: SHA-256...}, "in_use": [PATH...]}

Invariants: a file that exists is never written; a file that was changed since, and a directory that holds
anything, is never removed.  The manifest is written before the first file, so an interrupted --apply can be undone.
Mode 0600: it has the hash of a secret.
"""

from __future__ import annotations

import hashlib
import json
import os
from stat import S_ISREG
from typing import NamedTuple

from cvm_qmail.cvmctl.setup.plan import File, Plan
from cvm_qmail.cvmctl.setup.tree import Tree
from cvm_qmail.cvmctl.ui.output import PERMANENT, Failure

MANIFEST = "/var/lib/cvm-qmail/setup.json"
VERSION = 1
LIMIT = 1 << 20
"""Bytes of a manifest, or of a file that is compared."""


class Written(NamedTuple):
    """A manifest."""

    directories: list[str]
    """Made for the files, in the order in which they were."""
    files: dict[str, str]
    """With the hash of what was written."""
    in_use: list[str]


def written(tree: Tree) -> Written | None:
    """The manifest; None: nothing was applied, or all of it undone.  Raises `Failure`."""
    text = tree.read(MANIFEST, LIMIT)
    if text is None:
        return None
    try:
        found = json.loads(text)
        if found["version"] != VERSION:
            raise Failure(f"{MANIFEST}: found version {found['version']!r}, expected {VERSION}", PERMANENT)
        return Written(list(found["directories"]), dict(found["files"]), list(found["in_use"]))
    except (ValueError, LookupError, TypeError):
        raise Failure(f"{MANIFEST}: it is damaged", PERMANENT) from None


def apply(tree: Tree, chosen: Plan) -> None:
    """Writes the files.  Raises OSError; what was written by then can be undone."""
    for file in chosen.files:
        if tree.exists(file.path):
            raise Failure(f"{file.path}: it exists", PERMANENT)
    directories = _missing(tree, [MANIFEST, *(file.path for file in chosen.files)])
    files = {file.path: _hash(file.text.encode("utf-8", "surrogateescape")) for file in chosen.files}
    content = {"version": VERSION, "directories": directories, "files": files, "in_use": chosen.in_use}
    for directory in directories:
        os.mkdir(tree.place(directory), 0o755)
    _write(tree, File(MANIFEST, 0o600, json.dumps(content, indent=1) + "\n"))
    for file in chosen.files:
        _write(tree, file)


def _missing(tree: Tree, paths: list[str]) -> list[str]:
    """The directories to make, each after its parent."""
    found: list[str] = []
    for path in paths:
        parents = path.split("/")[1:-1]
        above = ["/" + "/".join(parents[:depth]) for depth in range(1, len(parents) + 1)]
        found += [directory for directory in above if directory not in found and not tree.is_directory(directory)]
    return found


def _write(tree: Tree, file: File) -> None:
    """A new file, of this mode from its first moment on."""
    fd = os.open(tree.place(file.path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        out.write(file.text.encode("utf-8", "surrogateescape"))
        out.flush()
        os.fchmod(fd, file.mode)
        os.fsync(fd)


def undo(tree: Tree, manifest: Written) -> tuple[list[str], list[str]]:
    """Removes what was written; returns what was removed, and what was left because it was changed or is in use."""
    gone: list[str] = []
    left: list[str] = []
    for path, hashed in manifest.files.items():
        if not tree.exists(path):
            continue
        (gone if _unchanged(tree, path, hashed) else left).append(path)
    for path in gone:
        os.unlink(tree.place(path))
    os.unlink(tree.place(MANIFEST))
    for directory in reversed(manifest.directories):
        try:
            os.rmdir(tree.place(directory))
        except FileNotFoundError:
            continue
        except OSError:
            left.append(directory)
        else:
            gone.append(directory)
    return gone, left


def _unchanged(tree: Tree, path: str, hashed: str) -> bool:
    """Whether it still is the regular file that was written."""
    place = tree.place(path)
    return S_ISREG(os.lstat(place).st_mode) and _hash(tree.read(path, LIMIT) or b"") == hashed


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
