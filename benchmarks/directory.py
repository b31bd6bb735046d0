"""The published directory: how long `cvmctl publish` takes, and what an answer of `cvm-directory` costs.

    scripts/bench directory              both databases, a million addresses: some four minutes
    scripts/bench directory 100000       fewer

Looking at the host and publishing are measured apart: the first is `cvmctl list`'s work, on a vpopmail domain of
10,000 accounts (or fewer) with homes.  What is published is made up, in one domain and in a thousand.  The databases
are the tests' own servers, on Unix sockets.  CPU time is that of all processes of the server, for each question.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import vworld
import world

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from databases import Database, MariaDb, PostgreSql, running
from directories import NAME, Directory, made
from hosts import temporary_directory
from serving import CVM_QMAIL, serving

from cvm_directory.publishing.database import connected
from cvm_directory.publishing.publication import Publication
from cvm_directory.publishing.publisher import Policy, Publisher, Refused
from cvm_directory.settings import DirectorySettings
from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.cvmctl.listing.store import ACCEPTED, Store
from cvm_qmail.protocols.cvm import client
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

PROGRAMS = CVM_QMAIL.parent
LISTED = 10_000
TICKS = os.sysconf("SC_CLK_TCK")
CLIENTS, ROUNDS, SECONDS = 4, 5, 2.0


def store(directory: Path, domains: int, addresses: int, *, without: int = -1) -> str:
    """What a survey would have found: so many addresses in all, but one."""
    path = tempfile.mkstemp(dir=directory)[1]
    made_up = Store(path)
    each = addresses // domains
    for number in range(domains):
        domain = b"d%d.example" % number
        made_up.add_place(domain, wild=False, scope="all", percenthack=False)
        for account in range(each):
            if number * each + account != without:
                made_up.add(Entry(b"first.last%d" % account, False, domain, False), ACCEPTED)
    made_up.close()
    return path


def published(directory: Directory, path: str) -> float:
    """Seconds for publishing that."""
    settings = Settings.from_environment(directory.environment("publisher"))
    refused: list[Refused] = []
    began = time.perf_counter()
    publication = Publication(path)
    database = connected(Tables(settings), DirectorySettings.from_settings(settings))
    publisher = Publisher(database, Policy("mail", force=False, include_unknown=False, dry_run=False), refused.append)
    publisher.publish(publication)
    publisher.remove_others(publication.has)
    publisher.end()
    database.close()
    publication.close()
    took = time.perf_counter() - began
    os.unlink(path)
    assert not refused, refused
    return took


def publishing(directory: Directory, addresses: int) -> Iterator[tuple[str, float]]:
    """Rows: what is published, and how long it took."""
    with temporary_directory() as files:
        for domains in (1, 1000):
            with made(directory.database) as empty:
                where = f"{addresses:,} addresses in {domains:,} domain{'s' * (domains > 1)}"
                yield f"{where}: all of them", published(empty, store(files, domains, addresses))
                yield f"{where}: nothing has changed", published(empty, store(files, domains, addresses))
                less = store(files, domains, addresses, without=addresses // 2)
                yield f"{where}: one is gone", published(empty, less)


def size(directory: Directory) -> int:
    """Bytes of the table of addresses, its index included."""
    query = {
        "mysql": "ANALYZE TABLE cvm_address; SELECT data_length + index_length FROM information_schema.tables"
        " WHERE table_name = 'cvm_address';",
        "pgsql": "SELECT pg_total_relation_size('cvm_address');",
    }[directory.database.kind]
    return int(directory.database.sql(query, NAME).split()[-1])


@contextmanager
def listed_host(accounts: int) -> Iterator[dict[str, str]]:
    """A host with a vpopmail domain; its environment."""
    with temporary_directory() as root:
        host = vworld.one_domain(root, accounts)
        world.passwd(root / "passwd", root, 0)
        yield dict(host.environment)


def cpu(pids: list[int]) -> float:
    """Seconds of processor time that these have used."""
    used = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / TICKS


class Answers(NamedTuple):
    """A round."""

    rate: float
    server: float
    """Microseconds of CPU."""
    database: float


def answers(directory: Directory, addresses: int) -> Iterator[Answers]:
    """Rounds of questions about addresses at random, every fourth one unknown."""
    host = type("Nowhere", (), {"environment": directory.environment("reader", CVM_WORKERS="2")})()
    with serving(host, program=PROGRAMS / "cvm-directory") as server:
        server.ask("first.last1", "d1.example")
        ours = [server.process.pid, *server.workers()]
        for round_number in range(ROUNDS):
            counts = [0] * CLIENTS
            until = time.perf_counter() + SECONDS
            before = cpu(ours), cpu(directory.database.pids())
            threads = [
                threading.Thread(target=_asks, args=(server.module, addresses, until, counts, number))
                for number in range(CLIENTS)
            ]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds, total = time.perf_counter() - began, sum(counts)
            after = cpu(ours), cpu(directory.database.pids())
            if round_number:  # the first one opens connections
                used = [(late - early) / total * 1e6 for early, late in zip(before, after, strict=True)]
                yield Answers(total / seconds, *used)


def _asks(module: str, addresses: int, until: float, counts: list[int], number: int) -> None:
    each = addresses // 1000
    at = number * 7919
    while time.perf_counter() < until:
        at = (at * 1103515245 + 12345) % (1 << 31)
        domain, account = at % 1000, at // 1000 % (each * 4 // 3)
        response = client.ask(module, b"first.last%d" % account, b"d%d.example" % domain)
        expected = 0 if account < each else 100
        assert response.code == expected, (account, domain, response)
        counts[number] += 1


def median(values: Iterator[Answers], of: Callable[[Answers], float]) -> str:
    """The median, with the least and the greatest."""
    found = sorted(map(of, values))
    return f"{statistics.median(found):,.0f} ({found[0]:,.0f} to {found[-1]:,.0f})"


class LargeMariaDb(MariaDb):
    """The tests' own has room for 32 MB."""

    def command(self) -> list[str]:
        """What starts it."""
        return [*super().command(), "--innodb-buffer-pool-size=512M"]


