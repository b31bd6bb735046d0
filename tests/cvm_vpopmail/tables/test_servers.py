"""Connections to real servers of both kinds, through the drivers."""

from __future__ import annotations

import gc
import hmac
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from databases import ACCOUNT, HASH, NAME, PASSWORD, USER, SqlHost, network
from serving import until

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.plugin import Challenge
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.credentials import Password, Server
from cvm_vpopmail.dialects import DIALECTS, Dialect
from cvm_vpopmail.module import module
from cvm_vpopmail.notices import Notices
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.sqlconfig import Options
from cvm_vpopmail.tables.connection import STATEMENTS, Connect, Connection, DatabaseError, Row, Select, Terms
from cvm_vpopmail.tables.databases import driver
from cvm_vpopmail.tables.replicas import Replicas
from cvm_vpopmail.tables.servers import Servers

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]

ACCOUNTS = Select(("pw_name", "pw_dir", "pw_gid"), "vpopmail", ("pw_name", "pw_domain"), frozenset({"pw_gid"}))
BOB = (b"bob", b"example.com")


class Asker:
    """One worker's way to the database."""

    def __init__(self, host: SqlHost, **more: str) -> None:
        settings = Settings.from_environment({**host.environment, **more})
        self.tables = Tables(settings)
        self.said: list[str] = []
        policy = Vpopmail.from_settings(settings)
        assert policy.dialect is not None
        options = Options.from_settings(settings, policy.dialect, policy.directory)
        self.servers = Servers(
            self.tables, options, driver(policy.dialect), settings.lookup_timeout, Notices(self.said.append)
        )

        self.database = Replicas(self.tables, self.servers, None, check_lag=False)

    def rows(self, select: Select = ACCOUNTS, values: tuple[bytes, ...] = BOB) -> list[Row]:
        self.tables.request()
        return self.database.rows(select, values)


@pytest.fixture
def asker(host: SqlHost) -> Iterator[Asker]:
    made = Asker(host)
    yield made
    made.servers.close()


def connection(host: SqlHost, **more: str) -> Connection:
    kind = host.database.kind
    where = {"mysql": ("localhost", 0, host.database.socket), "pgsql": (str(host.database.directory), 54329, "")}[kind]
    terms = Terms("off", "", "latin1", 1.0, 1.0, time.monotonic() + 5)
    return driver(DIALECTS[kind])(Server(*where, USER[kind], Password(PASSWORD.encode()), NAME), terms)


# -- rows -------------------------------------------------------------------------------------------


def test_what_an_answer_depends_on_is_checked_again_and_not_kept(host: SqlHost, asker: Asker) -> None:
    for _ in range(2):  # the first time the credentials are read
        rows = asker.rows()
    evidence = asker.tables.current.dependencies()
    assert evidence is not None
    assert rows not in [cell.cell_contents for check in evidence.rechecks for cell in check.holds.__closure__]
    assert asker.tables.still_valid(evidence)
    host.database.sql("UPDATE vpopmail SET pw_gid = 16 WHERE pw_name = 'bob';", NAME)
    assert not asker.tables.still_valid(evidence)


CLEAR = "ümläut"


@pytest.mark.parametrize("password", [CLEAR, "\N{GRINNING FACE}", "plain"])
def test_a_clear_password_is_text_as_vchkpw_gets_it(host: SqlHost, password: str) -> None:
    """Real vchkpw, whose client library has its default character set, takes the password as UTF-8."""
    kind = "CHARACTER SET utf8mb4" if host.database.kind == "mysql" else ""
    host.database.sql(f"ALTER TABLE vpopmail ADD pw_clear_passwd VARCHAR(16) {kind};", NAME)
    host.database.sql(f"UPDATE vpopmail SET pw_clear_passwd = '{password}' WHERE pw_name = 'bob';", NAME)
    settings = Settings.from_environment({**host.environment, "CVM_VPOPMAIL_CLEAR_PASSWORDS": "1"})
    authenticate = module(Tables(settings), settings).authenticate
    assert authenticate is not None
    challenge = b"<1@mx.example>"
    response = hmac.new(password.encode(), challenge, "md5").hexdigest().encode()
    assert authenticate(Recipient(*BOB), Challenge(challenge, response, b"CRAM-MD5")).verdict is Verdict.ACCEPTED
    wrong = hmac.new(password.encode() + b"x", challenge, "md5").hexdigest().encode()
    assert authenticate(Recipient(*BOB), Challenge(challenge, wrong, b"CRAM-MD5")).verdict is Verdict.REJECTED


