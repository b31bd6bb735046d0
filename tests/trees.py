"""Trees of files that stand for hosts, for cvmctl setup."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from calling import called

PASSWD = "root:x:0:0::/root:/bin/sh\nalias:x:7790:2108::/var/qmail/alias:/bin/true\ncvm:x:990:990::/:/bin/false\n"
ELF = b"\x7fELF\2\1\1"


class System(NamedTuple):
    """A tree of files that stands for a host."""

    root: Path

    def put(self, path: str, data: str | bytes = b"", mode: int = 0o644) -> Path:
        """Writes a file, with the directories that it is in."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
        place.chmod(mode)
        return place

    def run(
        self, *arguments: str, program: str | None = "/opt/cvm-qmail/bin/cvm-qmail"
    ) -> subprocess.CompletedProcess[str]:
        """cvmctl setup for this tree."""
        named = ("--program", program) if program else ()
        return called("setup", "--root", str(self.root), *named, *arguments, env={"PATH": os.environ["PATH"]})

    def applied(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, with --apply, which must succeed."""
        done = self.run("--apply", *arguments)
        assert done.returncode == 0, done.stderr
        return done

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def mode(self, path: str) -> int:
        return (self.root / path.lstrip("/")).stat().st_mode & 0o7777

    def files(self) -> dict[str, bytes]:
        """Everything in it: directories, files with their content, links with their target."""
        found = {}
        for place in sorted(self.root.rglob("*")):
            name = str(place.relative_to(self.root))
            found[name] = (
                os.readlink(place).encode() if place.is_symlink() else b"/" if place.is_dir() else place.read_bytes()
            )
        return found


def found(system: System, *arguments: str) -> dict[str, object]:
    """What is found there."""
    done = system.run("--json", *arguments)
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said
