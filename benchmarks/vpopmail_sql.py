"""vpopmail on real database servers, each on a local socket: beside the bare driver, a large table, the cache.

Invariants: as in run.py.  The bare driver asks for the same accounts in the same order, by the cursor of PyMySQL or
psycopg (prepared), in the same run; one worker serves one client.  A whole lookup also goes over a socket
and looks at some fifteen files; what the database costs is shown by the accounts alone.  The servers are the
tests' own.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import vworld
from bench import Bench, Load, Row, ratios, speed
from vpopmail import ACCEPTED, WARM, against
from world import Answered, Host

from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.accounts import Domain
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.tables import databases

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from databases import NAME, PASSWORD, PGSQL_PORT, USER, Database, MariaDb, PostgreSql, running

KINDS: dict[str, type[Database]] = {"mysql": MariaDb, "pgsql": PostgreSql}
UNMOUNTED = ["unshare", "-m", "sh", "-c", 'umount /etc/passwd /etc/nsswitch.conf; exec "$@"', "sh"]
"""Before a program: it sees the machine's own password file, in which its user is."""

LARGE, SMALL = 1_000_000, 1000

TABLE = """
CREATE TABLE vpopmail (pw_name varchar(64) NOT NULL, pw_domain varchar(96) NOT NULL, pw_passwd varchar(128),
  pw_uid int, pw_gid int, pw_gecos varchar(64), pw_dir varchar(160), pw_shell varchar(20),
  PRIMARY KEY (pw_name, pw_domain));
"""
ROWS = {
    "mysql": "INSERT INTO vpopmail SELECT CONCAT('user', LPAD(seq, 7, '0')), 'vpop.example', "
    "'{hash}', 0, 0, '', CONCAT('{home}/user', LPAD(seq, 7, '0')), 'NOQUOTA' FROM seq_0_to_{last};",
    "pgsql": "INSERT INTO vpopmail SELECT 'user' || lpad(n::text, 7, '0'), 'vpop.example', '{hash}', 0, 0, '', "
    "'{home}/user' || lpad(n::text, 7, '0'), 'NOQUOTA' FROM generate_series(0, {last}) AS n; ANALYZE vpopmail;",
}
"""Accounts 0 to `last`."""

SELECT = (
    "SELECT pw_name, pw_passwd, pw_gid, pw_gecos, pw_dir, pw_shell FROM vpopmail WHERE pw_name = %s AND pw_domain = %s"
)


def fill(database: Database, home: Path, size: int) -> None:
    """A table of this many accounts, readable for the user of the tests."""
    database.empty()
    rows = ROWS[database.kind].format(hash=vworld.HASH.decode(), home=home, last=size - 1)
    database.sql(TABLE + rows, NAME)
    database.grant()


def settings(bench: Bench, database: Database) -> dict[str, str]:
    """What lets our server ask it."""
    file = bench.directory / f"credentials.{database.directory.name}"
    file.write_text(f"{database.place}|{USER[database.kind]}|{PASSWORD}|{NAME}\n")
    return {"CVM_VPOPMAIL_BACKEND": database.kind, "CVM_VPOPMAIL_SQL_FILE": str(file), "CVM_WORKERS": "1"}


def host_of(bench: Bench) -> Host:
    """10,000 accounts in vpasswd.cdb, with homes: those of the table, too."""
    return bench.host("tenthousand", lambda root: vworld.one_domain(root, vworld.ACCOUNTS_ASKED))


Ask = Callable[[bytes], object]


def _mysql(database: Database) -> tuple[Ask, Callable[[], None]]:
    import pymysql

    connection = pymysql.connect(
        unix_socket=database.socket, user=USER["mysql"], password=PASSWORD, database=NAME, autocommit=True
    )
    cursor = connection.cursor()

    def ask(name: bytes) -> object:
        cursor.execute(SELECT, (name.decode(), "vpop.example"))
        return cursor.fetchone()

    return ask, connection.close


def _pgsql(database: Database) -> tuple[Ask, Callable[[], None]]:
    import psycopg

    connection = psycopg.connect(
        host=str(database.directory),
        port=PGSQL_PORT,
        user=USER["pgsql"],
        password=PASSWORD,
        dbname=NAME,
        autocommit=True,
    )
    cursor = connection.cursor()

    def ask(name: bytes) -> object:
        cursor.execute(SELECT, (name.decode(), "vpop.example"), prepare=True)
        return cursor.fetchone()

    return ask, connection.close


_BARE = {"mysql": _mysql, "pgsql": _pgsql}


@contextmanager
def bare_driver(database: Database, names: list[bytes], seconds: float) -> Iterator[Callable[[], Load]]:
    """Rounds of the driver alone."""
    ask, close = _BARE[database.kind](database)
    try:
        yield rounds(ask, names, seconds)
    finally:
        close()


def rounds(ask: Ask, names: list[bytes], seconds: float) -> Callable[[], Load]:
    """Rounds of one question after the other, in this process."""

    def measure() -> Load:
        began, spent, done = time.perf_counter(), time.process_time(), 0
        while (now := time.perf_counter()) < began + seconds:
            if ask(names[done % len(names)]) is None:
                raise LookupError(names[done % len(names)])
            done += 1
        return Load(done, done / (now - began), 0, time.process_time() - spent)

    return measure