def test_rows_are_text_in_the_bytes_in_which_vpopmail_gets_them(host: SqlHost, asker: Asker) -> None:
    long = "é" * 60
    host.database.sql(ACCOUNT.format(name="long", hash=HASH, home=f"/{long}"), NAME)
    host.database.sql("INSERT INTO vpopmail (pw_name, pw_domain) VALUES ('nulls', 'example.com');", NAME)
    assert [*asker.rows()[0]] == [b"bob", os.fsencode(host.vhost.domains / "example.com/bob"), b"0"]
    assert [*asker.rows(values=(b"long", b"example.com"))[0]] == [b"long", f"/{long}".encode(), b"0"]
    assert [*asker.rows(values=(b"nulls", b"example.com"))[0]] == [b"nulls", None, None]
    assert asker.rows(values=(b"nobody", b"example.com")) == []


@pytest.mark.parametrize("size", [1, 250, 251, 300, 65535, 70000])
def test_a_column_of_any_length_comes_whole(host: SqlHost, asker: Asker, size: int) -> None:
    kind = {"mysql": "mediumtext", "pgsql": "text"}[host.database.kind]
    host.database.sql(f"CREATE TABLE long_lines (name varchar(10), line {kind});", NAME)
    host.database.sql(f"INSERT INTO long_lines VALUES ('a', '{'x' * size}'), ('a', 'second');", NAME)
    host.database.grant()
    rows = asker.rows(Select(("line",), "long_lines", ("name",)), (b"a",))
    assert [len(line or b"") for (line,) in rows] == [size, 6]


def test_values_are_bound_whatever_they_hold(asker: Asker) -> None:
    for value in (b"' OR '1'='1", b"\\", b"\\' --", b"%", b"$1", b"?", b"x" * 300):
        assert asker.rows(values=(value, b"example.com")) == []


def test_an_answer_without_an_end_is_given_up(host: SqlHost, asker: Asker) -> None:
    host.database.sql(
        "CREATE TABLE many_lines (name varchar(10), line varchar(100)); INSERT INTO many_lines VALUES ('a', '"
        + "x" * 100
        + "');",
        NAME,
    )
    for _ in range(14):
        host.database.sql("INSERT INTO many_lines SELECT * FROM many_lines;", NAME)
    host.database.grant()
    with pytest.raises(Unavailable, match="database-error"):
        asker.rows(Select(("line",), "many_lines", ("name",)), (b"a",))
    assert asker.rows()


# -- sessions ---------------------------------------------------------------------------------------


def test_the_session_can_only_read(host: SqlHost) -> None:
    kind = host.database.kind
    everything = {"mysql": f"GRANT ALL ON {NAME}.* TO vpopmail@'%'", "pgsql": "GRANT ALL ON vpopmail TO postgres"}[kind]
    host.database.sql(f"{everything};", NAME)
    open_one = connection(host)
    try:
        with pytest.raises(Exception, match=r"(?i)read.only"):
            _write(open_one)
    finally:
        open_one.close()
        if kind == "mysql":
            host.database.sql(f"REVOKE ALL ON {NAME}.* FROM vpopmail@'%';")


def _write(open_one: Any) -> None:
    text = "DELETE FROM vpopmail"
    if hasattr(open_one, "_do"):
        open_one._do(text.encode(), time.monotonic() + 5)
    else:
        open_one._connection.query(text)


