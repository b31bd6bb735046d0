"""The statement that asks for an address: one, and by the keys of the tables, however large a domain is."""

from __future__ import annotations

import pytest
from databases import Database
from directories import NAME, Directory, made

from cvm_directory.tables.directory import Directory as Table
from cvm_directory.tables.directory import Rows
from cvm_qmail.answer import Recipient, Verdict
from cvm_vpopmail.tables.connection import Row, Select

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]

DOMAIN = (
    "INSERT INTO cvm_domain (domain, scope, percenthack, endings, addresses, digest, host)"
    " VALUES ('{name}', 'all', '0', '-', {count}, '', 'mail');"
)
FILL = {
    "mysql": "INSERT INTO cvm_address SELECT '{name}', CONCAT('user', seq), '+' FROM seq_1_to_{count};",
    "pgsql": "INSERT INTO cvm_address SELECT '{name}', 'user' || n, '+' FROM generate_series(1, {count}) AS n;",
}
ANALYZE = {"mysql": "ANALYZE TABLE cvm_address, cvm_domain;", "pgsql": "ANALYZE;"}
COUNT = 20_000


def filled(directory: Directory) -> None:
    """A large domain, and some that are not asked for."""
    for name, count in (("large.example", COUNT), ("a.example", 1000), ("z.example", 1000)):
        for text in (DOMAIN, FILL[directory.database.kind]):
            directory.database.sql(text.format(name=name, count=count), NAME)
    directory.database.sql(ANALYZE[directory.database.kind], NAME)


def read(directory: Directory) -> int:
    """How many rows and entries of indexes MariaDB has read."""
    said = directory.database.sql("SHOW GLOBAL STATUS LIKE 'Handler_read%';").split()
    return sum(int(number) for number in said[1::2])


def test_mariadb_reads_a_few_rows_for_an_answer(mariadb: Database) -> None:
    with made(mariadb) as directory:
        filled(directory)
        lookup = directory.lookup()
        for local, expected in (("user77", Verdict.ACCEPTED), ("nobody-a-b", Verdict.REJECTED)):
            recipient = Recipient(local.encode(), b"large.example")
            assert lookup(recipient).verdict is expected
            idle = read(directory)
            idle = read(directory) - idle
            before = read(directory)
            for _ in range(10):
                lookup(recipient)
            assert read(directory) - before - idle < 10 * 60


def test_postgresql_asks_by_the_key(postgresql: Database) -> None:
    with made(postgresql) as directory:
        filled(directory)
        asked: list[tuple[Select, list[bytes]]] = []
        Table(_noting(asked), "pgsql").rows(["large.example", "*"], ["user77", "*"])
        ((select, values),) = asked
        statement = select.statement
        for value in values:
            statement = statement.replace("?", f"'{value.decode()}'", 1)
        plan = directory.database.sql(f"EXPLAIN {statement};", NAME)
        assert "using cvm_address_pkey on cvm_address" in plan
        assert "Seq Scan on cvm_address" not in plan


def _noting(asked: list[tuple[Select, list[bytes]]]) -> Rows:
    def rows(select: Select, values: object, settles: object) -> list[Row]:
        asked.append((select, list(values)))
        return []

    return rows


def test_statements_are_few_however_many_names_an_address_has() -> None:
    asked: list[tuple[Select, list[bytes]]] = []
    table = Table(_noting(asked), "mysql")
    for count in range(1, 260):
        table.rows(["d"] * 3, [f"n{number}" for number in range(count)])
    assert len({select for select, _ in asked}) == 8
    assert all(len(select.keys) == len(values) == select.statement.count("?") for select, values in asked)
