"""Speed and size of cvm-qmail beside the C program, on the same hosts, in one run.

    python benchmarks/run.py [--quick] [--only NAME] [--rounds N] [--markdown]

Invariants: a figure is the median of the ratios of neighbouring rounds, one of each server in turn, so that
a machine that is slower for a while is slower for both.  Only addresses on which both servers give
the same response, byte for byte, are asked; whether they do is checked first.  A failed connection or
an unexpected code anywhere is said and makes the exit status 1; a goal that is missed does not.
Nothing is measured before the files of a host have settled: a file that changed in the last two
seconds is read again for every request, as it must be.  benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import programs
import vpopmail
import vpopmail_sql
import world
from bench import (
    MB,
    OURS,
    SETTLING,
    SILENT_SECONDS,
    THEIRS,
    Bench,
    Load,
    Pace,
    Row,
    Server,
    Wrong,
    clean_environment,
    kilobytes,
    machine,
    ratios,
    speed,
)
from world import Address, Answered, Host

# -- what is measured -------------------------------------------------------------------------------


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


def warm_one(bench: Bench) -> None:
    """One client at a time, 200 addresses again and again."""
    warm(bench, 2.0, 1)


def warm_four(bench: Bench) -> None:
    """Four clients at a time, 200 addresses again and again."""
    warm(bench, 2.5, 4)


def warm(bench: Bench, goal: float, clients: int) -> None:
    """A row of ours to theirs, and the system calls."""
    packets = bench.mix("warm", world.mix()[: world.AGAIN], bench.small)
    beside_c(bench, f"warm: 200 addresses, {clients_of(clients)}", goal, bench.small, packets, clients=clients)
    with bench.theirs(bench.small) as theirs:
        bench.warm(packets, theirs)
        ceiling(bench, f"warm, {clients_of(clients)}", lambda: bench.load(theirs, packets, clients=clients), clients)
    if clients == 1:
        count_calls(bench, "warm", bench.small, packets)


def cold_one(bench: Bench) -> None:
    """One client at a time, 20,000 addresses once or twice."""
    cold(bench, 1.5, 1)


def cold_four(bench: Bench) -> None:
    """Four clients at a time, 20,000 addresses once or twice."""
    cold(bench, 2.0, 4)


def cold(bench: Bench, goal: float, clients: int) -> None:
    """A row of ours to theirs: each round begins with servers that have just started, and asks everything."""
    host = bench.host("cold", world.cold)
    addresses = world.cold_mix()
    packets = bench.mix("cold", addresses, host)
    time.sleep(SETTLING)

    def measure(serving: Callable[[Host], AbstractContextManager[Server]]) -> Load:
        with serving(host) as server:
            return bench.load(server, packets, clients=clients, count=len(addresses))

    one, other = bench.in_turn(
        lambda: measure(bench.theirs), lambda: measure(bench.ours), rounds=min(bench.pace.rounds, COLD_ROUNDS)
    )
    text, ratio = ratios(other, one)
    name = f"cold: 20,000 addresses, {clients_of(clients)}"
    bench.rows.append(Row(name, speed(one), speed(other), text, f"≥ {goal}", ratio >= goal))
    ceiling(bench, f"cold, {clients_of(clients)}", lambda: measure(bench.theirs), clients)
    if clients == 1:
        count_calls(bench, "cold", host, packets)


def count_calls(bench: Bench, name: str, host: Host, packets: Path) -> None:
    """A note of the system calls of both servers."""
    if shutil.which("strace") is None:
        bench.notes.append(f"System calls, {name}: not counted, strace is not installed.")
        return
    for serving in (bench.theirs, bench.ours):
        with serving(host) as server:
            bench.load(server, packets, count=TRACED)
            bench.notes.append(
                f"System calls a request, {name}, {server.name}: {bench.system_calls(server, packets, TRACED)}."
            )


def clients_of(count: int) -> str:
    """How many clients."""
    return "one client" if count == 1 else "four clients"


def ceiling(bench: Bench, name: str, theirs: Callable[[], Load], clients: int) -> None:
    """A note of how many times the C program's rate any server can reach: one that looks at nothing."""
    packets = null_packets(bench)
    with bench.null() as null:
        one, other = bench.in_turn(
            theirs, lambda: bench.load(null, packets, clients=clients), rounds=min(bench.pace.rounds, COLD_ROUNDS)
        )
    bench.notes.append(f"Ceiling, {name}: a null server in C is at {ratios(other, one)[0]} of the C program.")


