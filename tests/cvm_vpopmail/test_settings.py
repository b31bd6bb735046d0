"""vpopmail's compile options as settings: what is detected, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import a_folder
from vdomains import UID, VpopmailHost, as_process, vpopmail_host

from cvm_qmail.settings import BadSetting, Settings
from cvm_vpopmail.settings import Vpopmail

pytestmark = pytest.mark.root


@pytest.fixture
def vhost() -> Iterator[VpopmailHost]:
    with a_folder() as root:
        yield vpopmail_host(root)


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
    vhost.folder("v/etc")
    vhost.file("v/etc/vpopmail.pgsql", mode=0o600)
    assert backend(vhost) == "pgsql"
    vhost.file("v/etc/vpopmail.mysql", mode=0o600)
    assert backend(vhost) == "mysql"
    assert backend(vhost, CVM_VPOPMAIL_BACKEND="cdb") == "cdb"


def test_where_its_file_cannot_be_seen_the_back_end_has_to_be_told(vhost: VpopmailHost) -> None:
    """Taken for cdb, no account of a database would exist."""
    vhost.folder("v/etc", mode=0o700, uid=UID, gid=UID)
    vhost.file("v/etc/vpopmail.mysql", mode=0o600, uid=UID, gid=UID)
    assert backend(vhost, "the owner") == "mysql"
    said = backend(vhost, "somebody by bits")
    assert said.startswith("CVM_VPOPMAIL_BACKEND: found '', expected cdb, mysql or pgsql, since ")
    assert said.endswith("/v/etc cannot be seen: Permission denied")
    assert backend(vhost, "somebody by bits", CVM_VPOPMAIL_BACKEND="mysql") == "mysql"


def test_where_no_vpopmail_can_be_seen_there_is_none(vhost: VpopmailHost) -> None:
    vhost.folder("shut", mode=0o700)
    vhost.folder("shut/v/etc", mode=0o700)
    nowhere = {"CVM_VPOPMAIL_DIR": str(vhost.root / "shut/v")}
    assert backend(vhost, "somebody by bits", **nowhere) == "cdb"
    assert backend(vhost, CVM_VPOPMAIL_DIR=str(vhost.root / "nothing")) == "cdb"
