"""Servers under load, in alternating rounds: what run.py measures with.

Invariants: a figure is the median of the ratios of neighbouring rounds, one of each server in turn, so that
a machine that is slower for a while is slower for both.  A failed connection or an unexpected code
anywhere makes every figure worthless (`Wrong`).
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import world
from world import Address, Answered, Host

from cvm_qmail.protocols.cvm import client

HERE = Path(__file__).parent
THEIRS = Path("/usr/bin/cvm-qmail")
OURS = Path(sys.executable).with_name("cvm-qmail")
PATIENCE = 20.0
"""Seconds after which a server is not going to start or stop any more."""

SETTLING = 2.2
"""Seconds until a changed file is trusted to be known by its times (cvm_qmail.tables.identity.SETTLED)."""

SILENT_SECONDS = 2.0
"""A round beside silent clients: long enough for the server to close them, and for others to take their places."""

IN_NAMESPACE = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"'
"""For sh in a mount namespace of its own: a program that sees another password file."""

MB = 1024
"""In kB, as /proc counts."""


class Wrong(Exception):
    """What makes every figure worthless."""


class Pace(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float
    names: int
    """Distinct names of the dictionary attack."""
    commands: int


class Load(NamedTuple):
    """What load.c has to say, and what the server spent meanwhile."""

    done: int
    rate: float
    stuck: int
    cpu: float
    """Seconds of CPU of all the server's processes."""

    @property
    def cost(self) -> float:
        """Microseconds of server CPU a request."""
        return self.cpu / self.done * 1e6 if self.done else 0.0


class Calls(NamedTuple):
    """System calls of all of a server's processes for one request."""

    total: float
    by_name: Mapping[str, float]

    def __str__(self) -> str:
        often = sorted(self.by_name.items(), key=lambda item: -item[1])
        return f"{self.total:.1f} ({', '.join(f'{count:.2f} {name}' for name, count in often if count >= 0.01)})"


class Row(NamedTuple):
    """A line of the table; an empty string where there is nothing to say."""

    name: str
    theirs: str
    ours: str
    ratio: str = ""
    goal: str = ""
    met: bool | None = None


# -- the machine ------------------------------------------------------------------------------------


def private_mounts(passwd: Path, nsswitch: Path) -> bool:
    """From now on this process and its children see these in /etc; False if it may not do that."""
    new_mounts = 0x20000  # CLONE_NEWNS
    if ctypes.CDLL(None).unshare(new_mounts):
        return False
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", passwd, "/etc/passwd"], check=True)
    subprocess.run(["mount", "--bind", nsswitch, "/etc/nsswitch.conf"], check=True)
    return True


