"""Postfix's own lookup program on our socketmap, beside its mysql map and its cdb, with the same addresses.

    python benchmarks/postmap.py [--keys N] [--rounds N] [--connections N] [--udp]

`postmap -q -` asks for one key after the other on one connection.  The mysql map is a table with an index, on
MariaDB's Unix socket; the cdb is a file.  Both hold the addresses that the daemon accepts.  Each table has to find
the same keys.
Rounds of the tables are in turn; the ratio is that of neighbouring rounds: median, least and greatest.
With several connections as many postmaps run at a time.  --udp: the gateway asks the daemon by UDP.

Needs Debian's postfix, postfix-mysql, postfix-cdb and mariadb-server, and root.
"""

from __future__ import annotations

import argparse
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path

import world
from bench import OURS, Server, Wrong, accepting, machine
from gateway import CVM_GATEWAY, free_port, started, verdicts, wait_for

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from databases import NAME, PASSWORD, USER, Database, MariaDb, running

GOAL = 0.8
"""Of the mysql map's rate."""

MYSQL = """\
hosts = unix:{socket}
user = {user}
password = {password}
dbname = {name}
query = SELECT 1 FROM recipients WHERE address = '%s'
"""


def mysql_table(database: Database, directory: Path, found: list[bytes]) -> str:
    """The mysql map of these addresses."""
    database.empty()
    database.sql("CREATE TABLE recipients (address varchar(190) PRIMARY KEY);", NAME)
    for address in found:
        if not re.fullmatch(rb"[a-z0-9@.-]+", address):
            raise Wrong(f"{address!r} cannot stand in a statement as it is")
    rows = ",".join(f"('{address.decode()}')" for address in found)
    database.sql(f"INSERT INTO recipients VALUES {rows};", NAME)  # noqa: S608  checked just before
    user = f"'{USER['mysql']}'@localhost"
    database.sql(f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON {NAME}.* TO {user};")
    config = directory / "mysql.cf"
    config.write_text(MYSQL.format(socket=database.socket, user=USER["mysql"], password=PASSWORD, name=NAME))
    return f"mysql:{config}"


def cdb_table(directory: Path, found: list[bytes]) -> str:
    """The cdb of these addresses."""
    (directory / "recipients").write_bytes(b"".join(b"%s 1\n" % address for address in found))
    subprocess.run(["postmap", "-c", directory, f"cdb:{directory}/recipients"], check=True)
    return f"cdb:{directory}/recipients"


def rate(directory: Path, table: str, keys: bytes, connections: int, expected: int) -> float:
    """Keys a second.  Raises `Wrong` for other keys than expected."""
    command: list[str | Path] = ["postmap", "-c", directory, "-q", "-", table]
    began = time.monotonic()
    with ExitStack() as stack:
        asking = []
        for number in range(connections):
            output = stack.enter_context((directory / f"out{number}").open("w+b"))
            given = stack.enter_context((directory / "keys").open("rb"))
            asking.append((subprocess.Popen(command, stdin=given, stdout=output), output))
        for process, _ in asking:
            process.wait()
        elapsed = time.monotonic() - began
        for _, output in asking:
            output.seek(0)
            count = output.read().count(b"\n")
            if count != expected:
                raise Wrong(f"{table}: {count} keys found, expected {expected}")
    return keys.count(b"\n") * connections / elapsed


def measure(directory: Path, keys: int, rounds: int, connections: int, *, udp: bool) -> None:
    """Prints the rates of the tables."""
    (directory / "main.cf").write_text("compatibility_level = 3.6\n")
    root = directory / "host"
    root.mkdir()
    host = world.small(root)
    with ExitStack() as stack:
        path, log = directory / "daemon", directory / "gateway.log"
        environment = {"QMAIL_ROOT": str(host.root), "CVM_LOOKUP_SECRET": ""}
        process = started(stack, [OURS, f"cvm-local:{path}"], directory / "daemon.log", **environment)
        wait_for(lambda: accepting(path))
        said = verdicts(Server(process, path, directory / "daemon.log", "cvm-qmail"), world.mix())
        listener = f"socketmap:unix:{directory}/socketmap"
        module = f"cvm-local:{path}"
        if udp:
            module = f"cvm-udp:127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
            by_udp = directory / "daemon-udp.log"
            started(stack, [OURS, module], by_udp, **environment)
            wait_for(lambda: "Starting." in by_udp.read_text())
        started(stack, [CVM_GATEWAY, listener], log, CVM_GATEWAY_MODULE=module)
        wait_for(lambda: "Starting." in log.read_text())
        found = [address.lower() for address, word in said.items() if word == "accepted"]
        database = stack.enter_context(running(MariaDb))
        tables = {
            "socketmap": f"{listener}:rcpt",
            "mysql": mysql_table(database, directory, sorted(set(found))),
            "cdb": cdb_table(directory, sorted(set(found))),
        }
        asked = list(islice(cycle(said), keys))
        data = b"".join(b"%s\n" % address for address in asked)
        (directory / "keys").write_bytes(data)
        expected = sum(said[address] == "accepted" for address in asked)
        time.sleep(2)  # a file that changed just before is read anew for every request
        rates: dict[str, list[float]] = {name: [] for name in tables}
        for _ in range(rounds):
            for name, table in tables.items():
                rates[name].append(rate(directory, table, data, connections, expected))
    for name, figures in rates.items():
        ratios = [one / other for one, other in zip(rates["socketmap"], figures, strict=True)]
        text = f"socketmap is {statistics.median(ratios):.2f} of it ({min(ratios):.2f} to {max(ratios):.2f})"
        beside = {"socketmap": "", "mysql": f"{text}, goal {GOAL}"}.get(name, text)
        print(f"{name:10} {statistics.median(figures):8,.0f} keys a second   {beside}")


def main() -> int:
    """The command; exit status 1 after a wrong answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--udp", action="store_true")
    options = parser.parse_args()
    print(f"{machine()}; {options.connections} connections")
    with tempfile.TemporaryDirectory(prefix="cvm-postmap-bench.") as name:
        Path(name).chmod(0o755)
        try:
            measure(Path(name), options.keys, options.rounds, options.connections, udp=options.udp)
        except Wrong as wrong:
            print(f"WRONG: {wrong}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
