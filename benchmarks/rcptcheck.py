"""What a run of cvm-rcptcheck costs, in Python and in C, beside programs that do nothing.

    python benchmarks/rcptcheck.py [--runs N] [--markdown]

Each program is run N times to its end, one after the other, on the benchmarks' small host, for an address that exists.
The figures are medians: the CPU time of the program (the daemon's is not in it), and the time from start to end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import world
from bench import OURS, accepting, clean_environment, machine

SOURCE = Path(__file__).resolve().parents[1] / "contrib/rcptcheck/rcptcheck.c"
PYTHON = "/usr/bin/python3"


class Cost(NamedTuple):
    """Milliseconds."""

    cpu: float
    whole: float


def cost(command: list[str], environment: dict[str, str], runs: int) -> Cost:
    """The medians of so many runs; asserts that each accepts."""
    cpu, whole = [], []
    for _ in range(runs):
        began = time.perf_counter()
        pid = os.posix_spawn(command[0], command, environment)
        _, status, usage = os.wait4(pid, 0)
        whole.append(time.perf_counter() - began)
        cpu.append(usage.ru_utime + usage.ru_stime)
        assert status == 0, f"{command[0]} ended with {status}"
    return Cost(statistics.median(cpu) * 1000, statistics.median(whole) * 1000)


def measured(directory: Path, runs: int) -> dict[str, Cost]:
    """The cost of each program."""
    compiled = {"in C": directory / "c", "in C, static": directory / "static"}
    for name, program in compiled.items():
        flags = ["-static", "-w"] if "static" in name else []
        subprocess.run(["cc", "-O2", *flags, "-o", program, SOURCE], check=True, stderr=subprocess.DEVNULL)
    (directory / "host").mkdir()
    host = world.small(directory / "host")
    path = directory / "daemon"
    environment = {**clean_environment(), "QMAIL_ROOT": str(host.root), "CVM_LOOKUP_SECRET": ""}
    asking = {
        **clean_environment(),
        "RECIPIENT": f"{world.user(0)}@{world.LOCAL.decode()}",
        "CVM_LOOKUP": f"cvm-local:{path}",
    }
    commands = {
        "/bin/true": ["/bin/true"],
        "python3 -I -S -c pass": [PYTHON, "-I", "-S", "-c", "pass"],
        "cvm-rcptcheck": [str(OURS.with_name("cvm-rcptcheck"))],
        **{f"cvm-rcptcheck {name}": [str(program)] for name, program in compiled.items()},
    }
    with ExitStack() as stack:
        process = subprocess.Popen([OURS, f"cvm-local:{path}"], env=environment, stdout=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        while not accepting(path):
            time.sleep(0.01)
        return {name: cost(command, asking, runs) for name, command in commands.items()}


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        costs = measured(directory, given.runs)
    print(machine())
    row = "| {} | {} | {} |" if given.markdown else "{:28} {:>8} {:>8}"
    print(row.format("program", "CPU ms", "ms"))
    if given.markdown:
        print(row.format("---", "---", "---"))
    for program, (cpu, whole) in costs.items():
        print(row.format(program, f"{cpu:.2f}", f"{whole:.2f}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
