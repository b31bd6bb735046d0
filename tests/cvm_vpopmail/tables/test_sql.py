"""What is asked of a database, and what is made of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cvm_qmail.answer import Unavailable
from cvm_qmail.plugin import Password
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.accounts import Domain, Flag
from cvm_vpopmail.dialects import DIALECTS, MYSQL, PGSQL, Dialect
from cvm_vpopmail.notices import Board
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.tables.connection import Row, Select
from cvm_vpopmail.tables.limit_files import LimitFiles
from cvm_vpopmail.tables.sql import Logins, MayBeMissing, SqlAccounts, SqlAliases, SqlLimits, spellings

DOMAIN = Domain(b"example.com", 89, 89, b"/domains/example.com")
HASH = b"$1$saltsalt$TryCyXcmtdG5ayUO3LdiI0"
ROW = (b"Bob", HASH, b"16", b"Bob B.", b"/domains/example.com/bob", b"10MB")

Asked = tuple[str, tuple[str, ...], tuple[bytes, ...]]


class Rows:
    """A database that answers the same to everything; None: the table is not there."""

    def __init__(self, *rows: Row, missing: bool = False) -> None:
        self.answer = list(rows)
        self.missing = missing
        self.asked: list[Asked] = []

    def rows(self, select: Select, values: Sequence[bytes]) -> list[Row]:
        self.asked.append((select.table, select.keys, tuple(values)))
        if self.missing:
            raise Unavailable("database-tables", f"no table {select.table}")
        return self.answer


def accounts(database: Rows, dialect: Dialect = MYSQL, *, many: bool = True, clear: bool = False) -> SqlAccounts:
    return SqlAccounts(database, dialect, many_domains=many, clear=clear)


# -- accounts ---------------------------------------------------------------------------------------


def test_an_account_is_asked_for_by_name_and_domain() -> None:
    database = Rows(ROW)
    account = accounts(database).get((DOMAIN, b"bob"))
    assert account is not None
    assert account[:5] == (b"Bob", Flag.BOUNCE_MAIL, b"Bob B.", b"/domains/example.com/bob", b"10MB")
    assert database.asked == [("vpopmail", ("pw_name", "pw_domain"), (b"bob", b"example.com"))]


def test_with_one_table_for_each_domain_it_is_asked_for_by_name_in_that() -> None:
    database = Rows(ROW)
    accounts(database, many=False).get((DOMAIN, b"bob"))
    assert database.asked == [("example_com", ("pw_name",), (b"bob",))]


def test_no_row_is_no_account_and_the_empty_name_is_not_asked_for() -> None:
    database = Rows()
    assert accounts(database).get((DOMAIN, b"bob")) is None
    assert accounts(database).get((DOMAIN, b"")) is None
    assert len(database.asked) == 1


def test_null_is_empty_or_0() -> None:
    account = accounts(Rows((b"nul", None, None, None, None, None))).get((DOMAIN, b"nul"))
    assert account is not None
    assert account[:5] == (b"nul", 0, b"", b"", b"")
    assert not account.secret.verify(Password(b""), "smtp")


def test_clear_passwords_have_a_column_only_if_vpopmail_was_built_with_them() -> None:
    assert "pw_clear_passwd" not in accounts(Rows()).select(b"example.com").columns
    database = Rows((*ROW, b"clear"))
    assert accounts(database, clear=True).get((DOMAIN, b"bob")) is not None
    assert accounts(database, clear=True).select(b"example.com").columns[-1] == "pw_clear_passwd"


def test_what_is_stored_does_not_show() -> None:
    account = accounts(Rows((*ROW, b"cl3ar")), clear=True).get((DOMAIN, b"bob"))
    assert "saltsalt" not in repr(account)
    assert "cl3ar" not in repr(account)


# -- names of tables --------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", [b"", b"a`b", b'a"b', b"a b", b"a;drop table x", b"a\0b", b"\xe4.example", b"a/b"])
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_what_cannot_be_the_name_of_a_table_never_reaches_a_statement(domain: bytes, dialect: Dialect) -> None:
    database = Rows(ROW)
    with pytest.raises(Unavailable, match="database-tables"):
        accounts(database, dialect, many=False).get((DOMAIN._replace(name=domain), b"bob"))
    assert not database.asked


# -- logins -----------------------------------------------------------------------------------------


def test_mysql_looks_for_a_login_under_the_real_domain() -> None:
    database = Rows(ROW)
    Logins(accounts(database), as_given=False).get((DOMAIN, b"alias.example", b"bob"))
    assert database.asked[0][2] == (b"bob", b"example.com")


def test_postgresql_looks_for_a_login_under_the_domain_as_it_was_given() -> None:
    database = Rows(ROW)
    Logins(accounts(database, PGSQL), as_given=True).get((DOMAIN, b"alias.example", b"bob"))
    assert database.asked[0][2] == (b"bob", b"alias.example")


def test_an_alias_domain_has_no_table_and_so_no_account() -> None:
    logins = Logins(accounts(Rows(missing=True), PGSQL, many=False), as_given=True)
    assert logins.get((DOMAIN, b"alias.example", b"bob")) is None
    with pytest.raises(Unavailable):
        logins.get((DOMAIN, b"example.com", b"bob"))


# -- aliases ----------------------------------------------------------------------------------------


def test_each_row_is_a_line_of_the_alias_in_the_order_of_the_server() -> None:
    database = Rows((b"&b@example.com",), (b"|prog",), (None,))
    assert SqlAliases(database).get((b"example.com", b"sales")) == [b"&b@example.com", b"|prog", b""]
    assert database.asked == [("valias", ("alias", "domain"), (b"sales", b"example.com"))]


def test_no_row_is_no_alias() -> None:
    assert SqlAliases(Rows()).get((b"example.com", b"sales")) is None


# -- limits -----------------------------------------------------------------------------------------


def limit_files() -> LimitFiles:
    return LimitFiles(Tables(Settings.from_environment({})), b"/nonexistent")


def test_limits_are_those_of_the_row() -> None:
    found = SqlLimits(Rows((b"1", b"0", None, b"", b"2", b"100", b"-5")), limit_files()).get(DOMAIN)
    assert found == Limits(Flag.NO_POP | Flag.NO_RELAY, 100, 0)


def test_without_a_row_they_are_those_of_the_file() -> None:
    assert SqlLimits(Rows(), limit_files()).get(DOMAIN) == Limits()


# -- tables that vpopmail makes when it needs them --------------------------------------------------


def test_a_table_that_was_never_there_is_empty() -> None:
    aliases = SqlAliases(MayBeMissing(Rows(missing=True), Board()))
    assert aliases.get((b"example.com", b"sales")) is None


def test_one_that_was_there_and_is_gone_is_temporary_for_all_workers() -> None:
    board = Board()
    assert SqlAliases(MayBeMissing(Rows(), board)).get((b"example.com", b"sales")) is None
    with pytest.raises(Unavailable):
        SqlAliases(MayBeMissing(Rows(missing=True), board)).get((b"example.com", b"sales"))


# -- names for a list -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found_under"),
    [
        (b"bob", [b"bob"]),
        (b"Bob ", [b"bob ", b"bob"]),
        (b"caf\xe9", [b"caf\xe9", b"cafe"]),
        ("Café".encode(), ["café".encode(), b"cafe"]),
    ],
)
def test_a_name_is_listed_as_the_server_may_find_it(name: bytes, found_under: list[bytes]) -> None:
    assert list(spellings(name)) == found_under
