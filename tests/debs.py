"""The Debian packages, built by scripts/deb, and the same with a lower version."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from machines import TOP, Machine


class Packages(NamedTuple):
    """The files of one version."""

    server: Path
    tool: Path

    def put_into(self, machine: Machine) -> None:
        """Installs both."""
        machine.install(self.server, self.tool)


def built(directory: Path) -> Packages:
    """scripts/deb."""
    done = subprocess.run([TOP / "scripts/deb", directory], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (server,), (tool,) = directory.glob("cvm-qmail_*.deb"), directory.glob("cvmctl_*.deb")
    return Packages(server, tool)


def lowered(package: Path, directory: Path) -> Path:
    """A copy of the package with the version 0.9."""
    files, lower = directory / package.stem, directory / re.sub("_.*_", "_0.9_", package.name)
    subprocess.run(["dpkg-deb", "-R", package, files], check=True)
    control = files / "DEBIAN/control"
    text = re.sub(r"^Version: .*$", "Version: 0.9", control.read_text(), flags=re.MULTILINE)
    control.write_text(re.sub(r"cvm-qmail \(= [^)]*\)", "cvm-qmail (= 0.9)", text))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", files, lower], check=True, capture_output=True)
    return lower
