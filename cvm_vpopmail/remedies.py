"""Advice of `cvmctl trace` about an address that vpopmail rejects.

Source: vpopmail's manual (vadduser, vmoduser, vmkpasswd).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cvm_qmail.cvmctl.trace.capture import Case
from cvm_qmail.cvmctl.ui.output import text
from cvm_vpopmail.listing import is_stale
from cvm_vpopmail.rules.records import is_domain


def _address(case: Case) -> str:
    """The account as vpopmail's tools name it."""
    note = next((note for note in case.notes if note.table == "account"), None)
    if note is None:
        return text(case.recipient.address)
    domain, name = note.key
    return f"{text(name)}@{text(domain.name)}"


def _no_account(case: Case) -> Iterator[str]:
    note = next((note for note in case.notes if note.table == "domain"), None)
    if note is not None and note.value is None:
        yield f"vpopmail does not know the domain: vaddaliasdomain {text(note.key)} REAL-DOMAIN, if it is one"
        return
    yield from _stale(case)
    yield f"if the address should exist: vadduser {_address(case)}, or a file .qmail-NAME in {_directory(case)}"


def _directory(case: Case) -> str:
    return "the domain's directory" if case.user is None else text(case.user.home)


def _stale(case: Case) -> Iterator[str]:
    """Advice if vpasswd is newer than vpasswd.cdb."""
    if case.user is not None and is_domain(case.user) and is_stale(case.tables, case.user):
        yield f"{text(case.user.home)}/vpasswd is newer than vpasswd.cdb: run vmkpasswd {text(case.user.name)}"


def _locked(case: Case) -> Iterator[str]:
    yield f"the account is locked: vmoduser -x {_address(case)} clears its flags (all of them)"


def _home_not_made(case: Case) -> Iterator[str]:
    owner = f"the owner of {_directory(case)}"
    yield f"its home is missing, and vpopmail cannot make it: make it and its Maildir for {owner}"


def _maildir(case: Case) -> Iterator[str]:
    user = case.user
    if user is not None:
        yield f"make {text(case.outcome.where)} for uid {user.uid}, gid {user.gid}"


def _over_quota(case: Case) -> Iterator[str]:
    yield f"the mailbox is full: delete mail, or vsetuserquota {_address(case)} QUOTA"


def _arguments(case: Case) -> Iterator[str]:
    yield f"{text(case.outcome.where)}: write  | /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox"


def _cdb(case: Case) -> Iterator[str]:
    if case.user is not None and case.outcome.where.endswith(b"/vpasswd.cdb"):
        yield f"run vmkpasswd {text(case.user.name)}, which makes a new vpasswd.cdb from vpasswd"


REMEDIES: dict[str, Callable[[Case], Iterator[str]]] = {
    "no-account": _no_account,
    "cdb-damaged": _cdb,
    "cdb-unreadable": _cdb,
    "locked": _locked,
    "home-not-made": _home_not_made,
    "maildir": _maildir,
    "over-quota": _over_quota,
    "vdelivermail-arguments": _arguments,
}
