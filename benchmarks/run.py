"""Speed and size of cvm-qmail beside the C program, on the same hosts, in one run.

    python benchmarks/run.py [--quick] [--only NAME] [--rounds N] [--markdown]

Law: a figure is the median of the ratios of neighbouring rounds, one of each server in turn, so that
a machine that is slower for a while is slower for both.  Only addresses on which both servers give
the same response, byte for byte, are asked; whether they do is checked first.  A failed connection or
an unexpected code anywhere is said and makes the exit status 1; a goal that is missed does not.
Nothing is measured before the files of a host have settled: a file that changed in the last two
seconds is read again for every request, as it must be.  benchmarks/README.md tells how to read it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import world
from world import Address, Answered, Host

from cvm_qmail import client

HERE = Path(__file__).parent
THEIRS = Path("/usr/bin/cvm-qmail")
OURS = Path(sys.executable).with_name("cvm-qmail")
PATIENCE = 20.0
"""Seconds after which a server is not going to start or stop any more."""

SETTLING = 2.2
"""Seconds until a changed file is trusted to be told by its times (cvm_qmail.tables.identity.SETTLED)."""

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
            (_kilobytes(f"{pid}/status", "VmRSS"), _kilobytes(f"{pid}/smaps_rollup", "Pss")) for pid in self.workers
        )

    def ask(self, packet: bytes) -> bytes:
        """The response to a packet."""
        return client.transfer(f"cvm-local:{self.path}", packet)


def _kilobytes(file: str, name: str) -> int:
    for line in Path("/proc", file).read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise Wrong(f"/proc/{file} has no {name}")


class Bench:
    """Where everything is, and what was measured."""

    def __init__(self, folder: Path, pace: Pace) -> None:
        self.folder = folder
        self.pace = pace
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.programs = {name: self._compile(name) for name in ("load", "null")}
        self.nsswitch = folder / "nsswitch.conf"
        self.nsswitch.write_text("passwd: files\ngroup: files\n")
        self.passwd = world.passwd(folder / "passwd", folder / "small", 0)
        self.may_mount = private_mounts(self.passwd, self.nsswitch)
        self._hosts: dict[str, Host] = {}
        self._mixes: dict[str, Path] = {}
        self._servers = 0

    def _compile(self, name: str) -> Path:
        program = self.folder / name
        subprocess.run(["cc", "-O2", "-o", program, HERE / f"{name}.c"], check=True)
        return program

    # -- hosts and mixes ---------------------------------------------------------------------------

    def host(self, name: str, make: Callable[[Path], Host]) -> Host:
        """The host of this name; made when it is first wanted."""
        if name not in self._hosts:
            root = self.folder / name
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
            packets = [address.packet for address in addresses]
            with self.theirs(host, passwd) as theirs, self.ours(host, passwd) as ours:
                said = [(theirs.ask(packet), ours.ask(packet)) for packet in packets]
            for address, (one, other) in zip(addresses, said, strict=True):
                if one != other:
                    raise Wrong(f"{address}: the C program answers {one!r}, ours {other!r}")
            self._mixes[name] = self.packets(
                name, [Answered(p, one[0]) for p, (one, _) in zip(packets, said, strict=True)]
            )
        return self._mixes[name]

    def packets(self, name: str, packets: list[Answered]) -> Path:
        """A file for load.c."""
        path = self.folder / f"{name}.packets"
        world.write_packets(path, packets)
        return path

    # -- servers -----------------------------------------------------------------------------------

    def theirs(self, host: Host, passwd: Path | None = None) -> AbstractContextManager[Server]:
        """The C program."""
        return self._serving(THEIRS, host, passwd)

    def ours(self, host: Host, passwd: Path | None = None) -> AbstractContextManager[Server]:
        """Ours."""
        return self._serving(OURS, host, passwd)

    @contextmanager
    def null(self) -> Iterator[Server]:
        """The null server."""
        with self._running([self.programs["null"]], {}, "") as server:
            yield server

    @contextmanager
    def _serving(self, program: Path, host: Host, passwd: Path | None) -> Iterator[Server]:
        environment = {"QMAIL_ROOT": str(host.root), "CVM_LOOKUP_SECRET": ""}
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
        path, log = self.folder / f"socket{self._servers}", self.folder / f"log{self._servers}"
        with log.open("ab") as out, log.with_suffix(".errors").open("wb") as errors:
            process = subprocess.Popen(
                [*command, f"{prefix}{path}"], env={**clean_environment(), **more}, stdout=out, stderr=errors
            )
        server = Server(process, path, log, Path(command[-1]).name)
        try:
            end = time.monotonic() + PATIENCE
            while not accepting(path):
                if process.poll() is not None or time.monotonic() > end:
                    raise Wrong(f"{server.name} does not start: {log.with_suffix('.errors').read_text()}")
                time.sleep(0.01)
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
        command = [self.programs["load"], "-c", str(clients), "-s", str(silent), "-g", "0" if bounded else "10"]
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

    def in_turn(self, *measures: Callable[[], Load], rounds: int | None = None) -> list[list[Load]]:
        """For each measure its rounds, taken A B A B."""
        taken = [[measure() for measure in measures] for _ in range(rounds or self.pace.rounds)]
        return [list(column) for column in zip(*taken, strict=True)]


# -- what is measured -------------------------------------------------------------------------------


def speed(loads: Sequence[Load]) -> str:
    """Requests a second, and microseconds of server CPU for each."""
    rate, cost = (statistics.median(values) for values in zip(*((load.rate, load.cost) for load in loads), strict=True))
    return f"{rate:,.0f} ({cost:.0f})" if rate else "0"


def ratios(loads: Sequence[Load], to: Sequence[Load]) -> tuple[str, float]:
    """Median, least and greatest ratio of neighbouring rounds; the median."""
    all_of_them = [one.rate / other.rate for one, other in zip(loads, to, strict=True)]
    middle = statistics.median(all_of_them)
    return f"{middle:.2f} ({min(all_of_them):.2f}-{max(all_of_them):.2f})", middle


def beside_c(
    bench: Bench, name: str, goal: float | None, host: Host, packets: Path, *, clients: int, passwd: Path | None = None
) -> None:
    """A row of ours to theirs."""
    with bench.theirs(host, passwd) as theirs, bench.ours(host, passwd) as ours:
        bench.warm(packets, theirs, ours)
        one, other = bench.in_turn(
            lambda: bench.load(theirs, packets, clients=clients), lambda: bench.load(ours, packets, clients=clients)
        )
    text, ratio = ratios(other, one)
    bench.rows.append(
        Row(name, speed(one), speed(other), text, f"≥ {goal}" if goal else "", ratio >= goal if goal else None)
    )


def plain_mix(bench: Bench) -> Path:
    """The mix of the small host."""
    return bench.mix("small", world.mix(), bench.small)


def one_client(bench: Bench) -> None:
    """One client at a time."""
    beside_c(bench, "one client", 1.0, bench.small, plain_mix(bench), clients=1)
    floor(bench, 1)


def four_clients(bench: Bench) -> None:
    """Four clients at a time."""
    beside_c(bench, "four clients", 1.3, bench.small, plain_mix(bench), clients=4)
    floor(bench, 4)


def floor(bench: Bench, clients: int) -> None:
    """What the kernel and the load generator cost."""
    packets = bench.packets("null", [Answered(address.packet, 0) for address in world.mix()])
    with bench.null() as null:
        (loads,) = bench.in_turn(lambda: bench.load(null, packets, clients=clients, seconds=bench.pace.seconds / 2))
    bench.notes.append(f"Floor: a null server in C, {clients} client{'s'[: clients > 1]}: {speed(loads)}.")


def passwd_1000(bench: Bench) -> None:
    """The users stand in /etc/passwd too."""
    passwd = world.passwd(bench.folder / "passwd1000", bench.small.root, world.USERS)
    packets = bench.mix("small, 1000", world.mix(), bench.small, passwd)
    beside_c(
        bench, "one client, the 1000 users also in /etc/passwd", None, bench.small, packets, clients=1, passwd=passwd
    )


def passwd_50000(bench: Bench) -> None:
    """50,000 lines in /etc/passwd, and no users/cdb."""
    host = bench.host("system", world.without_cdb)
    passwd = world.passwd(bench.folder / "passwd50000", host.root, world.SYSTEM_USERS, world.SYSTEM_USER)
    packets = bench.mix("system", world.mix_without_cdb(), host, passwd)
    beside_c(bench, "50,000 lines in /etc/passwd, one client", 20, host, packets, clients=1, passwd=passwd)


def silent(bench: Bench) -> None:
    """50 clients that connect and send nothing."""
    beside_silent(bench, "50 silent clients beside one client", 1)
    beside_silent(bench, "50 silent clients beside four clients", 4)


def beside_silent(bench: Bench, name: str, clients: int) -> None:
    """A row of ours with silent clients to ours without."""
    packets = plain_mix(bench)
    with bench.ours(bench.small) as ours:
        bench.warm(packets, ours)
        alone, disturbed = bench.in_turn(
            lambda: bench.load(ours, packets, clients=clients, seconds=SILENT_SECONDS),
            lambda: bench.load(ours, packets, clients=clients, seconds=SILENT_SECONDS, silent=50),
            rounds=min(bench.pace.rounds, 5),
        )
    with bench.theirs(bench.small) as theirs:
        stopped = bench.load(theirs, packets, clients=clients, silent=50, seconds=3, bounded=True)
    text, ratio = ratios(disturbed, alone)
    bench.rows.append(Row(name, speed([stopped]), speed(disturbed), text, f"≥ 0.9 of {speed(alone)}", ratio >= 0.9))


def larger(bench: Bench, name: str, label: str, make: Callable[[Path], Host]) -> None:
    """A row of a large host to the small one."""
    packets = plain_mix(bench)
    host = bench.host(name, make)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(server(which)) for server in (bench.ours, bench.theirs) for which in (bench.small, host)
        ]
        bench.warm(packets, *servers)
        ours_small, ours_large = bench.in_turn(*(lambda s=s: bench.load(s, packets) for s in servers[:2]))
        _, theirs_large = bench.in_turn(*(lambda s=s: bench.load(s, packets) for s in servers[2:]), rounds=3)
    text, ratio = ratios(ours_large, ours_small)
    bench.rows.append(
        Row(label, speed(theirs_large), speed(ours_large), text, f"≥ 0.9 of {speed(ours_small)}", ratio >= 0.9)
    )


def large_cdb(bench: Bench) -> None:
    """A million entries in users/cdb."""
    larger(
        bench, "cdb", "a million entries in users/cdb", lambda root: world.with_entries(root, bench.small, 1_000_000)
    )


def large_virtualdomains(bench: Bench) -> None:
    """100,000 virtual domains."""
    larger(
        bench, "virtualdomains", "100,000 virtualdomains", lambda root: world.with_domains(root, bench.small, 100_000)
    )


def memory(bench: Bench) -> None:
    """Resident memory of a worker that has answered everything once."""
    for users in (0, 1000, 50_000) if bench.may_mount else (0,):
        passwd = world.passwd(bench.folder / f"memory{users}", bench.small.root, users, "user{:05}") if users else None
        packets = plain_mix(bench)
        with bench.theirs(bench.small, passwd) as theirs, bench.ours(bench.small, passwd) as ours:
            bench.warm(packets, theirs, ours)
            bench.load(ours, packets, clients=4, count=10 * world.ASKED)
            one, other = theirs.memory(), ours.memory()
        label = f"memory of a worker, {users or 'no'} users in /etc/passwd".replace("50000", "50,000")
        goal = "" if users > 1000 else "< 30 MB"
        bench.rows.append(Row(label, size(one), size(other), "", goal, other[0] < 30 * MB if goal else None))


def size(memory: tuple[int, int]) -> str:
    """Resident, and with shared pages divided among those who share them."""
    return "{:.1f} MB (PSS {:.1f})".format(*(kilobytes / MB for kilobytes in memory))


def attack(bench: Bench) -> None:
    """Distinct names that do not exist."""
    packets = plain_mix(bench)
    names = bench.packets("dictionary", world.dictionary(bench.pace.names))
    with bench.ours(bench.small) as ours:
        bench.warm(packets, ours)
        bench.load(ours, packets, clients=4, count=10 * world.ASKED)
        before = {pid: _kilobytes(f"{pid}/status", "VmRSS") for pid in ours.workers}
        load = bench.load(ours, names, clients=4, count=bench.pace.names)
        after = {pid: _kilobytes(f"{pid}/status", "VmRSS") for pid in ours.workers}
    if not before.keys() <= after.keys():
        raise Wrong("a worker was replaced during the attack")
    growth = max(after[pid] - before[pid] for pid in before)
    bench.rows.append(
        Row(
            f"growth of a worker by {bench.pace.names:,} unknown names",
            "",
            f"{growth} kB, at {speed([load])}",
            "",
            "< 1 MB",
            growth < MB,
        )
    )


def command(bench: Bench) -> None:
    """Command mode: one process a request."""
    plain_mix(bench)
    request = bench.folder / "request"
    request.write_bytes(Address(b"user0002-list", world.LOCAL).packet)
    environment = {**clean_environment(), "QMAIL_ROOT": str(bench.small.root), "CVM_LOOKUP_SECRET": ""}
    spent: dict[Path, list[float]] = {THEIRS: [], OURS: []}
    for _ in range(bench.pace.commands):
        for program, times in spent.items():
            with request.open("rb") as asked, (bench.folder / "log").open("wb") as out:
                process = subprocess.Popen([program], env=environment, stdin=asked, stdout=out)
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise Wrong(f"{program} in command mode: exit status {process.returncode}")
            times.append((usage.ru_utime + usage.ru_stime) * 1000)
    theirs, ours = (f"{statistics.median(times):.1f} ms" for times in spent.values())
    met = statistics.median(spent[OURS]) < 60
    bench.rows.append(Row("CPU of one request in command mode", theirs, ours, "", "< 60 ms", met))


MEASURES: dict[str, Callable[[Bench], None]] = {
    "one": one_client,
    "four": four_clients,
    "passwd1000": passwd_1000,
    "passwd": passwd_50000,
    "silent": silent,
    "cdb": large_cdb,
    "virtualdomains": large_virtualdomains,
    "memory": memory,
    "attack": attack,
    "command": command,
}
NEED_MOUNTS = ("passwd1000", "passwd")


# -- the table --------------------------------------------------------------------------------------

HEAD = ("", "C program", "ours", "ratio", "goal", "met")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    return (*row[:5], {True: "yes", False: "NO", None: ""}[row.met])


def plain(rows: Sequence[Row]) -> str:
    """A table for a terminal."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """A table for the README."""
    lines = [HEAD, ("---",) * len(HEAD), *map(cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


LEGEND = (
    "Requests a second (microseconds of server CPU for each); ratio: median (least-greatest) of neighbouring rounds."
)


def main() -> int:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description="cvm-qmail beside the C program")
    parser.add_argument("--quick", action="store_true", help="short rounds: a look, not a figure to quote")
    parser.add_argument("--only", action="append", choices=MEASURES, help="measure only this (may be repeated)")
    parser.add_argument("--rounds", type=int, help="rounds of each server")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    options = parser.parse_args()
    pace = Pace(3, 0.5, 100_000, 20) if options.quick else Pace(11, 0.8, 1_000_000, 20)
    if options.rounds:
        pace = pace._replace(rounds=options.rounds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers and files are cleared away
    began = time.monotonic()
    failed = False
    with world.a_folder() as folder:
        bench = Bench(folder, pace)
        for name in options.only or MEASURES:
            if name in NEED_MOUNTS and not bench.may_mount:
                bench.notes.append(f"Not measured: {name}. It takes root to put another file in place of /etc/passwd.")
                continue
            print(f"[{time.monotonic() - began:3.0f} s] {MEASURES[name].__doc__}", file=sys.stderr, flush=True)
            try:
                MEASURES[name](bench)
            except Wrong as wrong:
                print(f"WRONG: {name}: {wrong}", file=sys.stderr, flush=True)
                failed = True
    print((markdown if options.markdown else plain)(bench.rows), "", LEGEND, *bench.notes, sep="\n")
    print(f"{pace.rounds} rounds of {pace.seconds:g} s on {machine()}.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