def test_nothing_is_connected_before_it_is_needed_and_one_connection_serves(host: SqlHost, asker: Asker) -> None:
    count = {
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE user = 'vpopmail';",
        "pgsql": "SELECT count(*) FROM pg_stat_activity WHERE usename = 'postgres';",
    }[host.database.kind]
    gc.collect()
    until(lambda: host.database.sql(count).strip() == "0", "those of earlier tests are gone")
    for _ in range(5):
        asker.rows()
    assert host.database.sql(count).strip() == "1"


def test_a_connection_that_the_server_ended_is_opened_again_in_the_same_request(host: SqlHost, asker: Asker) -> None:
    end = {
        "mysql": "KILL USER vpopmail;",
        "pgsql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres';",
    }[host.database.kind]
    for _ in range(3):
        assert asker.rows()
        host.database.sql(end)
    assert asker.rows()
    assert not asker.said, "nobody needs to know"


def test_no_more_statements_than_the_bound_are_kept(host: SqlHost, asker: Asker, monkeypatch: object) -> None:
    count = STATEMENTS + 20
    host.database.sql(
        "".join(
            f"CREATE TABLE d{n}_example (pw_name varchar(64)); INSERT INTO d{n}_example VALUES ('{n}');"
            for n in range(count)
        ),
        NAME,
    )
    host.database.grant()
    for turn in range(2):
        for number in range(count):
            select = Select(("pw_name",), f"d{number}_example", ("pw_name",))
            assert [*asker.rows(select, (b"%d" % number,))[0]] == [b"%d" % number], turn
    kept = {
        "mysql": "SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count';",
        "pgsql": f"SELECT {STATEMENTS};",  # other sessions' statements cannot be seen there
    }[host.database.kind]
    assert int(host.database.sql(kept).split()[-1]) <= STATEMENTS


def test_a_table_that_changed_is_read_as_it_is_now(host: SqlHost, asker: Asker) -> None:
    assert asker.rows()
    host.database.sql("ALTER TABLE vpopmail ADD COLUMN pw_more varchar(10);", NAME)
    assert asker.rows()
    wider = {"mysql": "MODIFY pw_dir text", "pgsql": "ALTER COLUMN pw_dir TYPE text"}[host.database.kind]
    host.database.sql(f"ALTER TABLE vpopmail {wider};", NAME)
    assert asker.rows()
    number = {"mysql": "MODIFY pw_gid varchar(20)", "pgsql": "ALTER COLUMN pw_gid TYPE varchar(20)"}[host.database.kind]
    host.database.sql(f"ALTER TABLE vpopmail {number};", NAME)
    assert [*asker.rows()[0]][2] == b"0"


def test_when_the_time_is_over_nothing_is_waited_for(host: SqlHost) -> None:
    with pytest.raises(DatabaseError) as raised:
        connection(host).rows(ACCOUNTS, BOB, time.monotonic() - 1)
    assert (raised.value.reason, raised.value.lost) == ("database-slow", True)


# -- TLS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["on", "verify"])
def test_a_server_without_tls_is_refused_where_it_is_demanded(host: SqlHost, tls: str) -> None:
    with network(host.database.socket) as way:
        host.use(port=way.port)
        with pytest.raises(Unavailable) as raised:
            Asker(host, CVM_VPOPMAIL_SQL_TLS=tls).rows()
    assert raised.value.reason in ("database-refused", "database-down")
    assert "SSL" in raised.value.detail or "TLS" in raised.value.detail


# -- drivers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_driver_that_is_not_installed_is_named_at_start(dialect: Dialect) -> None:
    def missing() -> Connect:
        raise ImportError("No module named it")

    with pytest.raises(BadSetting, match=rf"CVM_VPOPMAIL_BACKEND: .*cvm-qmail\[{dialect.name}\]"):
        driver(dialect._replace(driver=missing))