def null_packets(bench: Bench) -> Path:
    """The file for load.c, with the answers of the null server."""
    return bench.packets("null", [Answered(address.packet, 0) for address in world.mix()])


def floor(bench: Bench, clients: int) -> None:
    """What the kernel and the load generator cost."""
    packets = null_packets(bench)
    with bench.null() as null:
        (loads,) = bench.in_turn(lambda: bench.load(null, packets, clients=clients, seconds=bench.pace.seconds / 2))
    bench.notes.append(f"Floor: a null server in C, {clients} client{'s'[: clients > 1]}: {speed(loads)}.")


def passwd_1000(bench: Bench) -> None:
    """The users stand in /etc/passwd too."""
    passwd = world.passwd(bench.directory / "passwd1000", bench.small.root, world.USERS)
    packets = bench.mix("small, 1000", world.mix(), bench.small, passwd)
    beside_c(
        bench, "one client, the 1000 users also in /etc/passwd", None, bench.small, packets, clients=1, passwd=passwd
    )


def passwd_50000(bench: Bench) -> None:
    """50,000 lines in /etc/passwd, and no users/cdb."""
    host = bench.host("system", world.without_cdb)
    passwd = world.passwd(bench.directory / "passwd50000", host.root, world.SYSTEM_USERS, world.SYSTEM_USER)
    packets = bench.mix("system", world.mix_without_cdb(), host, passwd)
    beside_c(bench, "50,000 lines in /etc/passwd, one client", 20, host, packets, clients=1, passwd=passwd)


def silent(bench: Bench) -> None:
    """50 clients that connect and send nothing."""
    beside_silent(bench, "50 silent clients and one client", 1)
    beside_silent(bench, "50 silent clients and four clients", 4)


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
        passwd = (
            world.passwd(bench.directory / f"memory{users}", bench.small.root, users, "user{:05}") if users else None
        )
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
    return "{:.1f} MB (PSS {:.1f})".format(*(amount / MB for amount in memory))


def attack(bench: Bench) -> None:
    """Distinct names that do not exist."""
    packets = plain_mix(bench)
    names = bench.packets("dictionary", world.dictionary(bench.pace.names))
    with bench.ours(bench.small) as ours:
        bench.warm(packets, ours)
        bench.load(ours, packets, clients=4, count=10 * world.ASKED)
        before = {pid: kilobytes(f"{pid}/status", "VmRSS") for pid in ours.workers}
        load = bench.load(ours, names, clients=4, count=bench.pace.names)
        after = {pid: kilobytes(f"{pid}/status", "VmRSS") for pid in ours.workers}
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
    request = bench.directory / "request"
    request.write_bytes(Address(b"user0002-list", world.LOCAL).packet)
    environment = {**clean_environment(), "QMAIL_ROOT": str(bench.small.root), "CVM_LOOKUP_SECRET": ""}
    spent: dict[Path, list[float]] = {THEIRS: [], OURS: []}
    for _ in range(bench.pace.commands):
        for program, times in spent.items():
            with request.open("rb") as asked, (bench.directory / "log").open("wb") as out:
                process = subprocess.Popen([program], env=environment, stdin=asked, stdout=out)
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise Wrong(f"{program} in command mode: exit status {process.returncode}")
            times.append((usage.ru_utime + usage.ru_stime) * 1000)
    theirs, ours = (f"{statistics.median(times):.1f} ms" for times in spent.values())
    met = statistics.median(spent[OURS]) < 60
    bench.rows.append(Row("CPU of one request in command mode", theirs, ours, "", "< 60 ms", met))


COLD_ROUNDS = 5
"""Rounds of some seconds each."""

TRACED = 5000
"""Requests under strace."""

MEASURES: dict[str, Callable[[Bench], None]] = {
    "one": one_client,
    "four": four_clients,
    "warm-one": warm_one,
    "warm-four": warm_four,
    "cold-one": cold_one,
    "cold-four": cold_four,
    "passwd1000": passwd_1000,
    "passwd": passwd_50000,
    "silent": silent,
    "cdb": large_cdb,
    "virtualdomains": large_virtualdomains,
    "memory": memory,
    "attack": attack,
    "command": command,
    **programs.MEASURES,
    **vpopmail.MEASURES,
    **vpopmail_sql.MEASURES,
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
    with world.temporary_directory() as directory:
        bench = Bench(directory, pace)
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
