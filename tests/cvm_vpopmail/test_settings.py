"""vpopmail's compile options as settings: what is detected, and what cannot be."""

from __future__ import annotations

import pytest
from serving import serving
from vdomains import UID, VpopmailHost, as_process

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.tables.backend_guess import BackendGuess

pytestmark = pytest.mark.root


def backend(host: VpopmailHost, kind: str = "root", **variables: str) -> str:
    """The back end, or what is wrong, as a process of this kind finds it."""

    def found() -> str:
        try:
            return Vpopmail.from_settings(Settings.from_environment(host.environment | variables)).backend
        except BadSetting as bad:
            return str(bad)

    return as_process(kind, found)


def test_the_back_end_is_a_database_if_its_file_is_there(vhost: VpopmailHost) -> None:
    assert backend(vhost) == "cdb"
    vhost.directory("v/etc")
    vhost.file("v/etc/vpopmail.pgsql", mode=0o600)
    assert backend(vhost) == "pgsql"
    vhost.file("v/etc/vpopmail.mysql", mode=0o600)
    assert backend(vhost) == "mysql"
    assert backend(vhost, CVM_VPOPMAIL_BACKEND="cdb") == "cdb"


def test_where_its_file_cannot_be_seen_the_back_end_has_to_be_named(vhost: VpopmailHost) -> None:
    """Taken for cdb, no account of a database would exist."""
    vhost.directory("v/etc", mode=0o700, uid=UID, gid=UID)
    vhost.file("v/etc/vpopmail.mysql", mode=0o600, uid=UID, gid=UID)
    assert backend(vhost, "the owner") == "mysql"
    said = backend(vhost, "somebody by bits")
    assert said.startswith("CVM_VPOPMAIL_BACKEND: found '', expected cdb, mysql or pgsql, since ")
    assert said.endswith("/v/etc cannot be read: Permission denied")
    assert backend(vhost, "somebody by bits", CVM_VPOPMAIL_BACKEND="mysql") == "mysql"


def test_where_no_vpopmail_can_be_seen_there_is_none(vhost: VpopmailHost) -> None:
    vhost.directory("shut", mode=0o700)
    vhost.directory("shut/v/etc", mode=0o700)
    nowhere = {"CVM_VPOPMAIL_DIR": str(vhost.root / "shut/v")}
    assert backend(vhost, "somebody by bits", **nowhere) == "cdb"
    assert backend(vhost, CVM_VPOPMAIL_DIR=str(vhost.root / "nothing")) == "cdb"


# -- a back end that nobody named ---------------------------------------------------------------------


def guess_is(vhost: VpopmailHost, directory: str, *, files: bool = False) -> str:
    """What is said of an account that cdb files do not have, where nobody named the back end."""
    environment = {"QMAIL_ROOT": str(vhost.root / "q"), "CVM_VPOPMAIL_DIR": directory}
    tables = Tables(Settings.from_environment(environment))
    try:
        BackendGuess(tables, directory.encode()).confirm(files=files)
    except Unavailable as error:
        return error.reason
    return "missing"


def test_a_guessed_back_end_is_looked_at_again_before_an_account_is_missing(vhost: VpopmailHost) -> None:
    directory = vhost.root / "late"
    assert guess_is(vhost, str(directory)) == "backend-unknown"
    assert guess_is(vhost, str(directory), files=True) == "missing", "the domain's own files show it"
    vhost.directory("late")
    assert guess_is(vhost, str(directory)) == "missing"
    vhost.directory("late/etc")
    assert guess_is(vhost, str(directory)) == "missing"
    vhost.file("late/etc/vpopmail.mysql", b"localhost|0|u|p|d\n")
    assert guess_is(vhost, str(directory)) == guess_is(vhost, str(directory), files=True) == "backend-unknown"


def test_only_an_unnamed_back_end_is_a_guess(vhost: VpopmailHost) -> None:
    def policy(**variables: str) -> Vpopmail:
        return Vpopmail.from_settings(Settings.from_environment(variables))

    there = str(vhost.directory("there"))
    assert policy(CVM_VPOPMAIL_DIR=there).guessed
    assert not policy(CVM_VPOPMAIL_DIR=there, CVM_VPOPMAIL_BACKEND="cdb").guessed
    assert not policy(CVM_VPOPMAIL_DIR=there, CVM_VPOPMAIL_BACKEND="mysql").guessed


def test_a_server_takes_no_account_of_a_database_that_came_late_for_missing(vhost: VpopmailHost) -> None:
    """Also where the answer was given before, and is remembered."""
    with serving(vhost) as server:
        for _ in range(3):
            assert server.ask("nobody", "example.com").code == 100
        vhost.directory("v/etc")
        vhost.file("v/etc/vpopmail.mysql", b"localhost|0|u|p|d\n")
        assert server.ask("nobody", "example.com").code == 4
        assert server.logged("backend-unknown")
        (vhost.root / "v/etc/vpopmail.mysql").unlink()
        assert server.ask("nobody", "example.com").code == 100


def test_the_directory_is_the_home_of_the_user_vpopmail(vhost: VpopmailHost) -> None:
    vhost.passwd("vpopmail:x:89:89::/srv/mail/vpopmail/:/bin/false")
    environment = {name: value for name, value in vhost.environment.items() if name != "CVM_VPOPMAIL_DIR"}
    assert Vpopmail.from_settings(Settings.from_environment(environment)).directory == b"/srv/mail/vpopmail"
    vhost.passwd()
    assert Vpopmail.from_settings(Settings.from_environment(environment)).directory == b"/home/vpopmail"
