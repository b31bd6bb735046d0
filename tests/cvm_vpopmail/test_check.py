"""cvm-vpopmail --check: what it finds of the databases, against real servers."""

from __future__ import annotations

from typing import Any

import pytest
from databases import NAME, SqlHost
from serving import run
from vcorpus import CVM_VPOPMAIL

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]


def check(host: SqlHost, **more: Any) -> tuple[int, str]:
    done = run(CVM_VPOPMAIL, "--check", host=host, **more)
    said = (done.stdout + done.stderr).decode()
    assert "testdbpass" not in said
    assert "Traceback" not in said
    return done.returncode, said


def test_all_is_well(host: SqlHost) -> None:
    status, said = check(host)
    assert status == 0, said
    assert f"credentials: {host.credentials}" in said
    assert {"mysql": "MariaDB", "pgsql": "PostgreSQL 1"}[host.database.kind] in said
    assert "  vpopmail: pw_name, pw_domain, pw_passwd, pw_gid, pw_gecos, pw_dir, pw_shell" in said
    assert "  valias: alias, domain, valias_line" in said
    assert "  limits: domain, disable_pop" in said


def test_a_column_that_is_missing_is_named(host: SqlHost) -> None:
    status, said = check(host, CVM_VPOPMAIL_CLEAR_PASSWORDS="1")
    assert status == 100
    assert "pw_clear_passwd" in said
    assert "(database-columns)" in said


def test_a_table_that_vpopmail_will_make_is_no_fault(host: SqlHost) -> None:
    host.database.sql("DROP TABLE valias; DROP TABLE limits;", NAME)
    status, said = check(host)
    assert status == 0
    assert "valias: is not there: there are no SQL aliases" in said


def test_with_one_table_for_each_domain_each_is_looked_for(host: SqlHost) -> None:
    status, said = check(host, CVM_VPOPMAIL_MANY_DOMAINS="0")
    assert status == 100
    assert "  example_com: " in said
    host.database.sql("ALTER TABLE vpopmail RENAME TO example_com;", NAME)
    assert check(host, CVM_VPOPMAIL_MANY_DOMAINS="0")[0] == 0


def test_a_wrong_password_has_to_be_fixed(host: SqlHost) -> None:
    host.use(password="n0t-the-0ne")
    status, said = check(host)
    assert status == 100
    assert "(database-refused)" in said
    assert "n0t-the-0ne" not in said


def test_a_server_that_is_not_there_is_temporary_and_the_others_are_looked_at(host: SqlHost) -> None:
    here = {"mysql": host.database.socket, "pgsql": str(host.database.directory)}[host.database.kind]
    status, said = check(host, CVM_VPOPMAIL_SQL_SERVERS=f"127.0.0.1:9 {here}")
    assert status == 111
    assert "127.0.0.1:9" in said
    assert "(database-down)" in said
    assert "  vpopmail: pw_name" in said


def test_a_file_that_cannot_be_used_is_named_with_the_line(host: SqlHost) -> None:
    host.credentials.write_text("#\nlocalhost|x\n")
    status, said = check(host)
    assert status == 100
    assert f"{host.credentials}: line 2: found" in said


def test_a_setting_that_cannot_be_used_is_named(host: SqlHost) -> None:
    status, said = check(host, CVM_VPOPMAIL_SQL_TLS="maybe")
    assert status == 100
    assert "CVM_VPOPMAIL_SQL_TLS" in said


def test_accounts_in_files_have_nothing_to_connect_to(host: SqlHost) -> None:
    status, said = check(host, CVM_VPOPMAIL_BACKEND="cdb")
    assert status == 0
    assert "no database to check" in said
