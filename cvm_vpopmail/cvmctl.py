"""vpopmail's part of cvmctl: questions to its tables in words; the entry point.

Invariants: no hash and no password leaves `Account`.
"""

from __future__ import annotations

from typing import Any

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.extension import Extension
from cvm_qmail.cvmctl.ui.output import text
from cvm_vpopmail.accounts import Account, Domain, Flag
from cvm_vpopmail.lint import KINDS, account_files, not_virtual
from cvm_vpopmail.listing import names
from cvm_vpopmail.remedies import REMEDIES
from cvm_vpopmail.rules import shell


def words(table: str, key: Any, value: Any) -> str | None:
    """A question to a table and its answer, as a sentence; None: not one of vpopmail's tables."""
    if isinstance(value, Unavailable):
        return f"vpopmail account {text(key[1])}: temporary failure: {value.detail}" if table == "account" else None
    if table == "domain":
        return _domain(key, value)
    if table == "account":
        return _account(key[1], value)
    if table == "limits" and isinstance(key, Domain):
        return f"limits of {text(key.name)}: {'none' if value is None else 'found'}"
    return None


def _domain(name: bytes, domain: Domain | None) -> str:
    if domain is None:
        return f"vpopmail does not know the domain {text(name)}: it has no accounts"
    alias = "" if domain.name == name else f", an alias of {text(domain.name)}"
    return (
        f"vpopmail domain {text(name)}{alias}: uid {domain.uid}, gid {domain.gid}, directory {text(domain.directory)}"
    )


def _account(name: bytes, account: Account | None) -> str:
    if account is None:
        return f"vpopmail has no account {text(name)}"
    flags = [flag.name for flag in Flag if account.flags & flag and flag.name is not None]
    return (
        f"vpopmail account {text(name)}: home {text(account.directory) or '(none)'},"
        f" quota {text(account.quota) or '(none)'}, flags {' '.join(flags) or '(none)'}"
    )


def instruction(command: bytes) -> str | None:
    """What a program line does, as a sentence: vdelivermail, or ``exit N``; None: any other program."""
    status = shell.exit_status(command)
    if status is not None:
        return f"exits with {status}"
    arguments = shell.vdelivermail(command)
    if arguments is None:
        return None
    if len(arguments) != 2:
        return "vdelivermail, with wrong arguments"
    other = arguments[1]
    if other.startswith(b"|"):
        other = b"a program"
    return f"vdelivermail: an account, else {text(other)}"


extension = Extension(
    words=words,
    instruction=instruction,
    names=names,
    remedies=REMEDIES,
    rules=(not_virtual, account_files),
    kinds=KINDS,
)
"""The entry point."""
