"""Machines of Debian 12 for tests: a clean system in namespaces of its own, with systemd or without.

The system is made once, by mmdebstrap, into build/chroot; a machine's changes are in memory and go with it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hosts import temporary_directory
from serving import until

TOP = Path(__file__).parent.parent
CHROOT = TOP / "build/chroot"
SUITE = "bookworm"
PACKAGES = "adduser,cvm,python3,python3-click,python3-construct,python3-h11,python3-rich,runit,systemd"
"""What our packages depend on and recommend, and whom they are to get along with."""
HOW = (
    "--variant=essential",  # without apt: a test installs with dpkg
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",  # what the package usrmerge would do, in Perl
    f"--include=usr-is-merged,{PACKAGES}",
    "--dpkgopt=force-unsafe-io",
)

APART = ("unshare", "--mount", "--propagation", "private")
"""What mounts anything does it in a namespace of its own."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Done = subprocess.CompletedProcess[str]


class Machine(NamedTuple):
    """A machine that is running."""

    pid: int
    """Of its first process."""

    @property
    def root(self) -> Path:
        """Its files."""
        return Path(f"/proc/{self.pid}/root")

    def run(self, *command: str, check: bool = True, **environment: str) -> Done:
        """Runs a command in it, as root."""
        inside = ("nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")
        known = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **environment}
        settings = [f"{name}={value}" for name, value in known.items()]
        done = subprocess.run(
            [*inside, "env", "-i", *settings, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def sh(self, script: str, *, check: bool = True) -> Done:
        """Runs a shell script in it, as root."""
        return self.run("sh", "-c", script, check=check)

    def put(self, path: str, data: str = "", mode: int = 0o644) -> None:
        """Writes a file, with the directories that it is in."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(data)
        place.chmod(mode)

    def text(self, path: str) -> str:
        """What is in a file."""
        return (self.root / path.lstrip("/")).read_text()

    def exists(self, path: str) -> bool:
        """Whether the name is there."""
        return os.path.lexists(self.root / path.lstrip("/"))

    def install(self, *packages: Path) -> Done:
        """Dpkg -i of these files; whatever is not there may not be fetched."""
        for package in packages:
            shutil.copy(package, self.root / "tmp")
        return self.run("dpkg", "--install", *(f"/tmp/{package.name}" for package in packages))


def system() -> Path:
    """The files of a clean system; made when they are not there yet, which takes a minute."""
    CHROOT.mkdir(parents=True, exist_ok=True)
    made, wanted = CHROOT / SUITE, f"{SUITE} {' '.join(HOW)}\n"
    with open(CHROOT / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = CHROOT / "made"
        if stamp.exists() and stamp.read_text() == wanted:
            return made
        shutil.rmtree(made, ignore_errors=True)
        done = subprocess.run(
            [*APART, "mmdebstrap", "--quiet", *HOW, SUITE, made],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            pytest.skip(f"PEER MISSING: mmdebstrap cannot make a system: {done.stderr[-500:]}")
        stamp.write_text(wanted)
    return made


@contextmanager
def machine(kind: str) -> Iterator[Machine]:
    """A machine with the first process `kind`: systemd or plain."""
    tree = system()
    with temporary_directory() as work:
        outer = subprocess.Popen(
            [*APART, "sh", TOP / "tests/packages/machine.sh", tree, work, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert outer.stdin is not None
        assert outer.stdout is not None
        assert outer.stderr is not None
        try:
            said = outer.stdout.readline().strip()
            if not said:
                pytest.skip(f"PEER MISSING: no {kind} machine here: {outer.stderr.read()[-500:]}")
            yield _first(int(said), kind)
        finally:
            outer.stdin.close()
            outer.wait(30)
            outer.stdout.close()
            outer.stderr.close()


def _first(outer: int, kind: str) -> Machine:
    """The machine, when its first process is there and ready."""
    children = Path(f"/proc/{outer}/task/{outer}/children")
    pid = int(until(lambda: children.read_text().split(), "its first process")[0])
    found = Machine(pid)
    program = "systemd" if kind == "systemd" else "python3"
    until(lambda: Path(f"/proc/{pid}/comm").read_text().startswith(program), "the machine has its files")
    if kind == "systemd":
        until(lambda: found.run("systemctl", "is-system-running", check=False).stdout.strip() in READY, "systemd is up")
    found.run("python3", "-c", LOOPBACK)
    return found


READY = ("running", "degraded")

LOOPBACK = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
"""
