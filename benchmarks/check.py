"""How fast `cvmctl check` looks 100,000 addresses up, and `cvmctl audit` reads 1,000,000 lines of a log.

    python benchmarks/check.py [--addresses N] [--lines N] [--rounds N]

The host is that of the other benchmarks (`world.small`: 1000 users in users/cdb); the addresses are its
mix, over and over.  The log is what qmail-send would have written for the same mix on ninety days.  Each
figure is the median of the rounds, from the start of the command to its end, with the peak of its own
memory (without its children).  An exit status that is not expected makes every figure worthless.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import world
from bench import SETTLING
from world import Address, Host, temporary_directory

CVMCTL = Path(sys.executable).with_name("cvmctl")

GOALS = {"check": 10_000, "audit": 50_000}
"""Addresses, and lines, in a second on two cores."""

EXPECTED = {"check": 1, "audit": 0}
"""Exit status: some addresses of the mix do not exist; nothing that was delivered would be refused."""


def main() -> int:
    """The command; 1 if a goal is missed, or a run went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--addresses", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with temporary_directory() as root:
        host = world.small(root)
        world.passwd(root / "passwd", root, 0)
        mix = world.mix()
        listed, log = root / "list", root / "log"
        with listed.open("wb") as out:
            out.writelines(b"%s@%s\n" % address for address in islice(cycle(mix), options.addresses))
        with log.open("wb") as out:
            out.writelines(islice(send_log(mix), options.lines))
        time.sleep(SETTLING)
        met = [
            measured("check", host, options.rounds, options.addresses, listed),
            measured("audit", host, options.rounds, options.lines, log),
        ]
    return 0 if all(met) else 1


def measured(name: str, host: Host, rounds: int, work: int, argument: Path) -> bool:
    """Runs `cvmctl name` and prints its pace; whether the goal is met."""
    seconds, peak = [], 0
    for _ in range(rounds):
        began = time.monotonic()
        with subprocess.Popen(
            [CVMCTL, name, argument], env={**os.environ, **host.environment}, stdout=subprocess.DEVNULL
        ) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds.append(time.monotonic() - began)
        peak = max(peak, usage.ru_maxrss)
        if process.returncode != EXPECTED[name]:
            print(f"WRONG: cvmctl {name} ended with {process.returncode}", file=sys.stderr)
            return False
    pace = work / statistics.median(seconds)
    spread = f"{min(seconds):.1f} to {max(seconds):.1f} s"
    print(f"{name:6} {work:>9,} in {statistics.median(seconds):.1f} s ({spread}): {pace:,.0f} a second", end="")
    print(f" (goal {GOALS[name]:,}), {peak // 1024} MB")
    return pace >= GOALS[name]


def send_log(mix: list[Address]) -> Iterator[bytes]:
    """Lines that qmail-send would have written, with TAI64N labels: one message for each address, day after day."""
    dice = random.Random(3)
    virtual = dict(line.split(":") for line in _virtualdomains())
    second = (1 << 62) + 10 + 1_790_000_000
    for number, (account, domain) in enumerate(cycle(mix), 1):
        second += dice.randrange(60)
        prefix = virtual.get(domain.decode(), "")
        name = f"{prefix}-{account.decode()}" if prefix else account.decode()
        channel = "remote" if b"elsewhere" in domain else "local"
        missing = channel == "local" and not prefix and not exists(name)
        message = 2_400_000 + number % 500
        lines = [
            f"new msg {message}",
            f"info msg {message}: bytes {dice.randrange(400, 40_000)} from <x{number}@far.test> qp {number} uid 7791",
            f"starting delivery {number}: msg {message} to {channel} {name}@{domain.decode()}",
            "status: local 1/10 remote 0/20",
            f"delivery {number}: " + (f"failure: {NO_MAILBOX}" if missing else "success: did_1+0+0/"),
            "status: local 0/10 remote 0/20",
            f"bounce msg {message} qp {number}" if missing else "",
            f"end msg {message}",
        ]
        for at, line in enumerate(filter(None, lines)):
            yield b"@%016x%08x %s\n" % (second, at * 1000, line.encode())


def exists(name: str) -> bool:
    """Whether qmail has a mailbox for a name of the mix, in the small host."""
    user, dash, extension = name.lower().partition("-")
    if name.lower() in ("postmaster", "mailer-daemon", "root"):
        return True
    if not user.startswith("user"):
        return False
    kind = int(user.removeprefix("user")) % 4
    return not dash or kind == 3 or (kind == 2 and extension == "list")


NO_MAILBOX = "Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/"


def _virtualdomains() -> Iterator[str]:
    for number in range(3, 43, 4):
        yield f"{world.domain(number)}:{world.user(number % world.USERS)}"


if __name__ == "__main__":
    sys.exit(main())