def clean_environment() -> dict[str, str]:
    """The environment without what would change a server."""
    ours = ("CVM_", "QMAIL", "NSS_WRAPPER", "LD_", "PYTHON", "LISTEN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def accepting(path: Path) -> bool:
    """Whether somebody answers there.  Sends a whole request: a bare connection kills the C program."""
    try:
        client.transfer(f"cvm-local:{path}", b"\2\0\0", 5)
    except client.NoAnswer:
        return False
    return True


def wait_until(true: Callable[[], object], what: str) -> None:
    """Returns when it is true.  Raises `Wrong` if it does not become true."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise Wrong(f"{what} does not start")
        time.sleep(0.01)


def machine() -> str:
    """What this is run on, in one line."""
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").open() if line.startswith("model name")),
        platform.machine(),
    )
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {cpu}, Linux {platform.release()}, Python {platform.python_version()}"


# -- programs ---------------------------------------------------------------------------------------


class Server:
    """A running server, ours, the C program or the null server."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, log: Path, name: str) -> None:
        self.process = process
        self.path = path
        self.log = log
        self.name = name

    @property
    def workers(self) -> list[int]:
        """The processes that answer: its children, or itself if it has none."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children] or [pid]

    def cpu(self) -> float:
        """Seconds of CPU of all its processes."""
        ticks = 0
        for pid in {self.process.pid, *self.workers}:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[int, int]:
        """Resident and proportional memory (VmRSS, Pss) of the largest of its processes that answer, in kB."""
        return max(
            (kilobytes(f"{pid}/status", "VmRSS"), kilobytes(f"{pid}/smaps_rollup", "Pss")) for pid in self.workers
        )

    def ask(self, packet: bytes) -> bytes:
        """The response to a packet."""
        return client.transfer(f"cvm-local:{self.path}", packet)


def kilobytes(file: str, name: str) -> int:
    """A figure of a file in /proc."""
    for line in Path("/proc", file).read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise Wrong(f"/proc/{file} has no {name}")


class Bench:
    """Where everything is, and what was measured."""

    def __init__(self, directory: Path, pace: Pace) -> None:
        self.directory = directory
        self.pace = pace
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.programs = {name: self._compile(name) for name in ("load", "null")}
        self.nsswitch = directory / "nsswitch.conf"
        self.nsswitch.write_text("passwd: files\ngroup: files\n")
        self.passwd = world.passwd(directory / "passwd", directory / "small", 0)
        self.may_mount = private_mounts(self.passwd, self.nsswitch)
        self._hosts: dict[str, Host] = {}
        self._mixes: dict[str, Path] = {}
        self._servers = 0

    def _compile(self, name: str) -> Path:
        program = self.directory / name
        subprocess.run(["cc", "-O2", "-o", program, HERE / f"{name}.c"], check=True)
        return program

    # -- hosts and mixes ---------------------------------------------------------------------------

    def host(self, name: str, make: Callable[[Path], Host]) -> Host:
        """The host of this name; made when it is first wanted."""
        if name not in self._hosts:
            root = self.directory / name
            root.mkdir()
            self._hosts[name] = make(root)
        return self._hosts[name]

    @property
    def small(self) -> Host:
        """1000 users in users/cdb."""
        return self.host("small", world.small)

    def mix(self, name: str, addresses: Sequence[Address], host: Host, passwd: Path | None = None) -> Path:
        """The file for load.c.  Raises `Wrong` unless both servers answer every address with the same bytes."""
        if name not in self._mixes:
            codes: dict[Address, int] = {}
            with self.theirs(host, passwd) as theirs, self.ours(host, passwd) as ours:
                for address in dict.fromkeys(addresses):
                    one, other = theirs.ask(address.packet), ours.ask(address.packet)
                    if one != other:
                        raise Wrong(f"{address}: the C program answers {one!r}, ours {other!r}")
                    codes[address] = one[0]
            self._mixes[name] = self.packets(name, [Answered(a.packet, codes[a]) for a in addresses])
        return self._mixes[name]

    def packets(self, name: str, packets: list[Answered]) -> Path:
        """A file for load.c."""
        path = self.directory / f"{name}.packets"
        world.write_packets(path, packets)
        return path

    # -- servers -----------------------------------------------------------------------------------

    def theirs(self, host: Host, passwd: Path | None = None) -> AbstractContextManager[Server]:
        """The C program."""
        return self.serving(THEIRS, host, passwd, {})

    def ours(self, host: Host, passwd: Path | None = None, /, **more: str) -> AbstractContextManager[Server]:
        """Ours; `more`: environment variables."""
        return self.serving(OURS, host, passwd, more)

    @contextmanager
    def null(self) -> Iterator[Server]:
        """The null server."""
        with self._running([self.programs["null"]], {}, "") as server:
            yield server

    @contextmanager
    def serving(self, program: Path, host: Host, passwd: Path | None, more: Mapping[str, str]) -> Iterator[Server]:
        """A server of this program; `more`: environment variables."""
        environment = {"QMAIL_ROOT": str(host.root), "CVM_LOOKUP_SECRET": "", **more}
        with self._running([*self.seeing(passwd), program], environment, "cvm-local:") as server:
            yield server

    def seeing(self, passwd: Path | None) -> list[str | Path]:
        """What to put before a program so that it sees this password file ; None: the small one."""
        if not self.may_mount or passwd is None:
            return []
        return ["unshare", "-m", "sh", "-c", IN_NAMESPACE, "sh", passwd, self.nsswitch]

    @contextmanager
    def _running(self, command: list[str | Path], more: Mapping[str, str], prefix: str) -> Iterator[Server]:
        self._servers += 1
        path, log = self.directory / f"socket{self._servers}", self.directory / f"log{self._servers}"
        with log.open("ab") as out, log.with_suffix(".errors").open("wb") as errors:
            process = subprocess.Popen(
                [*command, f"{prefix}{path}"], env={**clean_environment(), **more}, stdout=out, stderr=errors
            )
        server = Server(process, path, log, Path(command[-1]).name)
        try:
            wait_until(lambda: process.poll() is not None or accepting(path), server.name)
            if process.poll() is not None:
                raise Wrong(f"{server.name} does not start: {log.with_suffix('.errors').read_text()}")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # -- measuring -----------------------------------------------------------------------------------

    def load(
        self,
        server: Server,
        packets: Path,
        *,
        clients: int = 1,
        silent: int = 0,
        seconds: float | None = None,
        count: int = 0,
        bounded: bool = False,
    ) -> Load:
        """One round.  `bounded`: clients that are stuck at its end are no fault."""
        command: list[str | Path] = [
            self.programs["load"],
            "-c",
            str(clients),
            "-s",
            str(silent),
            "-g",
            "0" if bounded else "10",
        ]
        command += ["-n", str(count)] if count else ["-t", str(seconds or self.pace.seconds)]
        os.truncate(server.log, 0)
        before = server.cpu()
        run = subprocess.run([*command, server.path, packets], check=True, text=True, capture_output=True)
        said = dict(word.split("=") for word in run.stdout.split())
        wrong, stuck = int(said["wrong"]), int(said["stuck"])
        if wrong or (stuck and not bounded) or (int(said["silent"]) < silent and not bounded):
            raise Wrong(f"{server.name}, {clients} clients: {run.stdout.strip()}\n{run.stderr}")
        return Load(int(said["done"]), float(said["rate"]), stuck, server.cpu() - before)

    def warm(self, packets: Path, *servers: Server) -> None:
        """Waits until what the servers look at has settled, and lets every worker meet it."""
        time.sleep(SETTLING)
        for server in servers:
            self.load(server, packets, clients=4, seconds=0.5)

    def system_calls(self, server: Server, packets: Path, count: int) -> Calls:
        """One round under strace(1): system calls a request, by their names."""
        report = self.directory / "calls"
        processes = [word for pid in server.workers for word in ("-p", str(pid))]
        tracer = subprocess.Popen(["strace", "-c", "-f", "-q", "-o", report, *processes], stderr=subprocess.PIPE)
        try:
            wait_until(lambda: all(kilobytes(f"{pid}/status", "TracerPid") for pid in server.workers), "strace")
            done = self.load(server, packets, count=count).done
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(PATIENCE)
        lines = (line.split() for line in report.read_text().splitlines()[2:])
        counted = {words[-1]: int(words[3]) / done for words in lines if words[3].isdigit() and words[-1] != "total"}
        return Calls(sum(counted.values()), counted)

    def in_turn(self, *measures: Callable[[], Load], rounds: int | None = None) -> list[list[Load]]:
        """For each measure its rounds, taken A B A B."""
        taken = [[measure() for measure in measures] for _ in range(rounds or self.pace.rounds)]
        return [list(column) for column in zip(*taken, strict=True)]


# -- figures -------------------------------------------------------------------------------


def speed(loads: Sequence[Load]) -> str:
    """Requests a second, and microseconds of server CPU for each."""
    rate, cost = (statistics.median(values) for values in zip(*((load.rate, load.cost) for load in loads), strict=True))
    return f"{rate:,.0f} ({cost:.0f})" if rate else "0"


def ratios(loads: Sequence[Load], to: Sequence[Load]) -> tuple[str, float]:
    """Median, least and greatest ratio of neighbouring rounds; the median."""
    all_of_them = [one.rate / other.rate for one, other in zip(loads, to, strict=True)]
    middle = statistics.median(all_of_them)
    return f"{middle:.2f} ({min(all_of_them):.2f}-{max(all_of_them):.2f})", middle
