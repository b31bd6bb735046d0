"""The files of a host below a root directory: read without risk, written so that it can be undone.

Invariants: a path is absolute and means the same below any root: a symbolic link on it is resolved inside the
root.  Reading never waits and is bounded.  Nothing is overwritten.
"""

from __future__ import annotations

import os
import re
from stat import S_ISREG

LINKS = 40
"""Symbolic links on one path, as the kernel's own limit."""


class Tree:
    """The files below `root`."""

    def __init__(self, root: str) -> None:
        self.root = "" if root == "/" else root.rstrip("/")

    def place(self, path: str) -> str:
        """Where `path` is on this machine, without following the last component's link."""
        directory, _, name = path.rstrip("/").rpartition("/")
        return f"{self.root}{self.resolved(directory or '/').rstrip('/')}/{name}"

    def resolved(self, path: str) -> str:
        """The path below the root without symbolic links.  Raises OSError where they do not end."""
        done: list[str] = []
        ahead = path.split("/")[::-1]
        links = 0
        while ahead:
            name = ahead.pop()
            if name == "..":
                done = done[:-1]
            if name in ("", ".", ".."):
                continue
            try:
                target = os.readlink(f"{self.root}/{'/'.join([*done, name])}")
            except OSError:  # no link, or nothing there
                done.append(name)
                continue
            links += 1
            if links > LINKS:
                raise OSError(f"{path}: too many symbolic links")
            done = [] if target.startswith("/") else done
            ahead += target.split("/")[::-1]
        return "/" + "/".join(done)

    def read(self, path: str, limit: int) -> bytes | None:
        """The first `limit` bytes of the regular file; None: it is not there, or not for us to read."""
        try:
            fd = os.open(self.root + self.resolved(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            with open(fd, "rb", closefd=False) as file:
                return file.read(limit) if S_ISREG(os.fstat(fd).st_mode) else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def first_line(self, path: str) -> str:
        """The first line of the file, without blanks around it; empty: there is none."""
        return (self.read(path, 4096) or b"").partition(b"\n")[0].decode("utf-8", "surrogateescape").strip()

    def names(self, path: str) -> list[str]:
        """The names in the directory, in order; none if it cannot be listed."""
        try:
            return sorted(os.listdir(self.root + self.resolved(path)))
        except OSError:
            return []

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory."""
        try:
            return os.path.isdir(self.root + self.resolved(path))
        except OSError:
            return False

    def exists(self, path: str) -> bool:
        """Whether the name is taken, be it by a link that leads nowhere."""
        return os.path.lexists(self.place(path))

    def program(self, name: str) -> str | None:
        """A program where Linux systems keep them; None: it is not there."""
        paths = (f"{directory}/{name}" for directory in PROGRAMS)
        return next((path for path in paths if self.read(path, 1) is not None), None)

    def accounts(self) -> dict[str, str]:
        """The names of the password file, with their home directories."""
        text = (self.read("/etc/passwd", 1 << 24) or b"").decode("utf-8", "surrogateescape")
        return dict(re.findall(r"^([^:\n]+):(?:[^:\n]*:){4}([^:\n]*):", text, re.MULTILINE))


PROGRAMS = ("/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin", "/command", "/package/admin")
"""Where programs are looked for."""