def renewing(directory: Directory) -> float:
    """Microseconds for the time of a domain, where a thousand have not changed."""
    settings = Settings.from_environment(directory.environment("publisher"))
    database = connected(Tables(settings), DirectorySettings.from_settings(settings))
    names = [f"d{number}.example" for number in range(1000)]
    began = time.perf_counter()
    for _ in range(ROUNDS):
        database.confirm(names)
    took = time.perf_counter() - began
    database.close()
    return took / ROUNDS / len(names) * 1e6


def measure(kind: type[Database], addresses: int) -> None:
    """Everything about one database."""
    with running(kind) as database, made(database) as directory:
        for what, seconds in publishing(directory, addresses):
            print(f"| {kind.__name__} | {what} | {seconds:.1f} s |", flush=True)
        print(f"| {kind.__name__} | bytes of an address | {size(directory) / addresses:.0f} |")
        print(f"| {kind.__name__} | renewing a domain that has not changed | {renewing(directory):.0f} us |")
        rounds = list(answers(directory, addresses))
        print(
            f"| {kind.__name__} | answers | {median(iter(rounds), lambda r: r.rate)} a second,"
            f" cvm-directory {median(iter(rounds), lambda r: r.server)} us,"
            f" database {median(iter(rounds), lambda r: r.database)} us |"
        )


def look(accounts: int) -> None:
    """How long `cvmctl publish` looks at a host, and how long one address takes, from start to end."""
    with running(MariaDb) as database, made(database) as directory, listed_host(accounts) as environment:
        for arguments in ([], [], ["user0000005@vpop.example"]):
            env = {**directory.environment("publisher", CVM_DIRECTORY_HOST="mail"), **environment}
            began = time.perf_counter()
            done = subprocess.run(
                [PROGRAMS / "cvmctl", "publish", *arguments], env=env, capture_output=True, text=True, check=False
            )
            took = time.perf_counter() - began
            said = " ".join((done.stdout or done.stderr).split("\n"))
            print(f"| host of {accounts:,} accounts | {said} | {took:.2f} s |")


if __name__ == "__main__":
    COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for KIND in (LargeMariaDb, PostgreSql):
        measure(KIND, COUNT)
    look(min(COUNT, LISTED))
