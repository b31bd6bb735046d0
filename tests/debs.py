"""What scripts/release makes of this tree, and its Debian packages with a lower version."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from machines import TOP, Machine

import cvm_qmail

LONG_AGO = "1750000000"
"""For SOURCE_DATE_EPOCH."""


class Packages(NamedTuple):
    """The files of one version."""

    server: Path
    tool: Path

    def put_into(self, machine: Machine) -> None:
        """Installs both."""
        machine.install(self.server, self.tool)


def packages_in(directory: Path) -> Packages:
    """The packages that are there."""
    (server,), (tool,) = directory.glob("cvm-qmail_*.deb"), directory.glob("cvmctl_*.deb")
    return Packages(server, tool)


def released(directory: Path) -> Path:
    """A copy of this tree in which scripts/release has run.

    It is made once in this directory, whoever asks: each build of the packages takes a core a quarter of a minute.
    """
    copy, made = directory / "release", directory / "released"
    with open(directory / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _release(copy)
            made.touch()
    return copy


def _release(copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)  # of one that failed
    # need_development: where this tree's .venv is not up to date, the copy would install itself into it
    script = 'cd "$1" && . scripts/setup.sh && need_development && copy_sources "$2"'
    subprocess.run(["sh", "-c", script, "sh", TOP, copy], check=True)
    (copy / ".venv").symlink_to(TOP / ".venv")
    done = subprocess.run(
        [copy / "scripts/release", cvm_qmail.__version__],
        env={**os.environ, "SOURCE_DATE_EPOCH": LONG_AGO},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def lowered(package: Path, directory: Path) -> Path:
    """A copy of the package with the version 0.9."""
    files, lower = directory / package.stem, directory / re.sub("_.*_", "_0.9_", package.name)
    subprocess.run(["dpkg-deb", "-R", package, files], check=True)
    control = files / "DEBIAN/control"
    text = re.sub(r"^Version: .*$", "Version: 0.9", control.read_text(), flags=re.MULTILINE)
    control.write_text(re.sub(r"cvm-qmail \(= [^)]*\)", "cvm-qmail (= 0.9)", text))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", files, lower], check=True, capture_output=True)
    return lower
