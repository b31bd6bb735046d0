"""This version beside an earlier one: what a change costs.

    python benchmarks/before.py OLD [NEW] [--rounds N] [--only NAME]

OLD and NEW: environments in which the versions are installed (python3 -m venv, and pip install of a checkout).  Without
NEW: this environment, where the checkout itself is installed; that start is slower, so command mode wants NEW.

Invariants: both versions serve the same host, and are measured in turn, for the same number of requests.  The figures
are medians of the ratios of neighbouring rounds, new to old: server CPU a request (less is better), and the rate.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import vworld
import world
from bench import OURS, Bench, Load, Pace, Server, Wrong, clean_environment, machine
from world import Address, Answered, Host


class Compared(NamedTuple):
    """Ratios of new to old, a pair for each pair of rounds."""

    cpu: list[float]
    rate: list[float]


class Versions(NamedTuple):
    """The programs' directories."""

    old: Path
    new: Path


def compared(old: list[Load], new: list[Load]) -> Compared:
    """The ratios of neighbouring rounds."""
    pairs = list(zip(old, new, strict=True))
    return Compared([b.cost / a.cost for a, b in pairs], [b.rate / a.rate for a, b in pairs])


def answered(bench: Bench, name: str, program: Path, host: Host, asked: list[Address]) -> Path:
    """The file for load.c, with the codes that this program gives."""
    with bench.serving(program, host, None, {}) as server:
        return bench.packets(name, [Answered(address.packet, server.ask(address.packet)[0]) for address in asked])


def again(
    bench: Bench, versions: Versions, host: Host, packets: Path, *, clients: int, settings: Mapping[str, str]
) -> Compared:
    """Both servers run, and are asked the same again and again."""
    with ExitStack() as stack:
        servers: list[Server] = [
            stack.enter_context(bench.serving(directory / "cvm-qmail", host, None, settings)) for directory in versions
        ]
        bench.warm(packets, *servers)
        old, new = bench.in_turn(*(_loading(bench, server, packets, clients) for server in servers))
    return compared(old, new)


def _loading(bench: Bench, server: Server, packets: Path, clients: int) -> Callable[[], Load]:
    return lambda: bench.load(server, packets, clients=clients)


def cold(bench: Bench, versions: Versions, host: Host, packets: Path, *, clients: int, count: int) -> Compared:
    """Each round begins with a server that has just started."""

    def starting(directory: Path) -> Callable[[], Load]:
        def measure() -> Load:
            with bench.serving(directory / "cvm-qmail", host, None, {}) as server:
                return bench.load(server, packets, clients=clients, count=count)

        return measure

    time.sleep(2.5)  # until the files of the host have settled
    old, new = bench.in_turn(*map(starting, versions))
    return compared(old, new)


def command(bench: Bench, versions: Versions) -> Compared:
    """Command mode, with all its processes: one that outlives the command is waited for, too."""
    ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
    request = bench.directory / "request"
    request.write_bytes(Address(b"user0002-list", world.LOCAL).packet)
    environment = {**clean_environment(), "QMAIL_ROOT": str(bench.small.root), "CVM_LOOKUP_SECRET": ""}

    def run(directory: Path) -> Load:
        before, began = os.times(), time.monotonic()
        for _ in range(RUNS):
            with request.open("rb") as asked:
                done = subprocess.run(
                    [directory / "cvm-qmail"], env=environment, stdin=asked, stdout=subprocess.DEVNULL, check=False
                )
            if done.returncode:
                raise Wrong(f"{directory} in command mode: exit status {done.returncode}")
        took = time.monotonic() - began
        with suppress(ChildProcessError):
            while True:
                os.wait()
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        return Load(RUNS, RUNS / took, 0, spent)

    rounds = [(run(versions.old), run(versions.new)) for _ in range(bench.pace.rounds)]
    old, new = map(list, zip(*rounds, strict=True))
    return compared(old, new)


RUNS = 10
"""Runs in command mode that make a round."""

CHILD_SUBREAPER = 36
"""For prctl(2): processes whose parent has ended become children of this one."""

OFF = {"CVM_SANDBOX": "off", "CVM_STATS": ""}
"""Without what came after 1.0.0 and guards or counts."""


def measures(bench: Bench, versions: Versions) -> dict[str, Callable[[], Compared]]:
    """All rows, by name."""
    mix = world.mix()

    def plain(clients: int, asked: list[Address], name: str, settings: Mapping[str, str]) -> Callable[[], Compared]:
        return lambda: again(
            bench,
            versions,
            bench.small,
            answered(bench, name, versions.old / "cvm-qmail", bench.small, asked),
            clients=clients,
            settings=settings,
        )

    def first_time(clients: int) -> Callable[[], Compared]:
        def measure() -> Compared:
            host, asked = bench.host("cold", world.cold), world.cold_mix()
            packets = answered(bench, "cold", versions.old / "cvm-qmail", host, asked)
            return cold(bench, versions, host, packets, clients=clients, count=len(asked))

        return measure

    def accounts(clients: int) -> Callable[[], Compared]:
        def measure() -> Compared:
            host = bench.host("thousand", lambda root: vworld.one_domain(root, 1000))
            asked = vworld.mix_with_unknown(1000)
            packets = answered(bench, "vpopmail", versions.old / "cvm-qmail", host, asked)
            return again(bench, versions, host, packets, clients=clients, settings={})

        return measure

    return {
        "one": plain(1, mix, "small", {}),
        "four": plain(4, mix, "small", {}),
        "warm-one": plain(1, mix[: world.AGAIN], "warm", {}),
        "warm-four": plain(4, mix[: world.AGAIN], "warm", {}),
        "warm-one-off": plain(1, mix[: world.AGAIN], "warm", OFF),
        "warm-four-off": plain(4, mix[: world.AGAIN], "warm", OFF),
        "cold-one": first_time(1),
        "cold-four": first_time(4),
        "vpopmail-one": accounts(1),
        "vpopmail-four": accounts(4),
        "command": lambda: command(bench, versions),
    }


def described(values: list[float]) -> str:
    """Median, and the middle half of the values."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def main() -> int:
    """Measures, and prints a line for each row."""
    parser = argparse.ArgumentParser(description="this version beside an earlier one")
    parser.add_argument("old", type=Path, help="an environment with the earlier version")
    parser.add_argument("new", type=Path, nargs="?", default=OURS.parent.parent, help="one with this version")
    parser.add_argument("--only", action="append", help="measure only this (may be repeated)")
    parser.add_argument("--rounds", type=int, default=11, help="rounds of each version")
    options = parser.parse_args()
    with world.temporary_directory() as directory:
        bench = Bench(directory, Pace(options.rounds, 0.8, 0, 0))
        rows = measures(bench, Versions(options.old.resolve() / "bin", options.new.resolve() / "bin"))
        unknown = set(options.only or ()) - rows.keys()
        if unknown:
            parser.error(f"--only: found {' '.join(sorted(unknown))}, expected some of {' '.join(rows)}")
        print("new to old: median (middle half) of neighbouring rounds", f"{'':16}{'CPU a request':26}rate", sep="\n")
        for name in options.only or rows:
            found = rows[name]()
            print(f"{name:16}{described(found.cpu):26}{described(found.rate)}", flush=True)
    print(f"{options.rounds} rounds of each on {machine()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
