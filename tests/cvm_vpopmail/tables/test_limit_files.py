"""Limits of domains, from files."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from vdomains import OWNER, VpopmailHost, as_process, begun, example

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.accounts import Flag
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.tables.limit_files import LimitFiles

pytestmark = pytest.mark.root


def limits(host: VpopmailHost, kind: str = "root", *, within: bool = False) -> str:
    """What the limits are, or why they cannot be determined; `within`: asked while the owner looks."""

    def said() -> str:
        tables = begun(host)
        files, domain = LimitFiles(tables, os.fsencode(host.root / "v")), example(host)
        try:
            if within:
                return str(tables.as_user(OWNER, domain.directory, lambda _: files.get(domain)).flags)
            return str(files.get(domain).flags)
        except Unavailable as error:
            return error.reason

    return as_process(kind, said)


NO_IMAP, NO_POP = str(int(Flag.NO_IMAP)), str(int(Flag.NO_POP))


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("kind", ["root", "the owner"])
def test_limits_are_those_of_the_domain_else_of_the_host_else_none(
    vhost: VpopmailHost, kind: str, within: bool
) -> None:
    assert limits(vhost, kind, within=within) == "0"
    (vhost.root / "v/etc").mkdir()
    vhost.file("v/etc/vlimits.default", "disable_pop 1\n")
    assert limits(vhost, kind, within=within) == NO_POP
    vhost.put("example.com/.qmailadmin-limits", "disable_imap 0\n")
    assert limits(vhost, kind, within=within) == NO_IMAP
    vhost.put("example.com/.qmailadmin-limits", "")
    assert limits(vhost, kind, within=within) == "0", "only one of the two is read"


@pytest.mark.parametrize("within", [False, True])
def test_limits_that_only_root_may_read_count(vhost: VpopmailHost, within: bool) -> None:
    """As vchkpw, which is root, reads them."""
    (vhost.root / "v/etc").mkdir(mode=0o700)
    vhost.file("v/etc/vlimits.default", "disable_pop 1\n", mode=0o600)
    assert limits(vhost, within=within) == NO_POP
    vhost.put("example.com/.qmailadmin-limits", "disable_imap 1\n", uid=0, mode=0o600)
    assert limits(vhost, within=within) == NO_IMAP


def test_limits_that_this_process_may_not_read_are_temporary(vhost: VpopmailHost) -> None:
    vhost.put("example.com/.qmailadmin-limits", "disable_imap 1\n", uid=0, mode=0o600)
    assert limits(vhost, "the owner") == "refused"
    assert limits(vhost, "somebody by bits") == "refused"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink(path, path)])
def test_limits_that_are_no_file_are_temporary(vhost: VpopmailHost, make: Callable[[bytes], object]) -> None:
    make(os.fsencode(vhost.at("example.com/.qmailadmin-limits")))
    assert limits(vhost) == "unreadable"


def test_limits_are_the_new_ones_at_once(vhost: VpopmailHost, tables: Tables) -> None:
    files = LimitFiles(tables, os.fsencode(vhost.root / "v"))
    for turn in range(30):
        vhost.put("example.com/.qmailadmin-limits", f"maxmsgcount {turn}\nquota {turn}\n")
        tables.request()
        assert files.get(example(vhost)) == Limits(0, turn, turn)