def table(given: dict[str, str], names: list[bytes], seconds: float) -> Callable[[], Load]:
    """Rounds of the table of accounts alone, as a worker asks it, without what is looked at on the disk."""
    settings = Settings.from_environment(given)
    tables = Tables(settings)
    policy = Vpopmail.from_settings(settings)
    assert policy.dialect is not None
    accounts = databases.sql(tables, settings, policy, policy.dialect).accounts
    domain = Domain(b"vpop.example", *vworld.owner(), b"/nonexistent")

    def ask(name: bytes) -> object:
        tables.request()
        return accounts.get((domain, name))

    return rounds(ask, names, seconds)


def driver(bench: Bench, kind: str) -> None:
    """vpopmail: in a database, beside the bare driver."""
    host, asked = host_of(bench), vworld.mix(vworld.ACCOUNTS_ASKED)
    names = [address.account for address in asked]
    once = bench.packets(f"sql-{kind}", [Answered(address.packet, ACCEPTED) for address in asked])
    again = bench.packets(f"sql-{kind}-again", [Answered(address.packet, ACCEPTED) for address in asked[:2000]])
    with running(KINDS[kind]) as database:
        fill(database, host.root / "domains/vpop.example", vworld.ACCOUNTS_ASKED)
        given = settings(bench, database)
        with bench.ours(host, **given) as ours, bare_driver(database, names, bench.pace.seconds) as bare:
            bench.warm(once, ours)
            bench.load(ours, once, count=WARM)
            bench.load(ours, again, count=WARM)
            alone = table(given, names, bench.pace.seconds)
            of_many, of_few, accounts, plain = bench.in_turn(
                lambda: bench.load(ours, once), lambda: bench.load(ours, again), alone, bare
            )
    for what, loads in (("10,000 at random", of_many), ("2000 again and again", of_few)):
        rate = statistics.median(load.rate for load in loads)
        name = f"accounts in {kind}, one worker, {what}; compared with the bare driver"
        text, ratio = ratios(loads, plain)
        met = rate >= 2000 and ratio >= 0.7
        bench.rows.append(Row(name, "", speed(loads), text, f"≥ 2,000, and 0.7 of {speed(plain)}", met))
    text, ratio = ratios(accounts, plain)
    bench.rows.append(
        Row(
            "the accounts alone, compared with the bare driver",
            "",
            speed(accounts),
            text,
            f"≥ 0.7 of {speed(plain)}",
            ratio >= 0.7,
        )
    )


def size(bench: Bench, kind: str) -> None:
    """vpopmail: in a database, a million accounts."""
    host = host_of(bench)
    asked = vworld.mix(SMALL)
    packets = bench.packets(f"sql-size-{kind}", [Answered(address.packet, ACCEPTED) for address in asked])
    with running(KINDS[kind]) as large, running(KINDS[kind]) as small:
        home = host.root / "domains/vpop.example"
        fill(large, home, LARGE)
        fill(small, home, SMALL)
        with (
            bench.ours(host, **settings(bench, large)) as of_large,
            bench.ours(host, **settings(bench, small)) as of_small,
        ):
            against(
                bench,
                f"a million accounts in {kind}; compared with 1000",
                (of_large, packets),
                (of_small, packets),
                0.83,
            )


def cache(bench: Bench, kind: str) -> None:
    """vpopmail: in a database, with the cache, beside files."""
    host, asked = host_of(bench), vworld.mix(vworld.ACCOUNTS_ASKED)
    again = bench.packets("sql-again", [Answered(address.packet, ACCEPTED) for address in asked[:2000]])
    once = bench.packets("sql-once", [Answered(address.packet, ACCEPTED) for address in asked])
    with running(KINDS[kind]) as database:
        fill(database, host.root / "domains/vpop.example", vworld.ACCOUNTS_ASKED)
        more = {**settings(bench, database), "CVM_VPOPMAIL_CACHE": "3600"}
        with bench.ours(host, **more) as cached, bench.ours(host, CVM_WORKERS="1") as files:
            against(
                bench,
                f"{kind} with the cache, compared with vpasswd.cdb, 2000 again",
                (cached, again),
                (files, again),
                0.77,
            )
            against(bench, "the same, 10,000 at random", (cached, once), (files, once), 0.77)


def _of(measure: Callable[[Bench, str], None], kind: str) -> Callable[[Bench], None]:
    def measured(bench: Bench) -> None:
        if bench.may_mount:
            Database.wrapper = UNMOUNTED
        measure(bench, kind)

    measured.__doc__ = f"{measure.__doc__} ({kind})"
    return measured


MEASURES: dict[str, Callable[[Bench], None]] = {
    f"vpopmail-{kind}{name}": _of(measure, kind)
    for kind in KINDS
    for name, measure in (("", driver), ("-size", size), ("-cache", cache))
}
