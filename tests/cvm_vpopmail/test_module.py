"""vpopmail's module and plug-in on hosts whose users mean harm, or do not know how much they ask for."""

from __future__ import annotations

import os

import pytest
from vdomains import UID, VpopmailHost, as_process

from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.plugin import Password
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.module import module

pytestmark = pytest.mark.root


def says(host: VpopmailHost, address: str, **variables: str) -> str:
    """The mark and reason of the answer; ``?`` and the reason if nothing can be determined."""
    settings = Settings.from_environment(host.environment | variables)
    account, _, domain = address.encode().rpartition(b"@")
    try:
        answer = module(Tables(settings), settings).lookup(Recipient(account, domain))
    except Unavailable as error:
        return f"? {error.reason}"
    return f"{answer.verdict.value} {answer.reason}"


# -- links --------------------------------------------------------------------------------------------


def test_a_user_whose_dotqmail_leads_to_dev_null_has_none(vhost: VpopmailHost) -> None:
    vhost.at("example.com/bob/.qmail").symlink_to("/dev/null")
    assert says(vhost, "bob@example.com") == "+ account"


# -- logins -------------------------------------------------------------------------------------------


def logs_in(host: VpopmailHost, login: str, password: bytes = b"secret", kind: str = "root") -> str:
    """The same for a login, by a process of this kind."""

    def said() -> str:
        settings = Settings.from_environment(host.environment)
        authenticate = module(Tables(settings), settings).authenticate
        assert authenticate is not None
        try:
            answer = authenticate(Recipient(login.encode(), None), Password(password))
        except Unavailable as error:
            return f"? {error.reason}"
        return f"{answer.verdict.value} {answer.reason}"

    return as_process(kind, said)


@pytest.mark.parametrize("text", ["as it was", "stale", "missing"])
def test_accounts_that_only_root_may_read_log_in_where_root_looks(vhost: VpopmailHost, text: str) -> None:
    """vchkpw is root: it opens vpasswd.cdb, where vdelivermail makes do with vpasswd."""
    os.chown(vhost.at("example.com/vpasswd.cdb"), 0, 0)
    if text == "missing":
        vhost.at("example.com/vpasswd").unlink()
    elif text == "stale":
        vhost.put("example.com/vpasswd", vhost.lines("example.com", "ann"))
    assert logs_in(vhost, "bob@example.com") == "+ login"
    assert logs_in(vhost, "bob@example.com", b"wrong") == "- wrong-password"
    assert logs_in(vhost, "ann@example.com") == "- no-account"
    for kind in ("the owner", "somebody by bits"):
        assert logs_in(vhost, "bob@example.com", kind=kind).startswith("?"), "who may not look cannot know"


# -- time ---------------------------------------------------------------------------------------------


def test_who_counts_for_longer_than_there_is_time_gives_up_before_he_is_killed(vhost: VpopmailHost) -> None:
    vhost.accounts("example.com", "bob::1000C")
    for number in range(200):
        for kind in ("cur", "new"):
            vhost.directory(f"v/domains/example.com/bob/Maildir/.{number}/{kind}", mode=0o700, uid=UID, gid=UID)
    assert says(vhost, "bob@example.com") == "+ account"
    assert says(vhost, "bob@example.com", CVM_LOOKUP_TIMEOUT="1") == "? too-much"
